"""Folders of runs: each is made for one run, and one process at a time works in it.

The operating system holds the lock, on a file in the folder (by flock; on NFS the server does), so the lock ends with
its process, however that ends: a lock file that was left behind locks nothing. Where there are no such locks (on
Windows, on some cluster file systems) a line says so, and the work continues without.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from raydistill.system.errors import UserError

LOCK = "raydistill.lock"  # A file in the folder that a process works in.

logger = logging.getLogger("raydistill")

_held: set[int] = set()  # The file descriptors of the locks that this process holds.


@contextmanager
def new_folder(wanted: Path) -> Iterator[Path]:
    """Make a folder that no other process has: `wanted`, with a number behind the name where that is taken.

    Afterwards it is removed again where nothing was written to it, as are those above it that were made here.
    """
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        above = make_folder(wanted.parent)
        with suppress(FileExistsError, FileNotFoundError):  # The second where those above were removed just now.
            folder.mkdir()
            break
    try:
        yield folder
    finally:
        take_away([folder, *above])


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Lock a folder, so that only this process works in it; it is made where it is missing.

    Afterwards the lock file is removed, and so are folders that were made here where nothing else was written to them.

    Raises:
        UserError: another process works in it, which the message names; or the folder cannot be made or written to.
    """
    try:
        handle, made = _take(folder)
    except BlockingIOError:
        raise UserError(
            f"{folder}: in use by {_holder(folder / LOCK)}; wait for its end, or stop it; another run needs a folder "
            "of its own"
        ) from None
    except OSError as error:
        raise UserError(f"{folder}: is no folder to work in: {error.strerror or error}") from error
    try:
        yield
    finally:
        if handle in _held:  # It is not in a child made by fork, which has no lock to release.
            with suppress(OSError):
                (folder / LOCK).unlink()  # This is before another process can lock it: see _take.
            _close(handle)
            take_away(made)


def is_empty(folder: Path) -> bool:
    """Return whether a folder contains nothing except a lock file."""
    return all(path.name == LOCK for path in folder.iterdir())


def _take(folder: Path) -> tuple[int, list[Path]]:
    """Lock a folder; return the descriptor of the locked file, and the folders that were made for it."""
    made: list[Path] = []
    while True:
        made = make_folder(folder) or made
        with suppress(FileNotFoundError):  # Its holder removed it just now, and perhaps the folder too.
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)  # Programs that are started do not get it.
            _held.add(handle)
            try:
                _lock(handle, folder)
                if os.path.samestat(os.fstat(handle), os.stat(folder / LOCK)):  # Else the locked file was deleted.
                    _sign_or_leave(handle, folder, made)
                    return handle, made
            except BaseException:
                _close(handle)
                raise
            _close(handle)


def _lock(handle: int, folder: Path) -> None:
    """Lock an open file, or raise BlockingIOError where another process has done so.

    The locks of `lockf` would not do: they end as soon as their process opens and closes the file once more.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError) as error:
        logger.warning("%s: no locks here (%s), so begin only one process at a time in it", folder, error)


def _sign_or_leave(handle: int, folder: Path, made: list[Path]) -> None:
    """Sign the lock; where the disk is full, remove everything that was made for it."""
    try:
        _sign(handle)
    except OSError:
        (folder / LOCK).unlink()
        take_away(made)
        raise


def _sign(handle: int) -> None:
    """Write into the lock file which process holds it, for those that are refused, also on other hosts."""
    os.ftruncate(handle, 0)
    os.write(handle, signature().encode())
    os.fsync(handle)


def signature() -> str:
    """Return text that names this process, its host and the time, for those that are refused what it holds."""
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"


def _holder(file: Path) -> str:
    """Read from its lock file which process works in a folder."""
    for _ in range(20):
        with suppress(OSError):
            if text := file.read_text(errors="replace")[:200]:
                return text
        time.sleep(0.05)  # The file is signed just after it is locked.
    return "another process"


def make_folder(folder: Path) -> list[Path]:
    """Make a folder; return those that were missing, the lowest first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def take_away(folders: list[Path]) -> None:
    """Remove folders, the lowest first, up to one that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _close(handle: int) -> None:
    _held.remove(handle)
    os.close(handle)


def _leave_to_parent() -> None:
    """Close the parent's locks in a child made by fork, so that they do not outlive the parent."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
