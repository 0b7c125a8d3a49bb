"""What Tune knows of a sweep, kept such that the driver may be killed at any moment.

Tune writes its state (trials, search, callbacks) as several files over the old ones, and deletes checkpoints that the
state in storage may still name. A driver killed in between would leave a sweep that cannot go on. So `Bookkeeper` puts
the same files into one, `state.zip`, which is replaced whole; `put_back` unpacks it before a resume; and the first step
after a resume brings the trials' folders in line with it.
"""

import copy
import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ray.air.execution._internal.event_manager import RayEventManager
from ray.tune import Callback
from ray.tune.execution.experiment_state import _ExperimentCheckpointManager
from ray.tune.execution.tune_controller import TuneController

from raydistill.sweep.surviving.lease import Lease
from raydistill.sweep.surviving.repair import mend
from raydistill.system.errors import UserError
from raydistill.system.storage import exists, join, names, open_place, read_file, replace_file

STATE = "state.zip"
STATE_FILES = ("experiment_state-*.json", "search_gen_state-*.json", "searcher-state-*.pkl", "callback-states-*.pkl")
DECISIONS = ("_cached_trial_decisions", "_queued_trial_decisions")  # a restored Tune begins without any
LOOK = 1.0  # seconds between two looks for a new state
AWAY = 120.0  # and after the storage did not take it: the driver waits for each try, which may take half a minute


class Bookkeeper(Callback):
    """Copies Tune's state to `folder`/state.zip whenever it is new, and mends the trials' folders after a resume.

    Ray calls the methods with keywords.

    Args:
        folder: of the sweep; a folder or an address.
        lease: of this driver; while it is not held nothing is copied.
    """

    def __init__(self, folder: str, lease: Lease) -> None:
        self.folder, self.lease = folder, lease
        self.mended = False
        self.copied = 0
        self.due = 0.0  # the next look

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Before Tune decides anything; its files are whole now, as it writes them in this same thread."""
        if not trials:
            return
        staging = Path(trials[0].storage.experiment_driver_staging_path)
        if not self.mended:
            self.mended = True
            mend(self.folder, trials, staging)
        if time.monotonic() >= self.due and self.lease.held:
            kept = self._keep(staging)
            self.due = time.monotonic() + (LOOK if kept else AWAY)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """After Tune's last writing, so that a stopped sweep goes on from its last checkpoints."""
        if trials and self.lease.held:
            self._keep(Path(trials[0].storage.experiment_driver_staging_path))

    def _keep(self, staging: Path) -> bool:
        """Returns whether the storage has the newest state; Tune says why not."""
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
    """Within it Tune writes its state as often as that takes a twentieth of its time, and reads no old decisions in it.

    By itself it writes after every other checkpoint of any trial, so that no checkpoint is gone that the state names,
    and with thousands of trials (25 kB each) is busy with nothing else. `mend` makes that unnecessary.

    And it keeps there that a trial is to end once its last checkpoint is made. Restored from an earlier one, that trial
    would end after its next checkpoint, wherever it is then.

    It forgets where the sweep lay before, so that trials begun after a resume lie where the others are.

    It writes nothing while the lease is not held. Where the driver was suspended, it hears nothing of its trials before
    it is known that the sweep is still its own.
    """
    noted: Any = _ExperimentCheckpointManager.on_trial_checkpoint
    restore: Any = TuneController.__setstate__
    resume: Any = TuneController.resume
    write: Any = _ExperimentCheckpointManager.sync_up_experiment_state
    hear: Any = RayEventManager.resolve_future

    def without_decisions(controller: Any, state: dict[str, Any]) -> None:
        restore(controller, {key: value for key, value in state.items() if key not in DECISIONS})

    def resume_here(controller: Any, *arguments: Any, **options: Any) -> None:
        resume(controller, *arguments, **options)
        forget_old_place(controller)

    def write_own(manager: Any, *arguments: Any, **options: Any) -> None:
        if lease.held:
            write(manager, *arguments, **options)

    def hear_own(manager: Any, future: Any) -> None:
        lease.check()
        hear(manager, future)

    _ExperimentCheckpointManager.on_trial_checkpoint = lambda manager, trial: None
    _ExperimentCheckpointManager.sync_up_experiment_state = write_own
    TuneController.__setstate__ = without_decisions
    TuneController.resume = resume_here
    RayEventManager.resolve_future = hear_own
    try:
        yield
    finally:
        _ExperimentCheckpointManager.on_trial_checkpoint = noted
        _ExperimentCheckpointManager.sync_up_experiment_state = write
        TuneController.__setstate__ = restore
        TuneController.resume = resume
        RayEventManager.resolve_future = hear


def forget_old_place(controller: Any) -> None:
    """Has a restored Tune keep everything in the folder or at the address that it was restored from.

    Itself it moves the trials that it has, but not what new ones are made of, nor by what the trials' logs are sent.
    """
    experiment, here = controller._search_alg._experiment, controller._storage
    experiment.storage = experiment.spec["storage"] = here
    for trial in controller._trials:
        trial.storage.syncer = copy.copy(here.syncer)


def pack(folder: Path) -> bytes:
    """The newest of each of Tune's state files, as a zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for pattern in STATE_FILES:
            newest = max(folder.glob(pattern), default=None)
            if newest is not None:
                archive.write(newest, newest.name)
    return packed.getvalue()


def begun(folder: str) -> bool:
    """Whether a sweep's folder holds a state to go on from.

    Not if the driver ended in its first seconds, before there was one: files that Tune had written by then are of
    different moments, so that the sweep begins anew.
    """
    return exists(join(folder, STATE))


def put_back(folder: str) -> None:
    """Makes Tune's state in storage that of state.zip.

    Tune takes the newest of each of its files by the time in the name, also among those that an earlier driver left on
    this host. So those of state.zip are named after this moment: a driver may have ended before it could copy its
    newest, or have run on a host whose clock was ahead.

    Raises:
        UserError: it is damaged.
    """
    filesystem, inside = open_place(folder)
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")  # as Tune writes it
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
