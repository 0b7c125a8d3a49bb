"""From a sweep's YAML to Optuna's search, and back with what the trials found."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from ray.tune.search.optuna import OptunaSearch

from raydistill.config.distribution import Distribution
from raydistill.config.sweep_config import SweepConfig


class SweepSearch(OptunaSearch):
    """Tells Optuna what a trial's settings are worth.

    With one objective a trial that ended before its budget, stopped by a scheduler, is told as pruned, with its values
    at their iterations. Optuna cannot prune with several: there such a trial counts as complete with what it reported
    last, which are the values of its best set so far; `seconds` are those that the whole budget would take, as a
    trial's settings are not fast because it was stopped. A diverged trial is complete with the worst values.

    Of a population each set is a point of its own, with its own learning rates.

    Args:
        iterations: of a trial that is not stopped.
    """

    def __init__(self, iterations: int, **options: Any) -> None:
        super().__init__(**options)
        self._iterations = iterations
        self._reported: dict[str, int] = {}  # the iterations last told of each trial: it may be set back

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tells Optuna how far a trial is, where there is one objective."""
        step = result["iterations"]
        new = step > self._reported.get(trial_id, -1) and trial_id not in self._completed_trials
        if isinstance(self.metric, str) and new:
            self._reported[trial_id] = step
            values = result | result.get("members", [{}])[0]
            self._ot_trials[trial_id].report(values[self.metric], step)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna of a trial: of the first set at the point that was suggested, of the others where they are."""
        if trial_id in self._completed_trials or not result:
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
            point = {name: member.get(name, value) for name, value in self._ot_trials[trial_id].params.items()}
            inside = all(self._space[name]._contains(value) for name, value in point.items() if name in member)
            if inside and "val_accuracy" in member:
                values = [(whole | member)[metric] for metric in metrics]
                self._ot_study.add_trial(
                    create_trial(
                        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                        params=point,
                        distributions=self._space,
                        values=values,
                        intermediate_values={step: values[0]} if pruned else None,
                    )
                )


def optuna_search(config: SweepConfig) -> OptunaSearch:
    """The sweep's search over its space: TPE, which handles several objectives too; the known good points first."""
    objectives = config.objectives
    single = len(objectives) == 1
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return SweepSearch(
        iterations=config.budget.iterations,
        space={name: distribution(d) for name, d in config.search.items()},
        metric=next(iter(objectives)) if single else list(objectives),
        mode=next(iter(objectives.values())) if single else list(objectives.values()),
        points_to_evaluate=[config.full_point(point) for point in config.known_good],
        # constant_liar keeps concurrent trials apart
        sampler=optuna.samplers.TPESampler(seed=config.seed, constant_liar=True, n_startup_trials=8),
    )


def distribution(range_: Distribution) -> BaseDistribution:
    """One of the YAML's distributions as Optuna's."""
    ends: tuple[Any, ...] = range_.ends
    match range_.kind:
        case "choice":
            return CategoricalDistribution(ends)
        case "int" | "logint":
            return IntDistribution(ends[0], ends[1], log=range_.kind == "logint")
        case _:
            return FloatDistribution(ends[0], ends[1], log=range_.kind == "loguniform")
