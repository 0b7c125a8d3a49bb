"""The repair of the trials' folders after the driver died, by what Tune knows of the trials."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs

from raydistill.private_api.tune_trials import folder_name, kept_checkpoints
from raydistill.store.artifact import load
from raydistill.store.checkpoint import load_checkpoint
from raydistill.sweep.searching.trial import BEST
from raydistill.system.errors import UserError
from raydistill.system.storage import names, open_place

ABANDONED = "abandoned"


def repair_trials(folder: str, trials: Iterable[Any], staging: Path) -> None:
    """Bring the folders of trials in line with what Tune knows of them.

    Trials that Tune does not know (begun in the last seconds before the driver died; the search suggests them anew) are
    set aside. The checkpoint from which a trial is resumed is replaced by a newer one where it is gone or not whole;
    the checkpoints after it are removed.

    Args:
        folder: of the sweep.
        trials: Tune's trials of this sweep.
        staging: the driver's local folder of files for the storage, which an earlier driver on this host has left.
    """
    filesystem, inside = open_place(folder)
    known = {folder_name(trial): trial for trial in trials}
    for local in staging.glob("trial-*"):
        if local.name not in known:
            shutil.rmtree(local)  # Tune would upload it again
    for name in names(filesystem, inside, "trial-*"):
        if name not in known:
            _move(filesystem, f"{inside}/{name}", f"{inside}/{ABANDONED}/{name}")
        elif not known[name].is_finished():
            kept = sorted(os.path.basename(path) for path in kept_checkpoints(known[name]))
            _repair_trial(filesystem, f"{inside}/{name}", kept)


def _repair_trial(filesystem: pa.fs.FileSystem, folder: str, kept: list[str]) -> None:
    """Repair one trial's folder; `kept` are the names of the checkpoints that Tune expects there, the newest last."""
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
    for name in kept:  # Tune fails where it wants to delete a checkpoint that is not there
        filesystem.create_dir(f"{folder}/{name}")


def _whole(filesystem: pa.fs.FileSystem, checkpoint: str) -> bool:
    """Return whether a trial can be resumed from a checkpoint."""
    with tempfile.TemporaryDirectory() as local:
        try:
            pa.fs.copy_files(checkpoint, local, source_filesystem=filesystem, use_threads=False)
            load_checkpoint(local)
            load(str(Path(local, BEST)))
        except (OSError, UserError):
            return False
    return True


def _move(filesystem: pa.fs.FileSystem, source: str, target: str) -> None:
    """Move a folder."""
    _copy(filesystem, source, target)
    filesystem.delete_dir(source)


def _copy(filesystem: pa.fs.FileSystem, source: str, target: str) -> None:
    """Copy a folder, file by file: object stores cannot rename one."""
    filesystem.create_dir(target, recursive=True)
    pa.fs.copy_files(source, target, source_filesystem=filesystem, destination_filesystem=filesystem, use_threads=False)
