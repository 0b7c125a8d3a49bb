"""Where real data come from. A source is a function that reads one; `SOURCES` lists them by name.

To add one: write `(config, data_dir) -> RawData` and enter it in `SOURCES`.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from raydistill.config import DataSettings
from raydistill.data.folders import read_folder
from raydistill.data.idx import read_idx
from raydistill.data.images import resize_images
from raydistill.data.raw import RawData, assembled
from raydistill.data.tables import read_tables
from raydistill.errors import UserError


def read_source(config: DataSettings, data_dir: str | Path | None = None) -> RawData:
    """The data that `config.dataset` names.

    Raises:
        UserError: no such source, or it cannot be read.
    """
    kind, _, path = config.dataset.partition(":")
    if kind in PATH_SOURCES:
        if not path:
            raise UserError(f"dataset={config.dataset}: say where, as in {kind}:PATH")
        if not Path(path).exists():
            raise UserError(f"dataset={config.dataset}: no such file or folder")
        return PATH_SOURCES[kind](config, Path(path))
    if config.dataset not in SOURCES:
        known = ", ".join([*SOURCES, *(f"{name}:PATH" for name in PATH_SOURCES)])
        raise UserError(f"dataset={config.dataset}: there is no such dataset (there are {known})")
    if config.image_column or config.label_column:
        raise UserError(f"image_column and label_column are for dataset=parquet:PATH, not {config.dataset}")
    folder = data_dir or os.environ.get("RAYDISTILL_DATA") or Path.home() / ".cache" / "raydistill"
    raw = SOURCES[config.dataset](Path(folder).expanduser())
    return replace(
        raw,
        train_images=resize_images(raw.train_images, config.image_size),
        test_images=resize_images(raw.test_images, config.image_size),
    )


def read_digits(data_dir: Path) -> RawData:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn carries."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    return assembled([(images, labels.astype(np.int64))], tuple(str(digit) for digit in range(10)), "digits")


def _mnist_like(name: str, class_names: tuple[str, ...]) -> Callable[[Path], RawData]:
    """A reader of the files of torchvision's data set class `name`, which downloads them where they are missing."""

    def read(data_dir: Path) -> RawData:
        """The data set in `data_dir`, or downloaded there."""
        raw = data_dir / name / "raw"
        parts = [[raw / f"{part}-{kind}" for kind in IDX_FILES] for part in ("train", "t10k")]
        if not all(path.exists() or path.with_name(f"{path.name}.gz").exists() for part in parts for path in part):
            _download(name, data_dir)
        (train, train_labels), (test, test_labels) = ([read_idx(path) for path in part] for part in parts)
        train_labels, test_labels = train_labels.astype(np.int64), test_labels.astype(np.int64)
        return RawData(train[:, None], train_labels, test[:, None], test_labels, class_names)

    return read


IDX_FILES = ("images-idx3-ubyte", "labels-idx1-ubyte")


def _download(name: str, data_dir: Path) -> None:
    from torchvision import datasets  # two seconds, which those who have the data do without

    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        getattr(datasets, name)(data_dir, download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"dataset={name.lower()}: {data_dir} does not have it and it cannot be downloaded ({reason}); name "
            "the folder that has it with --data-dir or RAYDISTILL_DATA"
        ) from error


DIGITS = (
    *("0 - zero", "1 - one", "2 - two", "3 - three", "4 - four"),
    *("5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine"),
)
CLOTHES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
SOURCES: dict[str, Callable[[Path], RawData]] = {
    "digits": read_digits,
    "mnist": _mnist_like("MNIST", DIGITS),
    "fashionmnist": _mnist_like("FashionMNIST", CLOTHES),
}
PATH_SOURCES: dict[str, Callable[[DataSettings, Path], RawData]] = {"parquet": read_tables, "folder": read_folder}
