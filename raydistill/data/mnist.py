"""MNIST and FashionMNIST, from their own files."""

from pathlib import Path

import numpy as np

from raydistill.config.data_settings import DataSettings
from raydistill.data.download import downloading
from raydistill.data.idx import read_idx
from raydistill.data.raw import Part, RawData, assembled
from raydistill.system.errors import UserError

DIGITS = (
    *("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four"),
    *("5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine"),
)
"""The classes of MNIST, USPS and SVHN, so that networks for one are seen to fit the others."""
CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def read_mnist(config: DataSettings, data_dir: Path) -> RawData:
    """Read 60,000 + 10,000 grey images of 28 x 28 pixels (LeCun et al. 1998) from DIR/MNIST/raw."""
    return _read("MNIST", DIGITS, data_dir)


def read_fashionmnist(config: DataSettings, data_dir: Path) -> RawData:
    """Read images of clothes, in the form of MNIST (Xiao et al. 2017), from DIR/FashionMNIST/raw."""
    return _read("FashionMNIST", CLOTHES, data_dir)


def _read(name: str, class_names: tuple[str, ...], data_dir: Path) -> RawData:
    """Read the files of torchvision's data set class `name`, which downloads them where they are missing."""
    raw = data_dir / name / "raw"
    parts = [(raw / f"{part}-images-idx3-ubyte", raw / f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")]
    if not all(path.exists() or path.with_name(f"{path.name}.gz").exists() for part in parts for path in part):
        with downloading(name.lower(), data_dir):
            from torchvision import datasets  # Importing takes two seconds; only a download needs it.

            getattr(datasets, name)(data_dir, download=True)
    return assembled(
        [_read_part(images, labels, len(class_names)) for images, labels in parts], class_names, name.lower()
    )


def _read_part(images_file: Path, labels_file: Path, num_classes: int) -> Part:
    images, labels = read_idx(images_file), read_idx(labels_file)
    if images.ndim != 3 or labels.shape != images.shape[:1] or labels.max(initial=0) >= num_classes:
        raise UserError(
            f"{labels_file}: does not hold one of {num_classes} classes for each image of {images_file.name}; "
            "delete both to download them again"
        )
    return Part(images[:, None], labels.astype(np.int64))
