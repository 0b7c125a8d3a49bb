"""Optuna's search over a sweep's space, and the results that it learns from."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from ray.tune.search.optuna import OptunaSearch

from raydistill.config.distribution import Distribution
from raydistill.config.sweep_config import SweepConfig
from raydistill.private_api.optuna import asked_trials, contains, space_of, study_of, told_trials


class SweepSearch(OptunaSearch):
    """An OptunaSearch that reports stopped trials, diverged ones and the members of populations to Optuna.

    With one objective, a trial that a scheduler stopped before its budget is reported as pruned, with its values at
    their iterations. Optuna cannot prune with several objectives: there such a trial is complete with its last result,
    which has the values of its best set so far; `seconds` are those that the whole budget would take, because settings
    are not fast only because their trial was stopped. A diverged trial is complete with the worst values.

    Each member of a population is a point of its own, with its own learning rates.

    Args:
        iterations: how many a trial does that is not stopped.
    """

    def __init__(self, iterations: int, **options: Any) -> None:
        super().__init__(**options)
        self._iterations = iterations
        # The highest iteration reported of each trial, which may go back to a checkpoint.
        self._reported: dict[str, int] = {}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an intermediate value of a trial to Optuna, where there is one objective."""
        step = result["iterations"]
        new = step > self._reported.get(trial_id, -1) and trial_id not in told_trials(self)
        if isinstance(self.metric, str) and new:
            self._reported[trial_id] = step
            values = result | result.get("members", [{}])[0]
            asked_trials(self)[trial_id].report(values[self.metric], step)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Report the end of a trial to Optuna; other members of a population are points of their own."""
        if trial_id in told_trials(self) or not result:
            super().on_trial_complete(trial_id, None, error)
            return
        step = result["iterations"]
        pruned = isinstance(self.metric, str) and step < self._iterations and not result.get("diverged")
        first, *others = result.get("members", [{}])
        if pruned:
            self.on_trial_result(trial_id, result)
        whole = result | {"seconds": result.get("seconds", 0.0) * self._iterations / max(step, 1)}
        super().on_trial_complete(trial_id, None if pruned else whole | first, error)
        metrics = [self.metric] if isinstance(self.metric, str) else self.metric
        for member in others:
            point = {name: member.get(name, value) for name, value in asked_trials(self)[trial_id].params.items()}
            inside = all(contains(space_of(self)[name], value) for name, value in point.items() if name in member)
            if inside and "val_accuracy" in member:
                values = [(whole | member)[metric] for metric in metrics]
                study_of(self).add_trial(
                    create_trial(
                        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                        params=point,
                        distributions=space_of(self),
                        values=values,
                        intermediate_values={step: values[0]} if pruned else None,
                    )
                )


def optuna_search(config: SweepConfig) -> OptunaSearch:
    """Return the search of a sweep: its known good points first, then TPE, which can handle several objectives."""
    objectives = config.objectives
    single = len(objectives) == 1
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return SweepSearch(
        iterations=config.budget.iterations,
        space={name: distribution(d) for name, d in config.search.items()},
        metric=next(iter(objectives)) if single else list(objectives),
        mode=next(iter(objectives.values())) if single else list(objectives.values()),
        points_to_evaluate=[config.full_point(point) for point in config.known_good],
        # constant_liar keeps concurrent trials at different points
        sampler=optuna.samplers.TPESampler(seed=config.seed, constant_liar=True, n_startup_trials=8),
    )


def distribution(range_: Distribution) -> BaseDistribution:
    """Return Optuna's distribution for one of a sweep file."""
    ends: tuple[Any, ...] = range_.ends
    match range_.kind:
        case "choice":
            return CategoricalDistribution(ends)
        case "int" | "logint":
            return IntDistribution(ends[0], ends[1], log=range_.kind == "logint")
        case _:
            return FloatDistribution(ends[0], ends[1], log=range_.kind == "loguniform")
