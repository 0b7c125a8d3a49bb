"""A sweep from start to end, and its resume after a stop or after its driver died."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ray.tune import Callback
from rich.console import Console

from raydistill.cluster.connect import ray_running
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_file import SWEEP_FILE
from raydistill.config.sweep_sections import Resources
from raydistill.data import Dataset, identity, load_dataset
from raydistill.store.bank import adapted, load_bank
from raydistill.sweep.checks import DATA_FILE, check_storage, check_trials, data_known
from raydistill.sweep.reporting.live_table import LiveTable
from raydistill.sweep.reporting.result import SweepResult, collect
from raydistill.sweep.reporting.watch import Watch
from raydistill.sweep.searching.capacity import fitted
from raydistill.sweep.searching.trial_inputs import TrialInputs
from raydistill.sweep.surviving.cleanup import tidy
from raydistill.sweep.surviving.lease import Lease, leased
from raydistill.sweep.surviving.retries import failures_judged
from raydistill.sweep.surviving.tune_state import Bookkeeper, begun, tune_state_amended
from raydistill.sweep.tuner import attend, fresh_tuner, restored_tuner, trainable_with
from raydistill.system.output import say
from raydistill.system.storage import at_home, join, write_json
from raydistill.system.write_probe import check_writable


def run_sweep(
    config: SweepConfig,
    *,
    resume: bool = False,
    data: Dataset | None = None,
    data_dir: str | Path | None = None,
    allow_other_data: bool = False,
    stop: Callable[[], bool] = lambda: False,
    console: Console | None = None,
) -> SweepResult:
    """Run a sweep to its end on the Ray cluster that is there, or on a local one that ends with it.

    Args:
        config: the sweep.
        resume: continue the sweep of this name in its storage: finished trials stay, others continue from their last
            checkpoint, the search keeps what it learned.
        data: the real data, where they are loaded already.
        data_dir: folder of downloaded data sets.
        allow_other_data: with `resume`, accept other data than the sweep began with; the artifacts say so.
        stop: called many times a second; True ends the sweep early, to resume later (in the main thread alone, where
            Ray Tune listens).
        console: where to show progress; None for nowhere.

    Raises:
        UserError: the settings do not go together, or the storage holds another sweep of this name, or none to resume;
            or another driver has it.
    """
    config = config.model_copy(update={"storage": at_home(config.storage)})
    folder = join(config.storage, config.name)
    say_line: Callable[[str], None] = partial(say, console) if console is not None else lambda line: None
    check_writable(config.storage)
    with leased(folder, say_line) as lease:
        check_storage(config, folder, resume)
        common = adapted(config.trial_config({}))
        data = data or load_dataset(common, data_dir)
        known = data_known(folder, data, allow_other_data) if resume else identity(data)
        bank = load_bank(common.bank_folder) if common.bank_folder else None
        check_trials(config, data, bank)
        inputs = TrialInputs.of_sweep(config, common, data, bank)
        with ray_running(config.resources, common.workers):
            lease.check()
            if not resume:
                write_json(join(folder, SWEEP_FILE), config.model_dump(mode="json"))
            write_json(join(folder, DATA_FILE), known)
            places = fitted(config, inputs, folder, resume, say_line)
            inputs = replace(inputs, gpus=float(places.gpu))
            callbacks = [LiveTable(config.budget.trials)] if console is not None else []
            return _run_trials(config, folder, lease, resume, inputs, places, stop, callbacks)


def _run_trials(
    config: SweepConfig,
    folder: str,
    lease: Lease,
    resume: bool,
    inputs: TrialInputs,
    places: Resources,
    stop: Callable[[], bool],
    callbacks: list[Callback],
) -> SweepResult:
    """Run the trials of a sweep, or those that are left, and test the front.

    Args:
        config: the sweep.
        folder: its folder or address.
        lease: of this driver.
        resume: whether an earlier driver began it.
        inputs: what all trials share.
        places: the resources of a trial.
        stop: as of `run_sweep`.
        callbacks: of Tune, beside those that every sweep has.
    """
    trainable = trainable_with(places, inputs)
    lease.check()  # Measuring may have taken minutes.
    watch = Watch(config, folder, lease, stop)
    index = watch.index
    with watch.running(), failures_judged(config.budget.failures), tune_state_amended(lease):
        tuner = restored_tuner(folder, trainable) if resume and begun(folder) else fresh_tuner(config, trainable)
        attend(tuner, watch, [Bookkeeper(folder, lease), *callbacks])
        try:
            results = tuner.fit()
        finally:
            lease.check()  # A lost lease is the reason for any error that Tune raised.
        index.say("testing")
        result = collect(config, folder, index.current_rows(), results, inputs, places, lease.check)
        index.say("testing", result.front)
        finished = (trial for trial in index.trials if trial.trial_id in index.rows.finished)
        tidy(folder, finished, (str(row.artifact) for row in result.front))
    return replace(result, stopped=watch.stop.begun)
