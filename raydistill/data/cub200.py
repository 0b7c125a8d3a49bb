"""The birds of CUB-200-2011 (Wah et al. 2011)."""

from pathlib import Path

import numpy as np

from raydistill.config.data_settings import DataSettings
from raydistill.data.download import ELSEWHERE
from raydistill.data.photos import decode_photos, read_rows
from raydistill.data.raw import RawData, assembled
from raydistill.system.errors import UserError

HOME = "https://www.vision.caltech.edu/datasets/cub_200_2011/"


def read_cub200(config: DataSettings, data_dir: Path) -> RawData:
    """Read 5,994 + 5,794 photographs of birds from DIR/CUB_200_2011, in the training and test split of its authors.

    They have three channels and `image_size`, by default 224.

    Raises:
        UserError: the data are not there (they are not downloaded), or are damaged.
    """
    root = data_dir / "CUB_200_2011"
    if not root.is_dir():
        raise UserError(f"dataset=cub200: {root} is missing; unpack CUB_200_2011.tgz from {HOME} there, or {ELSEWHERE}")
    class_names = list(_by_number(root / "classes.txt").values())
    files = _by_number(root / "images.txt")
    labels = _read_numbers(root / "image_class_labels.txt", list(files), range(1, len(class_names) + 1)) - 1
    training = _read_numbers(root / "train_test_split.txt", list(files), range(2)) == 1
    paths = [root / "images" / name for name in files.values()]
    parts = [
        decode_photos([paths[row] for row in np.flatnonzero(part)], labels[part], config)
        for part in (training, ~training)
    ]
    return assembled(parts, tuple(_without_number(name) for name in class_names), str(root))


def _by_number(path: Path) -> dict[str, str]:
    """Return the lines `number text` of a file as a mapping."""
    return {row[0]: row[1] for row in read_rows(path, columns=2)}


def _read_numbers(path: Path, images: list[str], allowed: range) -> np.ndarray:
    """Return the whole numbers that a file gives to the images of these ids, in their order, [M] int64."""
    given = _by_number(path)
    try:
        found = [allowed.index(int(given[image])) + allowed.start for image in images]
    except (KeyError, ValueError) as error:
        numbers = f"a number of {allowed.start} to {allowed.stop - 1}"
        raise UserError(
            f"{path}: should give each image of images.txt {numbers} ({error}); unpack the data again"
        ) from error
    return np.array(found, dtype=np.int64)


def _without_number(name: str) -> str:
    """Return the species, without the number in front: Black footed Albatross of 001.Black_footed_Albatross."""
    return name.partition(".")[2] or name
