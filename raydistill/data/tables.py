"""Images in parquet or Arrow files, in the Hugging Face layout."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raydistill.config.data_settings import DataSettings
from raydistill.data.classes import numbered
from raydistill.data.columns import check_nulls, holds_images, holds_lists, images_of, plain
from raydistill.data.decoding import Wanted
from raydistill.data.raw import Part, RawData, assembled
from raydistill.data.splits import split_of, train_and_test
from raydistill.system.errors import UserError

SUFFIXES = (".parquet", ".pq", ".arrow", ".feather", ".ipc")
LABELS = ("label", "labels", "fine_label", "class")


def read_tables(config: DataSettings, path: Path) -> RawData:
    """Read a parquet or Arrow file, or a folder of them with train and test as words in names of files or folders.

    The image column holds encoded images, as bytes or as {bytes, path}, or pixels as an Arrow tensor or as lists; the
    label column holds class numbers or names. Without test files, a fifth of the rows is the test set.

    Raises:
        UserError: no such files or columns, or images that cannot be decoded or differ in size.
    """
    if path.is_file():
        groups = [[path]]
    else:
        found: dict[str | None, list[Path]] = {}
        for file in table_files(path):
            split = split_of(file.stem, *reversed(file.relative_to(path).parent.parts))
            found.setdefault(split, []).append(file)
        if not found:
            raise UserError(f"{path}: holds no {', '.join(SUFFIXES)} files")
        groups = train_and_test(found, str(path))
    schema = _schema(groups[0][0])
    image, label = columns_of(schema, config, str(path))
    tables = [concatenated([_read(file, [image, label]) for file in files], files[0].parent) for files in groups]
    return raw_of(tables, schema, config, str(path), path if path.is_dir() else path.parent)


def raw_of(
    tables: Sequence[pa.Table], schema: pa.Schema, config: DataSettings, origin: str, folder: Path | None = None
) -> RawData:
    """Return the data in tables of train, and of test where there is one; errors are those of `read_tables`."""
    image, label = columns_of(schema, config, origin)
    where = f"{origin}: column {image!r}"
    for table in tables:
        check_nulls(table[label], f"{origin}: column {label!r}", "class")
    labels, class_names = numbered(
        [plain(table[label]).to_numpy() for table in tables],
        f"{origin}: column {label!r}",
        hugging_face_features(schema).get(label, {}).get("names"),
    )
    wanted = Wanted(config.data.image_size, config.data.channels, config.data.background)
    parts = []
    for table, classes in zip(tables, labels, strict=True):
        images, encoded = images_of(plain(table[image]), where, wanted, folder)
        parts.append(Part(images, classes, [f"row {row}" for row in range(len(classes))], encoded))
    return assembled(parts, class_names, origin)


def columns_of(schema: pa.Schema, config: DataSettings, origin: str) -> tuple[str, str]:
    """Return the names of the image column and of the label column.

    Raises:
        UserError: there is no such column, or more than one candidate.
    """
    images = [f.name for f in schema if holds_images(f.type)] or [f.name for f in schema if holds_lists(f.type)]
    features = hugging_face_features(schema)
    labels = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    labels = labels or [name for name in schema.names if name.lower() in LABELS]
    return (
        _column("image", config.data.image_column, images, schema, origin),
        _column("label", config.data.label_column, labels, schema, origin),
    )


def hugging_face_features(schema: pa.Schema) -> dict[str, Any]:
    """Return the Hugging Face metadata of each column; empty where there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return {name: f for name, f in features.items() if isinstance(f, dict)} if isinstance(features, dict) else {}


def table_files(folder: Path) -> list[Path]:
    """Return the tables in a folder and the folders inside it, without hidden ones.

    Hugging Face's `save_to_disk` lists its files in state.json; other files beside them are its cache.
    """
    here = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    below = [file for path in here if path.is_dir() for file in table_files(path)]
    files = [path for path in here if path.is_file() and path.suffix.lower() in SUFFIXES]
    try:
        listed = {file["filename"] for file in json.loads((folder / "state.json").read_text())["_data_files"]}
    except (OSError, ValueError, LookupError, TypeError):
        return sorted([*files, *below])
    return sorted([*(file for file in files if file.name in listed), *below])


def concatenated(tables: Sequence[pa.Table], origin: Path) -> pa.Table:
    """Concatenate the rows of all tables; their columns must have types of one kind."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"{origin}: its files differ in their columns ({str(error).splitlines()[0]})") from error


def _schema(file: Path) -> pa.Schema:
    try:
        with _opened(file) as source:
            return pq.read_schema(source) if _is_parquet(file) else _reader(source).schema
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _read(file: Path, columns: list[str]) -> pa.Table:
    """Read columns of a file, without dictionaries and views."""
    for name in set(columns) - set(_schema(file).names):
        raise UserError(f"{file}: has no column {name!r}, which the training files have")
    try:
        with _opened(file) as source:
            if _is_parquet(file):
                table = pq.read_table(source, columns=columns)
            else:
                table = _reader(source).read_all().select(columns)
        return pa.table({name: plain(table[name]) for name in columns})
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise _unreadable(file, error) from error


def _opened(file: Path) -> pa.NativeFile:
    """Open a file for Arrow, which cannot open names that are not UTF-8."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        return pa.PythonFile(file.open("rb"), "r")
    return pa.memory_map(str(file))


def _reader(source: pa.NativeFile) -> Any:
    """Return a reader of Arrow's file format (feather) or of its stream format (as Hugging Face datasets saves)."""
    try:
        return pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() in (".parquet", ".pq")


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{file}: not a file that Arrow can read ({(str(error).splitlines() or ['?'])[0]})")


def _column(what: str, named: str | None, candidates: list[str], schema: pa.Schema, origin: str) -> str:
    """Return the column that the user named, else the only candidate."""
    columns = ", ".join(schema.names)
    if named is not None:
        if named not in schema.names:
            raise UserError(f"data.{what}_column={named}: {origin} has no such column (it has {columns})")
        candidates = [name for name in schema.names if name == named]
    if len(candidates) != 1:
        found = f"has several {what} columns" if candidates else f"has no {what} column"
        raise UserError(f"{origin}: {found} (it has {columns}); set data.{what}_column to one of them")
    return candidates[0]
