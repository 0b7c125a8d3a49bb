"""Running a sweep: the Tuner, and going on after the driver died."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from raydistill.cluster.connect import ray_running
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_file import SWEEP_FILE
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
    console: Console | None = None,
) -> SweepResult:
    """Runs a sweep to its end on the Ray cluster at hand, or on a local one that ends with it.

    Args:
        config: the sweep.
        resume: go on with the sweep of this name in its storage: finished trials stay, others go on from their
            last checkpoint, the search goes on with what it knew.
        data: the real data, where they are loaded already.
        data_dir: folder of downloaded data sets.
        allow_other_data: with `resume`, go on with other data than the sweep began with; the artifacts tell.
        console: where to show progress; None for nowhere.

    Raises:
        UserError: the settings do not go together, or the storage holds another sweep of this name, or none to resume;
            or another driver has it.
    """
    config = config.model_copy(update={"storage": at_home(config.storage)})
    folder = join(config.storage, config.name)
    check_writable(config.storage)
    with leased(folder, _teller(console)) as lease:
        check_storage(config, folder, resume)
        data = data or load_dataset(adapted(config.trial_config({})), data_dir)
        known = data_known(folder, data, allow_other_data) if resume else identity(data)
        return _driven(config, folder, lease, resume, data, known, console)


def _driven(
    config: SweepConfig,
    folder: str,
    lease: Lease,
    resume: bool,
    data: Dataset,
    known: dict[str, Any],
    console: Console | None,
) -> SweepResult:
    """What `sweep` does while it is the sweep's driver; `known` is by what its data are known again."""
    common = adapted(config.trial_config({}))
    bank = load_bank(common.bank_folder) if common.bank_folder else None
    check_trials(config, data, bank)
    inputs = TrialInputs.of_sweep(config, common, data, bank)
    with ray_running(config.resources, common.workers):
        lease.check()
        if not resume:
            write_json(join(folder, SWEEP_FILE), config.model_dump(mode="json"))
        write_json(join(folder, DATA_FILE), known)
        places = fitted(config, inputs, folder, resume, _teller(console))
        inputs = replace(inputs, gpus=float(places.gpu))
        trainable = trainable_with(places, inputs)
        lease.check()  # that took minutes
        watch = Watch(config, folder, lease)
        with watch.running(), failures_judged(config.budget.failures), tune_state_amended(lease):
            tuner = restored_tuner(folder, trainable) if resume and begun(folder) else fresh_tuner(config, trainable)
            others = [Bookkeeper(folder, lease), *([LiveTable(config.budget.trials)] if console is not None else [])]
            attend(tuner, watch, others)
            try:
                results = tuner.fit()
            finally:
                lease.check()  # its loss is why, whatever Tune says
            index = watch.index
            index.say("testing")
            result = collect(config, folder, index.current_rows(), results, inputs, places, lease.check)
            index.say("testing", result.front)
            finished = (trial for trial in index.trials if trial.trial_id in index.rows.finished)
            tidy(folder, finished, (str(row.artifact) for row in result.front))
        return replace(result, stopped=watch.stop.begun)


def _teller(console: Console | None) -> Callable[[str], None]:
    """What prints a line on the console, if there is one."""
    return partial(say, console) if console is not None else lambda line: None
