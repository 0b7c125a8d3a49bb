"""Images listed in a table beside them: metadata.csv as Hugging Face has it, or train.csv and test.csv.

The table has a column with the files' names and one with their classes.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from raydistill.config.data_settings import DataSettings
from raydistill.data.splits import split_of, train_and_test
from raydistill.system.errors import UserError

logger = logging.getLogger("raydistill")

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILES = ("file_name", "filename", "file", "image", "img", "path", "image_path", "image_name", "name", "id", "image_id")
LABELS = ("label", "labels", "class", "category", "target", "fine_label")
BESIDE = ("", "images", "train", "test")  # Folders in which a table's files are searched.


@dataclass(frozen=True)
class Listed:
    """An image file and its class."""

    file: Path
    label: str | int


def read_lists(root: Path, config: DataSettings, by_class: bool) -> list[list[Listed]] | None:
    """Return the images that tables in a folder list: all, or train and test; None where there is no such table.

    Args:
        root: the folder.
        config: may name the columns.
        by_class: whether folders also give the classes. Then train.csv and metadata without classes are not used.

    Raises:
        UserError: a table cannot be read, names no classes, or a file that is not there.
    """
    metadata = [folder / name for folder in (root, *folders_in(root)) for name in NAMES if (folder / name).is_file()]
    found: dict[str | None, list[Listed]] = {}
    for table in metadata:
        for row in _rows(table, config, needed=not by_class):
            inside = row.file.relative_to(root).parent.parts if row.file.is_relative_to(root) else ()
            found.setdefault(split_of(*reversed(inside)), []).append(row)
    if not found and not by_class:
        for table in sorted(root.glob("*.csv")):
            split = split_of(table.stem)
            if split and (rows := _rows(table, config, needed=split == "train")):
                found.setdefault(split, []).extend(rows)
    return train_and_test(found, str(root)) if found else None


def _rows(table: Path, config: DataSettings, needed: bool) -> list[Listed]:
    """Return the rows of a table; none, with a log line, where it has no classes and they are not needed."""
    columns = _read(table, config.data.image_column)
    file = _column(table, columns, "image", config.data.image_column, FILES)
    if not needed and not config.data.label_column and not {name.lower() for name in columns} & set(LABELS):
        logger.warning("%s: is not used, as it has no classes", table)
        return []
    label = _column(table, columns, "label", config.data.label_column, LABELS)
    rows = []
    for number, (name, value) in enumerate(zip(columns[file], columns[label], strict=True)):
        path = _beside(table, str(name))
        if path is None:
            raise UserError(f"{table}: row {number} names {name}, which is not there")
        if value is None:
            raise UserError(f"{table}: row {number} has no class in column {label!r}")
        rows.append(Listed(path, value))
    return rows


def _read(table: Path, image_column: str | None) -> dict[str, Sequence[str | int | None]]:
    """Read the columns of a table."""
    try:
        if table.suffix == ".csv":
            read = pa.csv.read_csv(table, convert_options=_names_as_text(table, image_column))
        elif table.suffix == ".jsonl":
            read = pa.json.read_json(table)
        else:
            read = pq.read_table(table)
        return dict(zip(read.column_names, (column.to_pylist() for column in read.columns), strict=True))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{table}: cannot be read as a table ({str(error).splitlines()[0]})") from error


def _names_as_text(table: Path, image_column: str | None) -> pa.csv.ConvertOptions:
    """Read names of files as text: 007 is not 7."""
    with pa.csv.open_csv(table) as reader:
        names = [name for name in reader.schema.names if name.lower() in FILES or name == image_column]
    return pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True)


def _column(
    table: Path, columns: dict[str, Sequence[str | int | None]], what: str, named: str | None, known: tuple[str, ...]
) -> str:
    """Return the column that the user named, else the first of those known."""
    if named is not None and named in columns:
        return named
    lower = {name.lower(): name for name in reversed(columns)}
    first = next((lower[name] for name in known if name in lower), None)
    if named is not None or first is None:
        raise UserError(
            f"{table}: has no {what} column{f' {named}' if named else ''} (it has {', '.join(columns)}); "
            f"set data.{what}_column to one of them"
        )
    return first


def _beside(table: Path, name: str) -> Path | None:
    """Return the file of that name, with or without its ending, in the table's folder or a folder of `BESIDE` there."""
    for folder in BESIDE:
        path = table.parent / folder / name
        if path.is_file():
            return path
        if not path.suffix and (found := sorted(path.parent.glob(f"{path.name}.*"))):
            return found[0]
    return None


def folders_in(path: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without those that tools keep there."""
    return [folder for folder in visible(path) if folder.is_dir()]


def visible(path: Path) -> list[Path]:
    """Return the files and folders in a folder, sorted, without those that tools keep there."""
    return sorted(inside for inside in path.iterdir() if not aside(inside.name))


def aside(name: str) -> bool:
    """Return whether tools keep files of their own under this name."""
    return name.startswith((".", "__"))
