"""From a sweep's YAML to Optuna's search, and back with what the trials found."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search.optuna import OptunaSearch

from raydistill.sweep_config import Distribution, SweepConfig


class PopulationSearch(OptunaSearch):
    """Learns from every set of a trial's population: each is a point of its own, with its own learning rates."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna of a trial: of the first set at the point that was suggested, of the others where they are."""
        first, *others = (result or {}).get("members", [{}])
        known = trial_id in self._completed_trials
        super().on_trial_complete(trial_id, result and result | first, error)
        if known or result is None:
            return
        metrics = [self.metric] if isinstance(self.metric, str) else self.metric
        for member in others:
            point = {name: member.get(name, value) for name, value in self._ot_trials[trial_id].params.items()}
            values = [(result | member).get(metric) for metric in metrics]
            inside = all(self._space[name]._contains(value) for name, value in point.items() if name in member)
            if inside and "val_accuracy" in member:
                study = self._ot_study
                study.add_trial(optuna.trial.create_trial(params=point, distributions=self._space, values=values))


def optuna_search(config: SweepConfig) -> OptunaSearch:
    """The sweep's search over its space: TPE, which handles several objectives too; the known good points first."""
    objectives = config.objectives
    single = len(objectives) == 1
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return PopulationSearch(
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
