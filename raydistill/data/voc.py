"""PASCAL VOC 2007 (Everingham et al.) as images of one class each."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from raydistill.config.data_settings import DataSettings
from raydistill.data.download import downloading
from raydistill.data.photos import decode_photos, read_rows
from raydistill.data.raw import Part, RawData, assembled
from raydistill.system.errors import UserError

SPLITS = ("trainval", "test")
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def read_voc(config: DataSettings, data_dir: Path) -> RawData:
    """Read DIR/VOCdevkit/VOC2007: trainval is for training, test (published for this year alone) for testing.

    VOC's images show several things. Those are taken whose annotated objects, difficult ones too, are all of one
    class, which is the image's. (Wang et al. 2018 cut each object out of its image, to the same end.) They have three
    channels and `image_size`, by default 224.

    Raises:
        UserError: the data are not there and cannot be downloaded, or are damaged.
    """
    root = data_dir / "VOCdevkit" / "VOC2007"
    for split in SPLITS:
        if not _members(root, split).exists():
            with downloading("voc", data_dir):
                from torchvision import datasets

                datasets.VOCDetection(data_dir, year="2007", image_set=split, download=True)
    return assembled([_read_split(root, split, config) for split in SPLITS], CLASSES, str(root))


def _members(root: Path, split: str) -> Path:
    """Return the file that lists a split's images."""
    return root / "ImageSets" / "Main" / f"{split}.txt"


def _read_split(root: Path, split: str, config: DataSettings) -> Part:
    names = [name for (name,) in read_rows(_members(root, split), columns=1)]
    shown = [_classes_shown(root / "Annotations" / f"{name}.xml") for name in names]
    one = [(name, classes.pop()) for name, classes in zip(names, shown, strict=True) if len(classes) == 1]
    files = [root / "JPEGImages" / f"{name}.jpg" for name, _ in one]
    return decode_photos(files, np.array([label for _, label in one], dtype=np.int64), config)


def _classes_shown(annotation: Path) -> set[int]:
    """Return the classes of an image's annotated objects."""
    try:
        objects = ElementTree.parse(annotation).getroot().findall("object")
        return {CLASSES.index((thing.findtext("name") or "").strip()) for thing in objects}
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{annotation}: not an annotation of VOC 2007 ({error}); unpack the data again") from error
