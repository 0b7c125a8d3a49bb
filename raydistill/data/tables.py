"""Images in parquet or Arrow files, in the Hugging Face layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydistill.config import DataSettings
from raydistill.data.images import decode_images, fit_images
from raydistill.data.raw import RawData, assembled
from raydistill.errors import UserError

SUFFIXES = (".parquet", ".arrow", ".feather")


def read_tables(config: DataSettings, path: Path) -> RawData:
    """A parquet or Arrow file, or a folder of them with train and test in the names of files or folders.

    The image column holds encoded images, as bytes or as {bytes, path}, or uint8 pixels as an Arrow tensor; the
    label column holds class numbers or names. Without test files, a fifth of the rows is the test set.

    Raises:
        UserError: no such files or columns, or images that cannot be decoded or differ in size.
    """
    tables = [_read_files(files) for files in _splits(path)]
    schema = tables[0].schema
    features = _hugging_face_features(schema)
    image = _column("image", config.image_column, [f.name for f in schema if _holds_images(f.type)], schema, path)
    candidates = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    candidates = candidates or [n for n in schema.names if n.lower() in ("label", "labels", "fine_label", "class")]
    label = _column("label", config.label_column, candidates, schema, path)
    for table in tables[1:]:
        for name in {image, label} - set(table.column_names):
            raise UserError(f"{path}: the test files have no column {name!r}, which the training files have")

    values = [table[label].to_numpy() for table in tables]
    class_names = _class_names(values, features.get(label, {}).get("names"), f"{path}: column {label!r}")
    number = {name: index for index, name in enumerate(class_names)}
    parts = [
        (
            _images(table[image], f"{path}: column {image!r}", config),
            v.astype(np.int64) if v.dtype.kind in "iu" else np.array([number[str(x)] for x in v], dtype=np.int64),
        )
        for table, v in zip(tables, values, strict=True)
    ]
    return assembled(parts, class_names, str(path))


def _splits(path: Path) -> list[list[Path]]:
    """The files of train and of test, or all files as one split."""
    if path.is_file():
        return [[path]]
    files = sorted(f for f in path.rglob("*") if f.suffix in SUFFIXES)
    if not files:
        raise UserError(f"{path}: holds no {', '.join(SUFFIXES)} files")
    named = {split: [f for f in files if split in str(f.relative_to(path)).lower()] for split in ("train", "test")}
    return [named["train"], named["test"]] if named["train"] and named["test"] else [named["train"] or files]


def _read_files(files: list[Path]) -> pa.Table:
    tables = []
    for file in files:
        try:
            tables.append(pq.read_table(file) if file.suffix == ".parquet" else _read_arrow(file))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{file}: not a file that Arrow can read ({str(error).splitlines()[0]})") from error
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise UserError(f"{files[0].parent}: its files differ in their columns ({error})") from error


def _read_arrow(file: Path) -> pa.Table:
    """Both of Arrow's forms: the file (feather) and the stream (what Hugging Face datasets saves)."""
    with pa.memory_map(str(file)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


def _hugging_face_features(schema: pa.Schema) -> dict[str, Any]:
    """What the Hugging Face metadata say of each column; empty where there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {name: f for name, f in features.items() if isinstance(f, dict)} if isinstance(features, dict) else {}


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    bytes_ = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return bool(bytes_ or isinstance(kind, pa.FixedShapeTensorType))


def _column(what: str, named: str | None, candidates: list[str], schema: pa.Schema, path: Path) -> str:
    """The column the user named, else the only candidate."""
    columns = ", ".join(schema.names)
    if named is not None:
        if named not in schema.names:
            raise UserError(f"{what}_column={named}: {path} has no such column (it has {columns})")
        return named
    if len(candidates) != 1:
        found = f"has several {what} columns" if candidates else f"has no {what} column"
        raise UserError(f"{path}: {found} (it has {columns}); set {what}_column to one of them")
    return candidates[0]


def _class_names(values: list[np.ndarray], names: list[str] | None, where: str) -> tuple[str, ...]:
    kinds = {v.dtype.kind for v in values}
    if kinds <= {"i", "u"}:
        low, high = min(v.min(initial=0) for v in values), max(v.max(initial=0) for v in values)
        if low < 0 or (names is not None and high >= len(names)):
            raise UserError(
                f"{where}: classes must be 0 to {len(names or []) - 1 if names else 'K-1'}, not {low} to {high}"
            )
        return tuple(names) if names else tuple(str(i) for i in range(high + 1))
    if kinds <= {"O", "U"} and all(isinstance(x, str) for v in values for x in v):
        return tuple(sorted({x for v in values for x in v}))
    raise UserError(f"{where}: holds neither whole numbers from 0 nor names; set label_column to one that does")


def _images(column: pa.ChunkedArray, where: str, config: DataSettings) -> np.ndarray:
    """Images of one column, uint8 [M, C, H, W]."""
    if isinstance(column.type, pa.FixedShapeTensorType):
        pixels = np.concatenate([chunk.to_numpy_ndarray() for chunk in column.chunks])
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
            raise UserError(f"{where}: tensors must be uint8 of H x W or C x H x W, not {column.type}")
        return fit_images(pixels if pixels.ndim == 4 else pixels[:, None], config.image_size, config.channels)
    if not _holds_images(column.type):
        raise UserError(f"{where}: holds no images but {column.type}; set image_column to one that does")
    if pa.types.is_struct(column.type):
        column = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks], pa.binary())
    encoded = column.to_pylist()
    if None in encoded:
        raise UserError(f"{where}: row {encoded.index(None)} has no image bytes")
    names = [f"{where}, row {row}" for row in range(len(encoded))]
    return decode_images(encoded, names, config.image_size, config.channels)
