"""Places to keep things: local folders and object stores, by one name."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs

from raydistill.system.errors import UserError

NOWHERE = Path("/nonexistent")  # the home of users without one, as Debian writes it


def open_place(path: str | Path) -> tuple[pa.fs.FileSystem, str]:
    """The file system of a folder or an s3:// or gs:// address, and the path within it.

    Raises:
        UserError: it is no such address, or one with a password in it.
    """
    text = str(path).rstrip("/") or str(path)
    if has_password(text):
        scheme = text.partition(":")[0]
        raise UserError(f"{scheme}://...: leave keys out of addresses, which are shown; set them in the environment")
    try:
        if "://" in text:
            filesystem, inside = pa.fs.FileSystem.from_uri(text)
            return filesystem, inside
        local = os.path.abspath(at_home(text))
        return pa.fs.LocalFileSystem(), local.encode(errors="surrogateescape").decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{readable(text)}: its name is not UTF-8, which Arrow needs; choose another") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a place that can be opened: {error}") from error


def at_home(place: str | Path) -> str:
    """A place with `~` written out as the home folder; the quotes that keep it from the shell keep it from nobody else.

    Raises:
        UserError: this user has none.
    """
    text = str(place)
    if text.partition("/")[0] == "~" and home() is None:
        raise UserError(f"{text}: this user has no home folder; set HOME, or write the path without ~")
    return os.path.expanduser(text) if is_local(text) else text


def home() -> Path | None:
    """The home folder; None for a user without one, as in a container that runs as a bare number."""
    try:
        return Path.home() if Path.home() != NOWHERE else None
    except RuntimeError:
        return None


def readable(name: str) -> str:
    """The name of a file as text; bytes of it that are not UTF-8 are written as \\xNN."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def has_password(address: str) -> bool:
    """Whether it is of the form scheme://user:password@...: addresses end up in files and on screens."""
    host = address.partition("://")[2].partition("/")[0].partition("?")[0]
    return ":" in host.rpartition("@")[0]


def is_local(place: str | Path) -> bool:
    """Whether a place is a folder rather than an address."""
    return "://" not in str(place)


def split(place: str | Path) -> tuple[str, str]:
    """What a place lies in, and its name there: the opposite of `join`."""
    head, mark, query = _parted(place)
    above, slash, name = head.rstrip("/").rpartition("/")
    return (above or slash or ".") + mark + query, name


def write_file(filesystem: pa.fs.FileSystem, file: str, data: bytes) -> None:
    """Writes a file; an OSError says why it cannot."""
    with filesystem.open_output_stream(file) as stream:
        stream.write(data)


def replace_file(filesystem: pa.fs.FileSystem, file: str, data: bytes) -> None:
    """Writes a file such that readers see the old one or the new, never a part; an OSError says why it cannot."""
    if not isinstance(filesystem, pa.fs.LocalFileSystem):  # an object appears when it is whole
        write_file(filesystem, file, data)
        return
    partial = f"{file}.partial-{os.getpid()}"
    try:
        write_file(filesystem, partial, data)
        os.replace(partial, file)
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A path to write to, which becomes the local file when all is written: an older one stays until then."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        yield partial
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_file(filesystem: pa.fs.FileSystem, file: str) -> bytes:
    """The bytes of a file, as they lie there; an OSError says why it cannot be read."""
    try:
        with filesystem.open_input_stream(file, compression=None) as stream:
            return bytes(stream.read())
    except pa.ArrowException as error:
        raise OSError(str(error)) from error


def names(filesystem: pa.fs.FileSystem, folder: str, pattern: str = "*") -> list[str]:
    """What lies in a folder, sorted; nothing where there is none."""
    found = filesystem.get_file_info(pa.fs.FileSelector(folder, allow_not_found=True))
    return sorted(info.base_name for info in found if fnmatch(info.base_name, pattern))


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder.

    Raises:
        UserError: the place cannot be reached.
    """
    filesystem, inside = open_place(path)
    try:
        return bool(filesystem.get_file_info(inside).type != pa.fs.FileType.NotFound)
    except OSError as error:
        raise UserError(f"{path}: cannot be reached: {error}") from error


def join(place: str | Path, *parts: str) -> str:
    """A path below a place; the query of an address (as in s3://bucket?region=...) stays at the end."""
    head, mark, query = _parted(place)
    return "/".join([head.rstrip("/"), *parts]) + mark + query


def _parted(place: str | Path) -> tuple[str, str, str]:
    """An address, the question mark and its query; in a local path a question mark is a letter like others."""
    text = str(place)
    return (text, "", "") if is_local(text) else text.partition("?")


def to_json(values: Any, indent: int | None = 2) -> bytes:
    """As JSON that every reader takes: in ASCII, with null for numbers that are not finite."""
    return json.dumps(_finite(values), indent=indent, default=str).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str, values: Any) -> None:
    """Writes a JSON file, making its folder.

    Raises:
        UserError: the place cannot be written to.
    """
    filesystem, inside = open_place(path)
    try:
        filesystem.create_dir(os.path.dirname(inside), recursive=True)
        replace_file(filesystem, inside, to_json(values))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error}") from error


def read_json(path: str) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    filesystem, inside = open_place(path)
    try:
        return json.loads(read_file(filesystem, inside))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
