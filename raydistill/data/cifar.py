"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), through torchvision.

Their files are pickles, which can run code. torchvision opens them only when their md5 sums are those of the official
files, which is why they are not read here.
"""

from pathlib import Path

import numpy as np

from raydistill.config.data_settings import DataSettings
from raydistill.data.download import downloading
from raydistill.data.raw import Part, RawData


def read_cifar10(config: DataSettings, data_dir: Path) -> RawData:
    """Read 50,000 + 10,000 colour images of 32 x 32 pixels from DIR/cifar-10-batches-py."""
    return _read("CIFAR10", data_dir)


def read_cifar100(config: DataSettings, data_dir: Path) -> RawData:
    """Read 50,000 + 10,000 colour images of 32 x 32 pixels, with their 100 fine classes, from DIR/cifar-100-python."""
    return _read("CIFAR100", data_dir)


def _read(name: str, data_dir: Path) -> RawData:
    with downloading(name.lower(), data_dir):
        from torchvision import datasets

        train, test = (getattr(datasets, name)(data_dir, train=train, download=True) for train in (True, False))
    learned, tested = (
        Part(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), np.array(part.targets, dtype=np.int64))
        for part in (train, test)
    )
    return RawData(learned, tested, tuple(train.classes))
