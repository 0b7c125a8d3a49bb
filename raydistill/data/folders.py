"""Images in one folder a class."""

from pathlib import Path

import numpy as np
from PIL import Image

from raydistill.config import DataSettings
from raydistill.data.images import decode_images
from raydistill.data.raw import RawData, assembled
from raydistill.errors import UserError


def read_folder(config: DataSettings, path: Path) -> RawData:
    """PATH/CLASS/IMAGE.png, or PATH/train/CLASS/IMAGE.png and PATH/test/CLASS/IMAGE.png.

    Raises:
        UserError: no classes, none or unreadable images, or images of several sizes without `image_size`.
    """
    if config.image_column or config.label_column:
        raise UserError("image_column and label_column are for dataset=parquet:PATH, not folder:PATH")
    if not path.is_dir():
        raise UserError(f"dataset={config.dataset}: is not a folder")
    roots = [path / "train", path / "test"] if (path / "train").is_dir() else [path]
    if not roots[-1].is_dir():
        raise UserError(f"{path}: has a folder train but none named test beside it")
    class_names = tuple(sorted(d.name for d in roots[0].iterdir() if d.is_dir()))
    if not class_names:
        raise UserError(f"{path}: has no folder for each class, as in {roots[0]}/CLASS/IMAGE.png")
    return assembled([_read_split(root, class_names, config) for root in roots], class_names, str(path))


def _read_split(root: Path, class_names: tuple[str, ...], config: DataSettings) -> tuple[np.ndarray, np.ndarray]:
    extensions = Image.registered_extensions()
    found = [
        (file, label)
        for label, name in enumerate(class_names)
        for file in sorted((root / name).rglob("*"))
        if file.suffix.lower() in extensions
    ]
    files = [file for file, _ in found]
    images = decode_images(files, [str(file) for file in files], config.image_size, config.channels)
    return images, np.array([label for _, label in found], dtype=np.int64)
