"""From a sweep's YAML to Optuna's search."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search.optuna import OptunaSearch

from raydistill.sweep_config import Distribution, SweepConfig


def optuna_search(config: SweepConfig) -> OptunaSearch:
    """The sweep's search over its space: TPE, which handles several objectives too; the known good points first."""
    objectives = config.objectives
    single = len(objectives) == 1
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return OptunaSearch(
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
