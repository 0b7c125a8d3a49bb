"""Where real data come from. A source is a function that reads one; `SOURCES` lists them by name.

To add one: write `(config, data_dir) -> RawData` and enter it in `SOURCES`.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from raydistill.config import DistillConfig
from raydistill.data.folders import read_folder
from raydistill.data.images import resize_images
from raydistill.data.raw import RawData, assembled
from raydistill.data.tables import read_tables
from raydistill.errors import UserError


def read_source(config: DistillConfig, data_dir: str | Path | None = None) -> RawData:
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


def _torchvision(name: str) -> Callable[[Path], RawData]:
    """A reader of torchvision's data set class `name`, which downloads what is missing."""

    def read(data_dir: Path) -> RawData:
        """The data set in `data_dir`, or downloaded there."""
        from torchvision import datasets

        with suppress(OSError):  # a read-only folder that has the data is fine; one that lacks them fails below
            data_dir.mkdir(parents=True, exist_ok=True)
        try:
            train, test = (getattr(datasets, name)(data_dir, train=t, download=True) for t in (True, False))
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"dataset={name.lower()}: {data_dir} does not have it and it cannot be downloaded ({reason}); name "
                "the folder that has it with --data-dir or RAYDISTILL_DATA"
            ) from error
        parts = [(np.asarray(d.data)[:, None], np.asarray(d.targets, dtype=np.int64)) for d in (train, test)]
        return RawData(*parts[0], *parts[1], tuple(train.classes))

    return read


SOURCES: dict[str, Callable[[Path], RawData]] = {
    "digits": read_digits,
    "mnist": _torchvision("MNIST"),
    "fashionmnist": _torchvision("FashionMNIST"),
}
PATH_SOURCES: dict[str, Callable[[DistillConfig, Path], RawData]] = {"parquet": read_tables, "folder": read_folder}
