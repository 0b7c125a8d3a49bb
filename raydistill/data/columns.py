"""Images in a column of an Arrow table: encoded files, tensors or nested lists of pixels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydistill.data.decoding import Wanted, decode_images, to_bytes
from raydistill.data.images import fit_images
from raydistill.system.errors import UserError

types = pa.types
VIEWS = {"binary_view": pa.large_binary(), "string_view": pa.large_string()}


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column without dictionaries, views and extension types; tensors stay tensors."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.FixedShapeTensorType):
        return plain(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type))
    if types.is_dictionary(kind):
        return plain(column.cast(kind.value_type))
    return column.cast(VIEWS[str(kind)]) if str(kind) in VIEWS else column


def holds_images(kind: pa.DataType) -> bool:
    """Return whether a column of this type may hold images: bytes, {bytes, path} or tensors."""
    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return bool(place >= 0 and _is_bytes(kind.field(place).type))
    return bool(_is_bytes(kind) or isinstance(kind, pa.FixedShapeTensorType))


def holds_lists(kind: pa.DataType) -> bool:
    """Return whether a column of this type may hold images as lists of lists of numbers, as Array2D and Array3D do."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    depth = 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth in (2, 3) and bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def images_of(
    column: pa.ChunkedArray, where: str, wanted: Wanted, folder: Path | None = None
) -> tuple[np.ndarray, str | None]:
    """Return the images of a column, uint8 [M, C, H, W], and a sha256 over their files, where they are encoded.

    Args:
        column: without dictionaries and views (see `plain`).
        where: the beginning of an error's message; row numbers count from 0.
        wanted: size, channels and background.
        folder: the folder of images that have a path and no bytes.

    Raises:
        UserError: a row has no image, one cannot be decoded, or they differ in size.
    """
    if isinstance(column.type, pa.FixedShapeTensorType) or holds_lists(column.type):
        check_nulls(column, where, "image")
        pixels = _tensors(column) if isinstance(column.type, pa.FixedShapeTensorType) else _lists(column, where)
        pixels = np.ascontiguousarray(_levels(_channels_first(pixels, _names(column.type), where), where))
        return fit_images(pixels, wanted.size, wanted.channels), None
    if not holds_images(column.type):
        raise UserError(f"{where}: holds no images but {column.type}; set data.image_column to one that does")
    encoded = _encoded(column, where, folder)
    return decode_images(encoded, [f"{where}, row {row}" for row in range(len(encoded))], wanted)


def check_nulls(column: pa.ChunkedArray, where: str, what: str) -> None:
    """Raise a UserError that names the first row without a value."""
    if column.null_count:
        raise UserError(f"{where}: row {pc.index(column.is_null(), True).as_py()} has no {what}")


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or str(kind) == "binary_view")


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _encoded(column: pa.ChunkedArray, where: str, folder: Path | None) -> Sequence[bytes | Path]:
    """Return the files of a column: their bytes, or the paths of files in the table's folder."""
    if not types.is_struct(column.type):
        check_nulls(column, where, "image")
        return list(column.to_pylist())
    contents = plain(pc.struct_field(column, "bytes")).to_pylist()
    if None not in contents:
        return list(contents)
    beside = column.type.get_field_index("path") >= 0 and folder is not None
    paths = plain(pc.struct_field(column, "path")).to_pylist() if beside else [None] * len(contents)
    for row, (content, path) in enumerate(zip(contents, paths, strict=True)):
        if content is None and (folder is None or not path or not (folder / path).is_file()):
            named = f", and its path {path} is no file in {folder}" if path else ""
            raise UserError(f"{where}: row {row} has no image bytes{named}")
    return [Path(folder or "", path or "") if c is None else c for c, path in zip(contents, paths, strict=True)]


def _tensors(column: pa.ChunkedArray) -> np.ndarray:
    """Return tensors as one array [M, ...]; pyarrow's `to_numpy_ndarray` fails on permuted ones that are not square."""
    kind = column.type
    flat = [chunk.storage.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    stored = np.concatenate(flat).reshape(len(column), *kind.shape)
    order = kind.permutation or range(len(kind.shape))
    return stored.transpose(0, *(1 + place for place in order))


def _lists(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """Return nested lists of one shape as an array [M, ...]."""
    values, shape = column.combine_chunks(), [len(column)]
    while _is_list(values.type):
        lengths = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise UserError(f"{where}: its images differ in size or have gaps; keep them as PNG, or make them alike")
        shape.append(lengths[0])
        values = values.flatten()
    check_nulls(values, f"{where}: of its pixels", "value")
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(shape)


def _names(kind: pa.DataType) -> str:
    """Return the first letters of a tensor's dimensions, in the order of `_tensors`; "" where they have no names."""
    names = kind.dim_names if isinstance(kind, pa.FixedShapeTensorType) else None
    if not names:
        return ""
    order = kind.permutation or range(len(names))
    return "".join((names[place] or "?")[0].lower() for place in order)


def _channels_first(pixels: np.ndarray, names: str, where: str) -> np.ndarray:
    """Convert images [M, H, W], [M, C, H, W] or [M, H, W, C] to [M, C, H, W].

    Raises:
        UserError: they have other than 1 or 3 channels.
    """
    if pixels.ndim == 3:
        return pixels.transpose(0, 2, 1)[:, None] if names == "wh" else pixels[:, None]
    if pixels.ndim != 4:
        raise UserError(
            f"{where}: images are of shape {pixels.shape[1:]}; they should be H x W, C x H x W or H x W x C"
        )
    if sorted(names) == ["c", "h", "w"]:
        pixels = pixels.transpose(0, *(1 + names.index(letter) for letter in "chw"))
    elif pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    if pixels.shape[1] not in (1, 3):
        raise UserError(
            f"{where}: images are of shape {pixels.shape[1:]}, that is of {pixels.shape[1]} channels; there should be "
            "1 or 3, first or last"
        )
    return pixels


def _levels(pixels: np.ndarray, where: str) -> np.ndarray:
    """Convert pixels to uint8. Types of more than 16 bits usually hold values of 0 to 255, not their full range."""
    if pixels.dtype.kind not in "iu" or pixels.dtype in (np.uint8, np.uint16):
        return to_bytes(pixels, where)
    low, high = int(pixels.min(initial=0)), int(pixels.max(initial=0))
    if low < 0 or high > 255:
        raise UserError(
            f"{where}: pixels are {low} to {high} in {pixels.dtype}; they should be 0 to 255, uint16, or floats of 0..1"
        )
    return pixels.astype(np.uint8)
