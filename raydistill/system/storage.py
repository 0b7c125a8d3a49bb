"""Places to keep files: local folders and object stores, under one kind of name."""

import ctypes
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs

from raydistill.system.errors import UserError

NOWHERE = Path("/nonexistent")  # The home folder of users without one, as Debian writes it.
PARTIAL = ".partial-"  # A file or folder that is being written has this and the process's number behind its name.


def open_place(path: str | Path) -> tuple[pa.fs.FileSystem, str]:
    """Return the file system of a folder or an s3:// or gs:// address, and the path within it.

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
    """Replace `~` in a place by the home folder, as the shell does where the place is not quoted.

    Raises:
        UserError: this user has no home folder.
    """
    text = str(place)
    if text.partition("/")[0] == "~" and home() is None:
        raise UserError(f"{text}: this user has no home folder; set HOME, or write the path without ~")
    return os.path.expanduser(text) if is_local(text) else text


def home() -> Path | None:
    """Return the home folder; None for a user without one, as in a container that runs under a user number."""
    try:
        return Path.home() if Path.home() != NOWHERE else None
    except RuntimeError:
        return None


def readable(name: str) -> str:
    """Return the name of a file as text, with bytes that are not UTF-8 written as \\xNN."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def has_password(address: str) -> bool:
    """Return whether an address has a password, as scheme://user:password@...; addresses are shown and stored."""
    host = address.partition("://")[2].partition("/")[0].partition("?")[0]
    return ":" in host.rpartition("@")[0]


def is_local(place: str | Path) -> bool:
    """Return whether a place is a folder rather than an address."""
    return "://" not in str(place)


def split(place: str | Path) -> tuple[str, str]:
    """Return the place above a place, and its name there: the opposite of `join`."""
    head, mark, query = _parted(place)
    above, slash, name = head.rstrip("/").rpartition("/")
    return (above or slash or ".") + mark + query, name


@contextmanager
def whole_file(file: str | Path) -> Iterator[BinaryIO]:
    """Give a stream whose bytes become a local file once all are on the disk; until then an older file stays.

    A process that is killed in the middle leaves the older file, and beside it a part that `remove_partial` finds.

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    partial = f"{file}{PARTIAL}{os.getpid()}"
    try:
        with open(partial, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    except BaseException as error:
        Path(partial).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(file)) from error
        raise


def replace_file(filesystem: pa.fs.FileSystem, file: str, data: bytes) -> None:
    """Write a file such that readers see the old one or the new one, never a part.

    Raises:
        OSError: the file cannot be written.
    """
    if isinstance(filesystem, pa.fs.LocalFileSystem):
        with whole_file(file) as stream:
            stream.write(data)
    else:  # An object appears when it is whole.
        with filesystem.open_output_stream(file) as stream:
            stream.write(data)


@contextmanager
def whole_folder(folder: str) -> Iterator[str]:
    """Make a new local folder that takes the place of another once all is written; until then the old one stays."""
    partial = f"{folder}{PARTIAL}{os.getpid()}"
    old = f"{partial}.old"
    try:
        os.makedirs(partial)
        yield partial
        if not os.path.isdir(folder):
            os.rename(partial, folder)
        elif not _exchanged(partial, folder):
            os.rename(folder, old)
            os.rename(partial, folder)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def _exchanged(one: str, other: str) -> bool:
    """Let two folders take each other's place in one step; return False where the system cannot do so."""
    here, exchange = -100, 2  # AT_FDCWD in Linux's fcntl.h, RENAME_EXCHANGE in its fs.h
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # It is not on macOS, musl or Windows.
        return False
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def remove_partial(folder: Path) -> None:
    """Remove what killed processes left half written in a folder in which no other process works."""
    for path in folder.glob(f"*{PARTIAL}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def read_file(filesystem: pa.fs.FileSystem, file: str) -> bytes:
    """Read the bytes of a file, without unpacking them.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with filesystem.open_input_stream(file, compression=None) as stream:
            return bytes(stream.read())
    except pa.ArrowException as error:
        raise OSError(str(error)) from error


def names(filesystem: pa.fs.FileSystem, folder: str, pattern: str = "*") -> list[str]:
    """Return the names in a folder, sorted; none where there is no folder."""
    found = filesystem.get_file_info(pa.fs.FileSelector(folder, allow_not_found=True))
    return sorted(info.base_name for info in found if fnmatch(info.base_name, pattern))


def exists(path: str | Path) -> bool:
    """Return whether there is a file or folder.

    Raises:
        UserError: the place cannot be reached.
    """
    filesystem, inside = open_place(path)
    try:
        return bool(filesystem.get_file_info(inside).type != pa.fs.FileType.NotFound)
    except OSError as error:
        raise UserError(f"{path}: cannot be reached: {error}") from error


def join(place: str | Path, *parts: str) -> str:
    """Return a path below a place; the query of an address (as in s3://bucket?region=...) stays at the end."""
    head, mark, query = _parted(place)
    return "/".join([head.rstrip("/"), *parts]) + mark + query


def _parted(place: str | Path) -> tuple[str, str, str]:
    """Split an address into itself, its question mark and its query; in a local path a question mark is a letter."""
    text = str(place)
    return (text, "", "") if is_local(text) else text.partition("?")


def to_json(values: Any, indent: int | None = 2) -> bytes:
    """Return JSON that every reader takes: in ASCII, with null for numbers that are not finite."""
    return json.dumps(_finite(values), indent=indent, default=str).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str, values: Any) -> None:
    """Write a JSON file whole or not at all, and make its folder.

    Raises:
        UserError: the place cannot be written to.
    """
    filesystem, inside = open_place(path)
    try:
        filesystem.create_dir(os.path.dirname(inside), recursive=True)
        replace_file(filesystem, inside, to_json(values))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_json(path: str) -> Any:
    """Read the content of a JSON file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    filesystem, inside = open_place(path)
    try:
        return json.loads(read_file(filesystem, inside))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
