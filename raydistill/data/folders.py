"""Images in one folder a class, or listed in a table beside them."""

from pathlib import Path

import numpy as np

from raydistill.config.data_settings import DataSettings
from raydistill.data.classes import numbered, text
from raydistill.data.decoding import Wanted, decode_images, is_image_file
from raydistill.data.listed import Listed, aside, folders_in, read_lists, visible
from raydistill.data.raw import Part, RawData, assembled
from raydistill.data.splits import split_of, train_and_test
from raydistill.system.errors import UserError

TABLES = (".csv", ".jsonl", ".parquet")


def read_folder(config: DataSettings, path: Path) -> RawData:
    """Read PATH/CLASS/IMAGE.png, or PATH/train/CLASS/IMAGE.png and PATH/test/CLASS/IMAGE.png, or files in a table.

    Hidden files and folders, and names such as __MACOSX, are skipped.

    Raises:
        UserError: no classes, none or unreadable images, or images of several sizes without `image_size`.
    """
    if not path.is_dir():
        raise UserError(f"dataset={config.dataset}: is not a folder")
    root = _below_wrappers(path)
    by_class = _by_class(root)
    listed = read_lists(root, config, by_class=_tells_classes(by_class))
    if listed is not None:
        return _assembled(listed, set(), config, path)
    if config.data.image_column or config.data.label_column:
        raise UserError(
            "data.image_column and data.label_column are for tables, or for a folder with metadata.csv or train.csv"
        )
    splits = train_and_test(by_class, str(path))
    if not any(splits):
        raise UserError(
            f"{path}: has no folder for each class, as in {root}/CLASS/IMAGE.png, and no metadata.csv or train.csv "
            "that lists its images"
        )
    classes = {text(folder.name) for split in splits for folder in split}
    images = [[image for folder in split for image in _images(folder)] for split in splits]
    return _assembled(images, classes, config, path)


def _assembled(parts: list[list[Listed]], classes: set[str], config: DataSettings, path: Path) -> RawData:
    labels, class_names = numbered(
        [np.array([row.label for row in part]) for part in parts], str(path), of=sorted(classes)
    )
    wanted = Wanted(config.data.image_size, config.data.channels, config.data.background)
    read = []
    for part, numbers in zip(parts, labels, strict=True):
        files = [row.file for row in part]
        names = [text(str(file)) for file in files]
        images, encoded = decode_images(files, names, wanted)
        read.append(Part(images, numbers, names, encoded))
    return assembled(read, class_names, str(path))


def _by_class(root: Path) -> dict[str | None, list[Path]]:
    """Return the folders of classes, sorted, by their split; the key None where there are no splits.

    A folder is a split if its name says so and classes are in it: a class may be called `train`, too.
    """
    above = [
        folder for folder in folders_in(root) if _says_split(folder) and folders_in(folder) and not _has_images(folder)
    ]
    found: dict[str | None, list[Path]] = {}
    if any(_says_split(folder) == "train" for folder in above):
        for folder in above:
            found.setdefault(_says_split(folder), []).extend(folders_in(folder))
        return found
    classes = folders_in(root)
    return {None: classes} if classes else {}


def _tells_classes(found: dict[str | None, list[Path]]) -> bool:
    """Return whether the folders are classes, and not folders of images (or train and test) that a table lists."""
    return "train" in found or len([folder for folder in found.get(None, []) if not _says_split(folder)]) > 1


def _images(folder: Path) -> list[Listed]:
    """Return the images of a class, sorted, also those in folders inside it."""
    files = sorted(file for file in folder.rglob("*") if is_image_file(file) and file.is_file())
    return [Listed(file, folder.name) for file in files if not any(map(aside, file.relative_to(folder).parent.parts))]


def _below_wrappers(path: Path) -> Path:
    """Return the first folder with more than one folder in it: archives are often unpacked into an extra one."""
    inside = folders_in(path)
    while len(inside) == 1 and not _has_images(inside[0]) and not any(f.suffix in TABLES for f in visible(path)):
        path, inside = inside[0], folders_in(inside[0])
    return path


def _has_images(folder: Path) -> bool:
    return any(is_image_file(file) for file in folder.iterdir())


def _says_split(folder: Path) -> str | None:
    try:
        return split_of(folder.name)
    except UserError:  # The name contains several splits: the folder is a class.
        return None
