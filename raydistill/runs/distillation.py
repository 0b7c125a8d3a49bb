"""One distillation from start to end, as `raydistill distill` runs it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.config.sweep_sections import Resources
from raydistill.data import Dataset, check_same, load_dataset
from raydistill.runs.checkpoint import load_checkpoint, save_checkpoint
from raydistill.runs.run import Metrics, Run
from raydistill.store.artifact import SUFFIX, Artifact, save
from raydistill.store.bank import Bank, adapted, load_bank
from raydistill.system.device import pick_device, use_threads
from raydistill.system.errors import Diverged, UserError
from raydistill.system.lock import is_empty, own_folder
from raydistill.system.shell import command
from raydistill.system.storage import at_home, open_place

if TYPE_CHECKING:
    from raydistill.method.workers import Workers


class Watcher:
    """What `distill` tells while it runs; override what you need."""

    def on_start(self, run: Run) -> None:
        """Before the first iteration of this process."""

    def on_iteration(self, iteration: int) -> None:
        """After each iteration."""

    def on_metrics(self, run: Run, metrics: Metrics) -> None:
        """After each validation."""

    def on_test(self) -> None:
        """Before the final test."""


SAVE_SECONDS = 20.0  # between two checkpoints


def distill(
    config: DistillConfig | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    data: Dataset | None = None,
    data_dir: str | Path | None = None,
    allow_other_data: bool = False,
    watchers: tuple[Watcher, ...] = (),
) -> Artifact:
    """Runs one distillation to its end, or until Ctrl-C or SIGTERM, and tests its best set.

    Args:
        config: the settings; with `resume` they may be left out.
        out: folder for the checkpoint and the artifact (`best.distilled`), new or empty, and until the end this
            process's alone; without it nothing is written.
        resume: go on from the checkpoint in `out`.
        data: the real data, where they are loaded already.
        data_dir: folder of downloaded data sets.
        allow_other_data: with `resume`, go on with other data than the run began with; the artifact tells.
        watchers: are told of the progress.

    Returns:
        the artifact of the best set by validation accuracy. Its metrics hold test_accuracy, test_accuracy_std,
        nets, baseline_random_real, num_images, iterations, seconds, and stopped=1 where it was interrupted.

    Raises:
        UserError: the settings do not fit the data, there is nothing to resume or the data are others, or the folder
            holds something or is in use.
        Diverged: the loss was not finite before the first validation.
    """
    folder = Path(at_home(out)) if out is not None else None
    if resume and folder is None:
        raise UserError("resume=True: say which run, with out=FOLDER")
    if folder is not None:
        open_place(folder)  # or say now, rather than at the first checkpoint, why it is no place for an artifact
    if resume and folder is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder, so there is no run to resume")
    with own_folder(folder) if folder is not None else nullcontext():
        state = _state(folder, resume) if folder is not None else None
        config = _settings(config, state, folder)
        data = data or load_dataset(config, data_dir)
        if state is not None:
            check_same(data, state.get("data", {}), str(folder), allow_other_data)
        return _to_the_end(config, state, folder, data, watchers)


def _to_the_end(
    config: DistillConfig,
    state: dict[str, Any] | None,
    folder: Path | None,
    data: Dataset,
    watchers: tuple[Watcher, ...],
) -> Artifact:
    """Begins a run, or goes on from its state, and tests what it came to."""
    bank = load_bank(config.bank_folder) if config.bank_folder else None
    with several_workers(config, data, bank) as workers:
        run = Run(config, data, bank, workers)
        if state is not None:
            run.load_state_dict(state)
        for watcher in watchers:
            watcher.on_start(run)
        diverged = _iterate(run, folder, watchers)
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
    """The state that the run in `folder` left; None for a new run, which nothing may lie in the way of."""
    if resume:
        return load_checkpoint(folder)
    if not is_empty(folder):
        raise UserError(
            f"{folder}: is not an empty folder; choose another --out, or go on with that run: "
            + command("--resume", folder)
        )
    return None


def _settings(config: DistillConfig | None, state: dict[str, Any] | None, folder: Path | None) -> DistillConfig:
    """The settings of a new run, or those of the run in `folder` that left its state."""
    if state is None:
        return adapted(config or DistillConfig())
    kept = validated(DistillConfig, state["config"], f"{folder}: ")
    if config is not None and adapted(config) != kept:
        raise UserError(f"{folder}: its checkpoint was made with other settings; resume it without settings")
    return kept


@contextmanager
def several_workers(config: DistillConfig, data: Dataset, bank: Bank | None) -> "Iterator[Workers | None]":
    """The others of `config.workers`, on the Ray cluster at hand or a local one; None where there are none.

    On this machine the cores are shared out among them; on a GPU each has one of its own.
    """
    if config.workers == 1:
        yield None
        return
    from raydistill.cluster.connect import ray_running  # Ray takes seconds, which one worker does without
    from raydistill.runs.worker_group import team

    cores = max(1, len(os.sched_getaffinity(0)) // config.workers)
    gpus = 1 if pick_device(config.device).type == "cuda" else 0
    use_threads(cores)
    with ray_running(Resources(cpu=cores, gpu=gpus), config.workers), team(config, data, bank, cores, gpus) as workers:
        yield workers


def _iterate(run: Run, folder: Path | None, watchers: tuple[Watcher, ...]) -> str | None:
    """Iterates to the end or until a signal, keeping checkpoints in `folder`; returns why it diverged, if it did."""

    def tick(iteration: int) -> None:
        for watcher in watchers:
            watcher.on_iteration(iteration)

    saved = time.monotonic()
    with stop_on_signals() as stop:
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
    """Writes what a killed process must not lose: the run's state, and its best set so far as an artifact."""
    save_checkpoint(run, folder)
    save(run.artifact(), folder / f"best{SUFFIX}")


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Within it, the first Ctrl-C or SIGTERM only makes the given function return True; a second one interrupts.

    So that an iteration is never left half done. In other threads than the main one signals are not touched.
    """
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
