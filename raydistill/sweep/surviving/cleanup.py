"""The removal of what is not needed any more when a sweep has ended."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fnmatch import filter as matching
from typing import Any

import pyarrow as pa
import pyarrow.fs

from raydistill.private_api.tune_trials import STATE_FILES, kept_checkpoints
from raydistill.system.storage import names, open_place

AT_ONCE = 16  # Requests to an object store at a time.


def tidy(folder: str, trials: Iterable[Any], front: Iterable[str]) -> None:
    """Delete older checkpoints of finished trials, an earlier front's artifacts, and Tune's state of earlier drivers.

    While a sweep runs they must stay: Tune's state in the storage may be older, and a resumed trial would need them.

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
            old += [path for path in kept_checkpoints(trial) if path != trial.checkpoint.path]

    def delete(path: str, how: Callable[[str], None] = filesystem.delete_dir) -> None:
        with suppress(OSError):  # It is gone already, or the storage fails, and nothing depends on it.
            how(path)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(delete, old))
    for path in _older_states(filesystem, place):
        delete(path, filesystem.delete_file)


def _older_states(filesystem: pa.fs.FileSystem, place: str) -> list[str]:
    """Return the state files that Tune wrote in earlier drivers; it reads the newest of each kind, by name."""
    there = names(filesystem, place)
    return [f"{place}/{name}" for kind in STATE_FILES for name in matching(there, kind)[:-1]]
