"""The lease of a sweep, by which one driver alone runs it: a file in the folder `driver`, renewed every 5 seconds.

The renewals are the driver's sign of life. The files are numbered, and the highest counts. To take a sweep over is to
make the next number, which the storage lets one process alone do. A driver that was suspended meanwhile finds the
higher number, even if the other driver has ended since: the highest is not deleted, only marked as ended.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.fs

from raydistill.sweep.surviving.exclusive import exclusive_maker
from raydistill.sweep.surviving.holder import FOLDER, HEARTBEAT, LEASE, Holder, file_name, newest
from raydistill.system.errors import UserError
from raydistill.system.lock import make_folder, take_away
from raydistill.system.shell import resuming, stopping, typed
from raydistill.system.storage import join, names, open_place, replace_file

POLL = 0.5  # Seconds between two looks while waiting for a lease to expire.


class Lease:
    """A driver's right to write to a sweep's folder.

    Args:
        place: the sweep's folder or address.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.filesystem, self.sweep = open_place(place)
        self.folder = f"{self.sweep}/{FOLDER}"
        self.me = Holder.this_process()
        self.number = 0
        self.lost = ""  # Why the lease is lost; empty while it is not.
        self.idle = now()  # When this process last ran for certain.
        # The begin of the last renewal that succeeded, and the end of the last one.
        self.renewed = self.tried = self.idle
        self._made: list[Path] = []  # Folders that were missing; they are deleted if the sweep never begins.
        self._trying = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    @property
    def held(self) -> bool:
        """Whether the sweep may be written to: no other driver can have it yet."""
        return not self.lost and now() - self.renewed < LEASE

    def check(self) -> None:
        """Check that the sweep is this driver's; where the driver was suspended, the storage is asked first.

        Raises:
            UserError: it is another driver's, or this one was suspended for longer than its lease.
        """
        if now() - self.tried > LEASE:
            self._renew(patience=HEARTBEAT)
        if self.lost:
            raise UserError(f"{self.place}: {self.lost}; this driver ends, and writes nothing more there")

    def take(self, tell: Callable[[str], None]) -> None:
        """Take the lease: at once where nobody has it, else when it has lapsed.

        Args:
            tell: is called with a line that says how long that takes.

        Raises:
            UserError: another driver has it and lives; or the place cannot be written to.
        """
        try:
            self._take(tell)
        except OSError as error:
            raise UserError(f"{self.place}: cannot be written to: {error}") from error
        self._thread.start()

    def _take(self, tell: Callable[[str], None]) -> None:
        """Take the lease, and delete the files of earlier ones; errors of the storage are raised as they are."""
        make, why = exclusive_maker(join(self.place, FOLDER))
        if why:
            tell(f"{self.place}: two sweeps that begin there at the same moment are not kept apart: {why}")
        seen, end = None, 0.0
        while True:
            self.number, holder = newest(self.filesystem, self.folder)
            if holder.token == self.me.token:
                break
            if holder.free or (holder == seen and now() >= end):
                self._make(make)
                continue
            if holder.lives or (seen is not None and holder != seen):
                raise UserError(
                    f"{self.place}: in use by {holder.name}; to take it over, end that driver "
                    f"({typed(stopping(self.place))}, or its process), then {typed(resuming(self.place))}"
                )
            if seen is None:
                seen, end = holder, now() + holder.lapses
                wait = f"resumes in {holder.lapses:.0f} s if that one gives no sign of life"
                tell(f"{self.place}: in use by {holder.name}; {wait}")
            time.sleep(POLL)
        for old in names(self.filesystem, self.folder):
            if old.isdecimal() and int(old) < self.number:
                self.filesystem.delete_file(f"{self.folder}/{old}")

    def _make(self, make: Callable[[str, bytes], bool]) -> None:
        """Try to be the first with the next number."""
        self.me, self.renewed = replace(self.me, beat=time.time()), now()
        self.tried = self.idle = self.renewed
        if isinstance(self.filesystem, pa.fs.LocalFileSystem):
            self._made = make_folder(Path(self.folder)) or self._made
        with suppress(FileNotFoundError):  # A driver that ended just deleted the folder.
            make(file_name(self.number + 1), self.me.to_bytes())

    def _beat(self) -> None:
        """Renew the lease every HEARTBEAT seconds until it is lost or released; the thread runs this."""
        while not self.lost and not self._over.wait(HEARTBEAT):
            self._renew()

    def _renew(self, patience: float = -1) -> None:
        """Renew the lease once; one that lapsed while the storage failed is held again if nobody took it.

        Args:
            patience: seconds to wait for a renewal that another thread has begun; -1 for as long as it takes.
        """
        if not self._trying.acquire(timeout=patience):
            return
        begin = now()
        slept = begin - self.idle
        try:
            number, holder = newest(self.filesystem, self.folder)
            if holder.token == self.me.token and slept > LEASE:
                why = f"its driver was suspended for {slept:.0f} s, longer than its lease of {LEASE:.0f}"
                self.lost = f"{why} (to resume: {typed(resuming(self.place))})"
            elif holder.token == self.me.token:
                self.me = replace(self.me, beat=time.time())
                replace_file(self.filesystem, f"{self.folder}/{file_name(number)}", self.me.to_bytes())
                self.renewed = self.tried = begin  # It is long ago where the process was suspended in between.
            else:
                self.lost = f"was taken over by {holder.name}" if number else "was moved or deleted"
        except OSError:  # The writer of the index warns of it.
            self.tried = now()
        finally:
            self.idle = now()
            self._trying.release()

    def release(self) -> None:
        """Give the lease back; of a sweep that never began no file stays."""
        self._over.set()
        self._thread.join(HEARTBEAT)
        if not self.held:
            return
        file = f"{self.folder}/{file_name(self.number)}"
        with suppress(OSError):
            if names(self.filesystem, self.sweep) != [FOLDER]:
                replace_file(self.filesystem, file, replace(self.me, ended=True).to_bytes())
            elif isinstance(self.filesystem, pa.fs.LocalFileSystem):
                Path(file).unlink()
                take_away(self._made)
            else:
                self.filesystem.delete_dir(self.sweep)


@contextmanager
def leased(place: str, tell: Callable[[str], None] = lambda line: None) -> Iterator[Lease]:
    """Make this process the driver of the sweep in a folder or at an address; errors are those of `Lease.take`."""
    lease = Lease(place)
    lease.take(tell)
    try:
        yield lease
    finally:
        lease.release()


def now() -> float:
    """Return seconds on a clock that also counts while the process or the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()
