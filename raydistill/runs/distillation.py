"""One distillation from start to end, as `raydistill distill` runs it."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.config.sweep_sections import Resources
from raydistill.data import Dataset, check_same, load_dataset
from raydistill.runs.run import Run
from raydistill.runs.watcher import Watcher
from raydistill.store.artifact import SUFFIX, Artifact, save
from raydistill.store.bank import Bank, adapted, load_bank
from raydistill.store.checkpoint import load_checkpoint, save_checkpoint
from raydistill.system.device import pick_device, use_threads
from raydistill.system.errors import Diverged, UserError
from raydistill.system.lock import is_empty, own_folder
from raydistill.system.shell import command
from raydistill.system.storage import at_home, open_place, remove_partial

if TYPE_CHECKING:
    from raydistill.method.workers import Workers


SAVE_SECONDS = 20.0  # The time between two checkpoints.


def distill(
    config: DistillConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    data: Dataset | None = None,
    data_dir: str | Path | None = None,
    allow_other_data: bool = False,
    stop: Callable[[], bool] = lambda: False,
    watchers: tuple[Watcher, ...] = (),
) -> Artifact:
    """Run one distillation to its end, or until `stop`, and test its best set.

    Args:
        config: the settings; with `resume` they may be left out.
        out: the folder for the checkpoint and the artifact (`best.distilled`), new or empty. No other process may work
            in it until the end. Without it nothing is written.
        resume: continue from the checkpoint in `out`.
        data: the real data, where they are loaded already.
        data_dir: the folder of downloaded data sets.
        allow_other_data: with `resume`, take other data than the run began with; the artifact says so.
        stop: called after each iteration; True ends the run early, to resume later.
        watchers: what the progress is reported to.

    Returns:
        The artifact of the best set by validation accuracy. Its metrics hold test_accuracy, test_accuracy_std,
        nets, baseline_same_steps, baseline_best_recipe, num_images, iterations, seconds, and stopped=1 where `stop`
        ended it.

    Raises:
        UserError: the settings do not fit the data, there is nothing to resume or the data are others, or the folder
            holds something or is in use.
        Diverged: the loss was not finite before the first validation.
    """
    folder = Path(at_home(out)) if out is not None else None
    if resume and folder is None:
        raise UserError("resume=True: say which run, with out=FOLDER")
    if folder is not None:
        open_place(folder)  # A folder that is no place for an artifact fails now, not at the first checkpoint.
    if resume and folder is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder, so there is no run to resume")
    with own_folder(folder) if folder is not None else nullcontext():
        state = _state(folder, resume) if folder is not None else None
        config = _settings(config, state, folder)
        data = data or load_dataset(config, data_dir)
        if state is not None:
            check_same(data, state.get("data", {}), str(folder), allow_other_data)
        return _to_the_end(config, state, folder, data, stop, watchers)


def _to_the_end(
    config: DistillConfig,
    state: dict[str, Any] | None,
    folder: Path | None,
    data: Dataset,
    stop: Callable[[], bool],
    watchers: tuple[Watcher, ...],
) -> Artifact:
    """Begin a run, or resume one from its state, and test its best set."""
    bank = load_bank(config.bank_folder) if config.bank_folder else None
    with several_workers(config, data, bank) as workers:
        run = Run(config, data, bank, workers)
        if state is not None:
            run.load_state_dict(state)
        for watcher in watchers:
            watcher.on_start(run)
        diverged = _iterate(run, folder, stop, watchers)
    for watcher in watchers:
        watcher.on_test()
    results = run.test()
    if not run.done:
        results["stopped"] = 1
    artifact = run.artifact(results, **({"diverged": diverged} if diverged else {}))
    if folder is not None:
        save(artifact, folder / f"best{SUFFIX}")
    return artifact


def _state(folder: Path, resume: bool) -> dict[str, Any] | None:
    """Read the state of the run in `folder`; for a new run, check that the folder is empty and return None."""
    if resume:
        state = load_checkpoint(folder)
        remove_partial(folder)
        return state
    if not is_empty(folder):
        raise UserError(
            f"{folder}: is not an empty folder; choose another --out, or resume that run: "
            + command("--resume", folder)
        )
    return None


def _settings(config: DistillConfig | None, state: dict[str, Any] | None, folder: Path | None) -> DistillConfig:
    """Return the settings of a new run, or those of the run in `folder` that is resumed from its state."""
    if state is None:
        return adapted(config or DistillConfig())
    kept = validated(DistillConfig, state["config"], f"{folder}: ")
    if config is not None and adapted(config) != kept:
        raise UserError(f"{folder}: its checkpoint was made with other settings; resume it without settings")
    return kept


@contextmanager
def several_workers(config: DistillConfig, data: Dataset, bank: Bank | None) -> "Iterator[Workers | None]":
    """Begin the other workers of a run, on the running Ray cluster or a local one; None where it has only one.

    Each worker gets an equal part of this machine's cores, and a GPU of its own where the run uses GPUs.
    """
    if config.workers == 1:
        yield None
        return
    from raydistill.cluster.connect import ray_running  # Importing Ray takes seconds.
    from raydistill.runs.follower import team

    cores = max(1, len(os.sched_getaffinity(0)) // config.workers)
    gpus = 1 if pick_device(config.device).type == "cuda" else 0
    use_threads(cores)
    with ray_running(Resources(cpu=cores, gpu=gpus), config.workers), team(config, data, bank, cores, gpus) as workers:
        yield workers


def _iterate(run: Run, folder: Path | None, stop: Callable[[], bool], watchers: tuple[Watcher, ...]) -> str | None:
    """Iterate to the end or until `stop`, keeping checkpoints in `folder`; return why the run diverged, if it did."""

    def tick(iteration: int) -> None:
        for watcher in watchers:
            watcher.on_iteration(iteration)

    saved = time.monotonic()
    while not run.done and not stop():
        try:
            metrics = run.advance(stop, tick)
        except Diverged as error:
            if run.best is None:
                raise
            return str(error)
        for watcher in watchers:
            if metrics is not None:
                watcher.on_metrics(run, metrics)
        if folder is not None and time.monotonic() - saved > SAVE_SECONDS:
            keep(run, folder)
            saved = time.monotonic()
    if folder is not None:
        keep(run, folder)
    return None


def keep(run: Run, folder: Path) -> None:
    """Write what a killed process must not lose: the run's state, and its best set so far as an artifact."""
    save_checkpoint(run.state_dict(), folder)
    save(run.artifact(), folder / f"best{SUFFIX}")
