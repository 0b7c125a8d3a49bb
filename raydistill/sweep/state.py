"""What Tune knows of a sweep, kept such that the driver may be killed at any moment.

Tune writes its state (trials, search, callbacks) as several files over the old ones, and deletes checkpoints that the
state in storage may still name. A driver killed in between would leave a sweep that cannot go on. So `Bookkeeper` puts
the same files into one, `state.zip`, which is replaced whole; `put_back` unpacks it before a resume; and the first step
after a resume brings the trials' folders in line with it.
"""

import io
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs
from ray.tune import Callback
from ray.tune.execution.experiment_state import _ExperimentCheckpointManager

from raydistill.artifact import load
from raydistill.errors import UserError
from raydistill.run import load_checkpoint
from raydistill.storage import exists, join, open_place, read_file, replace_file
from raydistill.sweep.trainable import BEST

STATE = "state.zip"
STATE_FILES = ("experiment_state-*.json", "search_gen_state-*.json", "searcher-state-*.pkl", "callback-states-*.pkl")
ABANDONED = "abandoned"
LOOK = 1.0  # seconds between two looks for a new state
AWAY = 120.0  # and after the storage did not take it: the driver waits for each try, which may take half a minute


class Bookkeeper(Callback):
    """Copies Tune's state to `folder`/state.zip whenever it is new, and mends the trials' folders after a resume.

    Ray calls the methods with keywords.

    Args:
        folder: of the sweep; a folder or an address.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
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
        if time.monotonic() >= self.due:
            kept = self._keep(staging)
            self.due = time.monotonic() + (LOOK if kept else AWAY)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """After Tune's last writing, so that a stopped sweep goes on from its last checkpoints."""
        if trials:
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
def written_now_and_then() -> Iterator[None]:
    """Within it Tune writes its state as often as that takes a twentieth of its time, and no oftener.

    By itself it does so after every other checkpoint of any trial, so that no checkpoint is gone that the state names,
    and with thousands of trials (25 kB each) is busy with nothing else. `mend` makes that unnecessary.
    """
    noted: Any = _ExperimentCheckpointManager.on_trial_checkpoint
    _ExperimentCheckpointManager.on_trial_checkpoint = lambda manager, trial: None
    try:
        yield
    finally:
        _ExperimentCheckpointManager.on_trial_checkpoint = noted


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

    Raises:
        UserError: it is damaged.
    """
    filesystem, inside = open_place(folder)
    try:
        with zipfile.ZipFile(io.BytesIO(read_file(filesystem, f"{inside}/{STATE}"))) as archive:
            files = {name: archive.read(name) for name in archive.namelist() if _is_state(name)}
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{join(folder, STATE)}: cannot be read: {error}") from error
    for name, data in files.items():
        replace_file(filesystem, f"{inside}/{name}", data)
    for name in _names(filesystem, inside):
        if _is_state(name) and name not in files:
            filesystem.delete_file(f"{inside}/{name}")


def _is_state(name: str) -> bool:
    return "/" not in name and any(fnmatch(name, pattern) for pattern in STATE_FILES)


def mend(folder: str, trials: Iterable[Any], staging: Path) -> None:
    """Brings the folders of trials in line with what Tune knows of them.

    Trials that it does not know (begun in the last seconds before the driver died; the search suggests them anew) are
    set aside. The checkpoint from which a trial goes on is replaced by a newer one where it is gone or not whole, and
    those after it are removed.

    Args:
        folder: of the sweep.
        trials: Tune's, of this sweep.
        staging: the driver's own folder of files for the storage, which an earlier driver on this host has left.
    """
    filesystem, inside = open_place(folder)
    known = {Path(trial.storage.trial_fs_path).name: trial for trial in trials}
    for local in staging.glob("trial-*"):
        if local.name not in known:
            shutil.rmtree(local)  # else it would be uploaded again
    for name in _names(filesystem, inside, "trial-*"):
        if name not in known:
            _move(filesystem, f"{inside}/{name}", f"{inside}/{ABANDONED}/{name}")
        elif not known[name].is_finished():
            kept = known[name].run_metadata.checkpoint_manager.best_checkpoint_results
            _mend_trial(filesystem, f"{inside}/{name}", sorted(Path(each.checkpoint.path).name for each in kept))


def _mend_trial(filesystem: pa.fs.FileSystem, folder: str, kept: list[str]) -> None:
    """Of one trial; `kept` are the names of the checkpoints that Tune thinks are there, the last one the newest."""
    there = _names(filesystem, folder, "checkpoint_*")
    latest = kept[-1] if kept else None
    if latest is not None and not _whole(filesystem, f"{folder}/{latest}"):
        for name in reversed(there):
            if name != latest and _whole(filesystem, f"{folder}/{name}"):
                _copy(filesystem, f"{folder}/{name}", f"{folder}/{latest}")
                break
    for name in there:
        if latest is None or name > latest:
            filesystem.delete_dir(f"{folder}/{name}")
    for name in kept:  # Tune stumbles over one that it wants to delete and that is not there
        filesystem.create_dir(f"{folder}/{name}")


def _whole(filesystem: pa.fs.FileSystem, checkpoint: str) -> bool:
    """Whether a trial can go on from a checkpoint."""
    with tempfile.TemporaryDirectory() as local:
        try:
            pa.fs.copy_files(checkpoint, local, source_filesystem=filesystem, use_threads=False)
            load_checkpoint(local)
            load(str(Path(local, BEST)))
        except (OSError, UserError):
            return False
    return True


def _move(filesystem: pa.fs.FileSystem, source: str, target: str) -> None:
    _copy(filesystem, source, target)
    filesystem.delete_dir(source)


def _copy(filesystem: pa.fs.FileSystem, source: str, target: str) -> None:
    """Not a rename: object stores have none for folders."""
    filesystem.create_dir(target, recursive=True)
    pa.fs.copy_files(source, target, source_filesystem=filesystem, destination_filesystem=filesystem, use_threads=False)


def _names(filesystem: pa.fs.FileSystem, folder: str, pattern: str = "*") -> list[str]:
    found = filesystem.get_file_info(pa.fs.FileSelector(folder, allow_not_found=True))
    return sorted(info.base_name for info in found if fnmatch(info.base_name, pattern))
