"""A population: several sets in one run, and how their settings differ."""

import random

from raydistill.config.distill_config import DistillConfig


def members(config: DistillConfig) -> list[DistillConfig]:
    """Return the settings of each set of a population.

    The first has those of the config; the others have seeds of their own, and learning rates (inner and outer) up to
    `population.spread` times larger or smaller, log-uniformly. All follow from the config's seed.
    """
    draw = random.Random(f"population/{config.seed}")

    def nearby(rate: float) -> float:
        factor: float = config.population.spread ** draw.uniform(-1, 1)
        return rate * factor

    rates = ("inner_lr", "outer_lr") if config.passes else ("outer_lr",)
    others = [
        {"seed": draw.randrange(2**31)} | {name: nearby(getattr(config, name)) for name in rates}
        for _ in range(config.population.size - 1)
    ]
    return [config.changed({"population.size": 1, **update}) for update in ({}, *others)]
