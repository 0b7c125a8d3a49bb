"""MNIST and FashionMNIST, from their own files."""

from pathlib import Path

import numpy as np

from raydistill.config import DataSettings
from raydistill.data.download import downloading
from raydistill.data.idx import read_idx
from raydistill.data.raw import RawData

DIGITS = (
    *("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four"),
    *("5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine"),
)
"""The classes of MNIST, USPS and SVHN, so that networks for one are seen to fit the others."""
CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
FILES = ("images-idx3-ubyte", "labels-idx1-ubyte")


def read_mnist(config: DataSettings, data_dir: Path) -> RawData:
    """DIR/MNIST/raw: 60,000 + 10,000 grey images of 28 x 28 pixels (LeCun et al. 1998)."""
    return _read("MNIST", DIGITS, data_dir)


def read_fashionmnist(config: DataSettings, data_dir: Path) -> RawData:
    """DIR/FashionMNIST/raw: clothes, in the form of MNIST (Xiao et al. 2017)."""
    return _read("FashionMNIST", CLOTHES, data_dir)


def _read(name: str, class_names: tuple[str, ...], data_dir: Path) -> RawData:
    """The files of torchvision's data set class `name`, which downloads them where they are missing."""
    raw = data_dir / name / "raw"
    parts = [[raw / f"{part}-{kind}" for kind in FILES] for part in ("train", "t10k")]
    if not all(path.exists() or path.with_name(f"{path.name}.gz").exists() for part in parts for path in part):
        with downloading(name.lower(), data_dir):
            from torchvision import datasets  # two seconds, which those who have the data do without

            getattr(datasets, name)(data_dir, download=True)
    (train, train_labels), (test, test_labels) = ([read_idx(path) for path in part] for part in parts)
    train_labels, test_labels = train_labels.astype(np.int64), test_labels.astype(np.int64)
    return RawData(train[:, None], train_labels, test[:, None], test_labels, class_names)
