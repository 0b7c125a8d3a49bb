"""What is not needed any more when a sweep has ended."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import filter as matching
from typing import Any

import pyarrow as pa
import pyarrow.fs

from raydistill.sweep.surviving.tune_state import STATE_FILES
from raydistill.system.storage import names, open_place

AT_ONCE = 16  # requests to an object store


def tidy(folder: str, trials: Iterable[Any], front: Iterable[str]) -> None:
    """Deletes older checkpoints of finished trials, an earlier front's artifacts, and Tune's tables of earlier drivers.

    Only now: while a sweep runs, Tune's table in the storage may lag behind, and a resumed trial would look for them.

    Args:
        folder: the sweep's folder or address.
        trials: Tune's.
        front: where the artifacts of its sets lie.
    """
    filesystem, place = open_place(folder)
    needed = {os.path.basename(open_place(artifact)[1]) for artifact in front}
    old = [f"{place}/front/{name}" for name in names(filesystem, f"{place}/front") if name not in needed]
    for trial in trials:
        if trial.status == "TERMINATED" and trial.checkpoint is not None:
            kept = trial.run_metadata.checkpoint_manager.best_checkpoint_results
            old += [result.checkpoint.path for result in kept if result.checkpoint.path != trial.checkpoint.path]

    def delete(path: str, how: Callable[[str], None] = filesystem.delete_dir) -> None:
        with suppress(OSError):  # it is gone already, or the store is away: nothing depends on it
            how(path)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(delete, old))
    for path in _older_states(filesystem, place):
        delete(path, filesystem.delete_file)


def _older_states(filesystem: pa.fs.FileSystem, place: str) -> list[str]:
    """What Tune wrote in earlier drivers; it reads the newest of each kind, by name."""
    there = names(filesystem, place)
    return [f"{place}/{name}" for kind in STATE_FILES for name in matching(there, kind)[:-1]]
