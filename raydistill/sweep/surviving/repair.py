"""After the driver died: the trials' folders are brought in line with what Tune knows of the trials."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs

from raydistill.runs.checkpoint import load_checkpoint
from raydistill.store.artifact import load
from raydistill.sweep.searching.trial import BEST
from raydistill.system.errors import UserError
from raydistill.system.storage import names, open_place

ABANDONED = "abandoned"


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
    for name in names(filesystem, inside, "trial-*"):
        if name not in known:
            _move(filesystem, f"{inside}/{name}", f"{inside}/{ABANDONED}/{name}")
        elif not known[name].is_finished():
            kept = known[name].run_metadata.checkpoint_manager.best_checkpoint_results
            _mend_trial(filesystem, f"{inside}/{name}", sorted(Path(each.checkpoint.path).name for each in kept))


def _mend_trial(filesystem: pa.fs.FileSystem, folder: str, kept: list[str]) -> None:
    """Of one trial; `kept` are the names of the checkpoints that Tune thinks are there, the last one the newest."""
    there = names(filesystem, folder, "checkpoint_*")
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
