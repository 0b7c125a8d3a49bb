"""Sources of real data. A source is a function that reads one data set; `SOURCES` lists them by name.

To add one, write `(config, data_dir) -> RawData` and enter it in `SOURCES`. Files in `data_dir` have the places that
torchvision gives them.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from raydistill.config.data_settings import DataSettings
from raydistill.data.cifar import read_cifar10, read_cifar100
from raydistill.data.cub200 import read_cub200
from raydistill.data.digits import read_digits
from raydistill.data.folders import read_folder
from raydistill.data.hub import read_hub
from raydistill.data.images import fit_images
from raydistill.data.mnist import CLOTHES, DIGITS, read_fashionmnist, read_mnist
from raydistill.data.raw import RawData
from raydistill.data.svhn import read_svhn
from raydistill.data.tables import read_tables, table_files
from raydistill.data.usps import read_usps
from raydistill.data.voc import read_voc
from raydistill.system.errors import UserError
from raydistill.system.storage import at_home, home


def read_source(config: DataSettings, data_dir: str | Path | None = None) -> RawData:
    """Read the data that `config.dataset` names.

    Raises:
        UserError: no such source, or it cannot be read.
    """
    kind, _, path = config.dataset.partition(":")
    if kind == "hf" and path:
        return read_hub(config, path)
    if kind in PATH_SOURCES:
        if not path:
            raise UserError(f"dataset={config.dataset}: say where, as in {kind}:PATH")
        place = Path(at_home(path))
        if not place.exists():
            raise UserError(f"dataset={config.dataset}: no such file or folder")
        return PATH_SOURCES[kind](config, place)
    if config.dataset not in SOURCES:
        known = ", ".join([*SOURCES, *(f"{name}:PATH" for name in PATH_SOURCES), "hf:NAME"])
        raise UserError(f"dataset={config.dataset}: there is no such dataset (there are {known})")
    if config.data.image_column or config.data.label_column:
        raise UserError(f"data.image_column and data.label_column are for dataset=parquet:PATH, not {config.dataset}")
    raw = _read_named(config, data_folder(data_dir) if config.dataset in FILES else Path())
    train, test = (
        replace(part, images=fit_images(part.images, config.data.image_size, config.data.channels))
        for part in (raw.train, raw.test)
    )
    return replace(raw, train=train, test=test)


def _read_named(config: DataSettings, folder: Path) -> RawData:
    """Read a named data set from torchvision's files in the folder, else from tables in DIR/NAME."""
    name = config.dataset
    if name not in FILES or _as_torchvision(name, folder) or not _as_tables(name, folder):
        return SOURCES[name](config, folder)
    label = {"cifar100": "fine_label"}.get(name)
    raw = read_tables(config.changed({"data.label_column": label}), folder / name)
    names = CLASS_NAMES.get(name, raw.class_names)
    return replace(raw, class_names=names) if len(names) == len(raw.class_names) else raw


def is_there(name: str, folder: Path) -> bool:
    """Return whether the folder contains a named data set, as torchvision's files or as tables."""
    return _as_torchvision(name, folder) or _as_tables(name, folder)


def _as_torchvision(name: str, folder: Path) -> bool:
    return any(folder.glob(FILES[name]))


def _as_tables(name: str, folder: Path) -> bool:
    return (folder / name).is_dir() and bool(table_files(folder / name))


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Return the folder of named data sets: `data_dir`, else RAYDISTILL_DATA, else ~/.cache/raydistill.

    Raises:
        UserError: the folder would be in the home folder, and this user has none.
    """
    named = data_dir or os.environ.get("RAYDISTILL_DATA")
    if not named and home() is None:
        raise UserError("--data-dir: this user has no home folder for data sets; name one, or set RAYDISTILL_DATA")
    return Path(at_home(named or "~/.cache/raydistill"))


Reader = Callable[[DataSettings, Path], RawData]
SOURCES: dict[str, Reader] = {
    "digits": read_digits,
    "mnist": read_mnist,
    "fashionmnist": read_fashionmnist,
    "usps": read_usps,
    "svhn": read_svhn,
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "voc": read_voc,
    "cub200": read_cub200,
}
PATH_SOURCES: dict[str, Reader] = {"parquet": read_tables, "folder": read_folder}
FILES = {  # The file or folder by which a named data set is found in its folder.
    "mnist": "MNIST/raw/train-images-idx3-ubyte*",
    "fashionmnist": "FashionMNIST/raw/train-images-idx3-ubyte*",
    "usps": "usps.bz2",
    "svhn": "train_32x32.mat",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "voc": "VOCdevkit/VOC2007",
    "cub200": "CUB_200_2011",
}
CLASS_NAMES = {"mnist": DIGITS, "usps": DIGITS, "svhn": DIGITS, "fashionmnist": CLOTHES}
