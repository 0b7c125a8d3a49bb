"""Tune's objects for a sweep: the trainable, a new or restored Tuner, its scheduler and callbacks."""

from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from raydistill.config.sweep_config import SweepConfig
from raydistill.config.sweep_sections import Asha, Resources
from raydistill.private_api.tune import set_callbacks, tune_config
from raydistill.sweep.reporting.watch import Watch
from raydistill.sweep.searching.search_space import optuna_search
from raydistill.sweep.searching.trial import DistillTrial
from raydistill.sweep.searching.trial_inputs import TrialInputs
from raydistill.sweep.stopping.scheduler import ParetoASHA, SchedulerState
from raydistill.sweep.surviving.tune_state import put_back
from raydistill.system.storage import open_place


def trainable_with(places: Resources, inputs: TrialInputs) -> Any:
    """Return the trial class with its resources, and with its inputs, which go once into the object store."""
    bundles = [places.bundle()] * inputs.base.get("workers", 1)  # There is one for each worker.
    return tune.with_resources(tune.with_parameters(DistillTrial, inputs=inputs), tune.PlacementGroupFactory(bundles))


def fresh_tuner(config: SweepConfig, trainable: Any) -> tune.Tuner:
    """Return the Tuner of a new sweep."""
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
            # Trials ask for other checkpoints themselves.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2, checkpoint_at_end=True),
            failure_config=tune.FailureConfig(max_failures=config.budget.failures),
            sync_config=tune.SyncConfig(sync_artifacts=True),  # It uploads the trials' TensorBoard logs.
            verbose=0,
        ),
    )


def restored_tuner(folder: str, trainable: Any) -> tune.Tuner:
    """Return the Tuner of the sweep in a folder or at an address, which resumes all trials that have not finished."""
    put_back(folder)
    filesystem, inside = open_place(folder)
    return tune.Tuner.restore(
        inside, trainable, storage_filesystem=filesystem, resume_unfinished=True, resume_errored=True
    )


def attend(tuner: tune.Tuner, watch: Watch, others: list[tune.Callback]) -> None:
    """Give a Tuner its callbacks, and the watch the Tuner's search.

    A Tuner that is made with callbacks pickles them, and a restored one would have those of a driver that is dead.
    """
    settings = tune_config(tuner)
    watch.index.search = settings.search_alg
    memory = [SchedulerState(settings.scheduler)] if isinstance(settings.scheduler, ParetoASHA) else []
    set_callbacks(tuner, [watch, *memory, *others])  # Tune saves their states by their order.


def scheduler_of(config: SweepConfig) -> TrialScheduler:
    """Return the scheduler that the sweep names."""
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
