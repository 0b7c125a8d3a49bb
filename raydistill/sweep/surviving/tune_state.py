"""Tune's state of a sweep, kept such that the driver may be killed at any moment.

Tune writes its state (trials, search, callbacks) as several files over the old ones, and deletes checkpoints that the
state in the storage may still name. A driver killed in between would leave a sweep that cannot be resumed. So
`Bookkeeper` puts the same files into one, `state.zip`, which is replaced whole; `put_back` unpacks it before a resume;
and the first step after a resume repairs the trials' folders (`raydistill.sweep.surviving.repair`).
"""

import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ray.tune import Callback

from raydistill.private_api.tune import (
    before_each_result,
    restored_in_place,
    restored_without_decisions,
    state_written_by_time_alone,
)
from raydistill.private_api.tune_trials import MOMENT, STATE_FILES, staging_folder
from raydistill.sweep.surviving.lease import Lease
from raydistill.sweep.surviving.repair import repair_trials
from raydistill.system.errors import UserError
from raydistill.system.storage import exists, join, names, open_place, read_file, replace_file

STATE = "state.zip"
LOOK = 1.0  # Seconds between two looks for a new state.
AWAY = 120.0  # Seconds until the next try after a failure of the storage; the driver waits for each try.


class Bookkeeper(Callback):
    """A callback that copies Tune's state to `folder`/state.zip whenever it is new, and repairs a resumed sweep.

    Ray calls the methods with keywords.

    Args:
        folder: of the sweep; a folder or an address.
        lease: of this driver; while it is not held nothing is copied.
    """

    def __init__(self, folder: str, lease: Lease) -> None:
        self.folder, self.lease = folder, lease
        self.repaired = False
        self.copied = 0  # The time of the state that was copied last, in nanoseconds since 1970.
        self.due = 0.0  # When to look for a new state.

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Copy the state before Tune decides anything: its files are whole now, as the same thread writes them."""
        if not trials:
            return
        staging = staging_folder(trials[0])
        if not self.repaired:
            self.repaired = True
            repair_trials(self.folder, trials, staging)
        if time.monotonic() >= self.due and self.lease.held:
            kept = self._keep(staging)
            self.due = time.monotonic() + (LOOK if kept else AWAY)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Copy what Tune wrote last, so that a stopped sweep is resumed from its last checkpoints."""
        if trials and self.lease.held:
            self._keep(staging_folder(trials[0]))

    def _keep(self, staging: Path) -> bool:
        """Copy the newest state; return whether the storage has it. Where it fails Tune reports the reason."""
        newest = max(staging.glob(STATE_FILES[0]), default=None)
        written = newest.stat().st_mtime_ns if newest is not None else 0
        if written != self.copied:
            filesystem, inside = open_place(join(self.folder, STATE))
            try:
                replace_file(filesystem, inside, pack(staging))
            except OSError:
                return False
            self.copied = written
        return True


@contextmanager
def tune_state_amended(lease: Lease) -> Iterator[None]:
    """Change within this context how Tune writes its state and how it is restored, for a sweep that may be killed.

    Tune writes its state as often as that takes a twentieth of its time, not after checkpoints. So the state in the
    storage may name checkpoints that are gone; `repair_trials` replaces them. While the lease is not held nothing is
    written.

    A restored Tune ends no trial by a decision of an earlier driver, and keeps all trials where the sweep is now.

    Where the driver was suspended, Tune takes no result before it is known that the sweep is still this driver's.
    """
    with (
        state_written_by_time_alone(lambda: lease.held),
        restored_without_decisions(),
        restored_in_place(),
        before_each_result(lease.check),
    ):
        yield


def pack(folder: Path) -> bytes:
    """Return the newest of each of Tune's state files, as a zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for pattern in STATE_FILES:
            newest = max(folder.glob(pattern), default=None)
            if newest is not None:
                archive.write(newest, newest.name)
    return packed.getvalue()


def begun(folder: str) -> bool:
    """Return whether a sweep's folder holds a state from which it can be resumed.

    It holds none if the driver ended in its first seconds. The files that Tune had written by then are of different
    moments, so that the sweep begins anew.
    """
    return exists(join(folder, STATE))


def put_back(folder: str) -> None:
    """Replace Tune's state in the storage by that of state.zip.

    Tune takes the newest of each of its files by the time in the name, also among those that an earlier driver left on
    this host. So those of state.zip are named after this moment: a driver may have ended before it could copy its
    newest, or have run on a host whose clock was ahead.

    Raises:
        UserError: state.zip is damaged.
    """
    filesystem, inside = open_place(folder)
    now = datetime.now().strftime(MOMENT)
    try:
        with zipfile.ZipFile(io.BytesIO(read_file(filesystem, f"{inside}/{STATE}"))) as archive:
            files = {
                kind.replace("*", now): archive.read(name)
                for name in archive.namelist()
                for kind in STATE_FILES
                if fnmatch(name, kind)
            }
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{join(folder, STATE)}: cannot be read: {error}") from error
    for name, data in files.items():
        replace_file(filesystem, f"{inside}/{name}", data)
    for name in names(filesystem, inside):
        if name not in files and any(fnmatch(name, kind) for kind in STATE_FILES):
            filesystem.delete_file(f"{inside}/{name}")
