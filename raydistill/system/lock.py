"""Folders of runs: each is made for one run, and one process at a time works in it.

The lock is the operating system's, on a file in the folder (flock; on NFS the server's), so it ends with its process,
however that ends: a lock file that was left behind hinders nobody. Where there are no such locks (on Windows, on some
cluster file systems) a line says so, and the work goes on.
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

LOCK = "raydistill.system.lock"

logger = logging.getLogger("raydistill")

_held: set[int] = set()  # file descriptors of this process's locks


@contextmanager
def new_folder(wanted: Path) -> Iterator[Path]:
    """Makes a folder that nobody else has: `wanted`, with a number behind the name where that is taken.

    Afterwards it is taken away again where nothing was put in it, as are those above it that were made here.
    """
    for number in count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        above = make_folder(wanted.parent)
        with suppress(FileExistsError, FileNotFoundError):  # the second: those above were taken away just now
            folder.mkdir()
            break
    try:
        yield folder
    finally:
        take_away([folder, *above])


@contextmanager
def own_folder(folder: Path) -> Iterator[None]:
    """Within it this process alone works in a folder, which is made where it is missing.

    Afterwards the lock file is gone, and so are folders that were made here where nothing else was put in them.

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
        if handle in _held:  # it is not in a child made by fork, which has no lock to give back
            with suppress(OSError):
                (folder / LOCK).unlink()  # before another process can lock it: see _take
            _close(handle)
            take_away(made)


def is_empty(folder: Path) -> bool:
    """Whether nothing lies in a folder but a lock file."""
    return all(path.name == LOCK for path in folder.iterdir())


def _take(folder: Path) -> tuple[int, list[Path]]:
    """The descriptor of the locked file, and the folders that were made for it."""
    made: list[Path] = []
    while True:
        made = make_folder(folder) or made
        with suppress(FileNotFoundError):  # its holder took it away just now, and perhaps the folder too
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)  # closed where another program is begun
            _held.add(handle)
            try:
                _lock(handle, folder)
                if os.path.samestat(os.fstat(handle), os.stat(folder / LOCK)):  # else a lock on a deleted file
                    _sign_or_leave(handle, folder, made)
                    return handle, made
            except BaseException:
                _close(handle)
                raise
            _close(handle)


def _lock(handle: int, folder: Path) -> None:
    """Locks an open file, or raises BlockingIOError where another process has done so.

    Not `lockf`: those locks end as soon as their process opens and closes the file once more.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError) as error:
        logger.warning("%s: no locks here (%s), so begin only one process at a time in it", folder, error)


def _sign_or_leave(handle: int, folder: Path, made: list[Path]) -> None:
    """Signs the lock; where the disk is full takes away what was made, as if nothing had been."""
    try:
        _sign(handle)
    except OSError:
        (folder / LOCK).unlink()
        take_away(made)
        raise


def _sign(handle: int) -> None:
    """Writes into the lock file whose it is, for those who are refused, on other hosts too."""
    os.ftruncate(handle, 0)
    os.write(handle, signature().encode())
    os.fsync(handle)


def signature() -> str:
    """This process, its host and the time, for those who are refused what it holds from now on."""
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {since}"


def _holder(file: Path) -> str:
    """Who works in a folder, by its lock file."""
    for _ in range(20):
        with suppress(OSError):
            if text := file.read_text(errors="replace")[:200]:
                return text
        time.sleep(0.05)  # the file is signed just after it is locked
    return "another process"


def make_folder(folder: Path) -> list[Path]:
    """Makes a folder; returns which ones were missing, the lowest first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def take_away(folders: list[Path]) -> None:
    """Removes folders, the lowest first, up to one in which something lies."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _close(handle: int) -> None:
    _held.remove(handle)
    os.close(handle)


def _leave_to_parent() -> None:
    """In a child made by fork: the parent's locks are not its own, and must not outlive the parent in it."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
