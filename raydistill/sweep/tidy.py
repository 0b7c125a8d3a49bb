"""What is not needed any more when a sweep has ended."""

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.fs

from raydistill.storage import join, names, open_place

STATE = re.compile(r"(experiment_state|search_gen_state|searcher-state|callback-states)-.*\.(json|pkl)$")
AT_ONCE = 16  # requests to an object store


def tidy(folder: str, trials: Iterable[Any], front: Iterable[dict[str, Any]]) -> None:
    """Deletes older checkpoints of finished trials, an earlier front's artifacts, and Tune's tables of earlier drivers.

    Only now: while a sweep runs, Tune's table in the storage may lag behind, and a resumed trial would look for them.

    Args:
        folder: the sweep's folder or address.
        trials: Tune's.
        front: its rows.
    """
    filesystem, place = open_place(join(folder, "front"))
    needed = {os.path.basename(open_place(row["artifact"])[1]) for row in front}
    found = filesystem.get_file_info(pa.fs.FileSelector(place, allow_not_found=True))
    old = [info.path for info in found if info.base_name not in needed]
    for trial in trials:
        if trial.status == "TERMINATED" and trial.checkpoint is not None:
            kept = trial.run_metadata.checkpoint_manager.best_checkpoint_results
            old += [result.checkpoint.path for result in kept if result.checkpoint.path != trial.checkpoint.path]

    def delete(path: str) -> None:
        with suppress(OSError):  # it is gone already, or the store is away: nothing depends on it
            (filesystem.delete_file if STATE.match(os.path.basename(path)) else filesystem.delete_dir)(path)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(delete, old + _older_states(filesystem, os.path.dirname(place))))


def _older_states(filesystem: pa.fs.FileSystem, place: str) -> list[str]:
    """What Tune wrote in earlier drivers; it reads the newest of each kind, by name."""
    newest: dict[str, str] = {}
    older = []
    for name in names(filesystem, place):
        if found := STATE.match(name):
            if found[1] in newest:
                older.append(newest[found[1]])
            newest[found[1]] = f"{place}/{name}"
    return older
