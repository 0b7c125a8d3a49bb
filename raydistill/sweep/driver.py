"""Running a sweep: the Tuner, and going on after the driver died."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from rich.console import Console

from raydistill.cluster.connect import ray_running
from raydistill.config.distill_config import DistillConfig
from raydistill.config.marks import DecidesFit
from raydistill.config.sections import is_marked
from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_file import SWEEP_FILE, sweep_values
from raydistill.config.sweep_sections import Asha, Resources
from raydistill.data import Dataset, check_same, identity, load_dataset
from raydistill.method.initial_weights import initial_weights
from raydistill.runs.run import matched
from raydistill.store.bank import Bank, adapted, load_bank
from raydistill.sweep.reporting.live_table import LiveTable
from raydistill.sweep.reporting.result import SweepResult, collect
from raydistill.sweep.reporting.watch import Watch
from raydistill.sweep.searching.capacity import fitted
from raydistill.sweep.searching.search_space import optuna_search
from raydistill.sweep.searching.trial import DistillTrial
from raydistill.sweep.searching.trial_inputs import TrialInputs
from raydistill.sweep.stopping.scheduler import ParetoASHA, SchedulerState
from raydistill.sweep.surviving.cleanup import tidy
from raydistill.sweep.surviving.lease import Lease, leased
from raydistill.sweep.surviving.retries import failures_judged
from raydistill.sweep.surviving.tune_state import Bookkeeper, begun, put_back, tune_state_amended
from raydistill.system.errors import UserError
from raydistill.system.output import say
from raydistill.system.storage import at_home, exists, join, open_place, read_json, write_json
from raydistill.system.write_probe import check_writable

DATA_FILE = "data.json"  # in a sweep's folder: by which the real data are known again


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
        known = _data_known(folder, data, allow_other_data) if resume else identity(data)
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
        trainable = _trainable(places, inputs)
        lease.check()  # that took minutes
        watch = Watch(config, folder, lease)
        with watch.running(), failures_judged(config.budget.failures), tune_state_amended(lease):
            tuner = _restored(folder, trainable) if resume and begun(folder) else _fresh(config, trainable)
            others = [Bookkeeper(folder, lease), *([LiveTable(config.budget.trials)] if console is not None else [])]
            _attend(tuner, watch, others)
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


def _data_known(folder: str, data: Dataset, allow_other_data: bool) -> dict[str, Any]:
    """By what the data of a sweep that goes on are known, and whether they are others than before.

    Raises:
        UserError: they are, and may not be.
    """
    place = join(folder, DATA_FILE)
    kept = read_json(place) if exists(place) else {}
    same = check_same(data, kept, folder, allow_other_data)
    return {**identity(data), **({} if same and not kept.get("other_data") else {"other_data": True})}


def check_storage(config: SweepConfig, folder: str, resume: bool) -> None:
    """Raises UserError unless there is nothing to overwrite or, with `resume`, this same sweep to go on with."""
    started = exists(join(folder, "tuner.pkl"))  # Tune's own, written before the first trial
    if not resume:
        if started:
            raise UserError(f"{folder}: holds a sweep already; go on with it (--resume) or choose another --set name=")
        return
    if not started:
        raise UserError(f"{folder}: holds no sweep to resume")
    old, new = (c.model_dump(mode="json") for c in (validated(SweepConfig, sweep_values(folder)), config))
    changed = [key for key in new if key != "storage" and old[key] != new[key]]
    if changed:
        raise UserError(f"{folder}: was begun with another {', '.join(changed)}; resume it with the same sweep file")


def check_trials(config: SweepConfig, data: Dataset, bank: Bank | None) -> None:
    """Raises UserError if a trial that the sweep may choose fits neither the data nor the bank."""
    points: list[dict[str, Any]] = [{}]
    for name in [name for name in config.search if is_marked(DistillConfig, name, DecidesFit)]:
        points = [p | {name: value} for p in points for value in config.search[name].ends]
    for point in points:
        settings = config.trial_config(point)
        network, _ = matched(settings, data, bank)
        initial_weights(settings, network, torch.device("cpu"), bank.networks if bank is not None else None)


def _trainable(places: Resources, inputs: TrialInputs) -> Any:
    """Return the trial class with its resources, and with its inputs, which go once into the object store."""
    bundles = [places.bundle()] * inputs.base.get("workers", 1)  # one for each worker
    return tune.with_resources(tune.with_parameters(DistillTrial, inputs=inputs), tune.PlacementGroupFactory(bundles))


def _fresh(config: SweepConfig, trainable: Any) -> tune.Tuner:
    filesystem, inside = open_place(config.storage)
    concurrent = None if config.budget.concurrent == "auto" else config.budget.concurrent
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=optuna_search(config),
            scheduler=scheduler_of(config),
            num_samples=config.budget.trials,
            max_concurrent_trials=concurrent,
            time_budget_s=config.budget.hours and config.budget.hours * 3600,
            reuse_actors=True,
            trial_dirname_creator=_trial_name,
            trial_name_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=config.name,
            storage_path=inside,
            storage_filesystem=filesystem,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2, checkpoint_at_end=True),  # others when a trial asks
            failure_config=tune.FailureConfig(max_failures=config.budget.failures),
            sync_config=tune.SyncConfig(sync_artifacts=True),  # a trial's TensorBoard log goes to the storage too
            verbose=0,
        ),
    )


def _restored(folder: str, trainable: Any) -> tune.Tuner:
    put_back(folder)
    filesystem, inside = open_place(folder)
    return tune.Tuner.restore(
        inside, trainable, storage_filesystem=filesystem, resume_unfinished=True, resume_errored=True
    )


def _attend(tuner: tune.Tuner, watch: Watch, others: list[tune.Callback]) -> None:
    """Gives a Tuner its callbacks, here and not at its making: it would pickle them, and restore a dead driver's."""
    inside = tuner._local_tuner
    settings = inside._tune_config
    watch.index.search = settings.search_alg
    memory = [SchedulerState(settings.scheduler)] if isinstance(settings.scheduler, ParetoASHA) else []
    inside.get_run_config().callbacks = [watch, *memory, *others]  # their states are kept by their places here


def scheduler_of(config: SweepConfig) -> TrialScheduler:
    """The scheduler that the sweep names."""
    if config.scheduler == "none":
        return FIFOScheduler()
    longest = config.budget.iterations
    if (pareto := config.scheduler.pareto_asha) is not None:
        return ParetoASHA(config.objectives, longest, pareto.grace, pareto.reduction)
    asha = config.scheduler.asha or Asha()
    return ASHAScheduler(
        time_attr="iterations",
        metric="val_accuracy",
        mode="max",
        grace_period=min(asha.grace, longest),
        reduction_factor=asha.reduction,
        max_t=longest,
    )


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.trial_id}"
