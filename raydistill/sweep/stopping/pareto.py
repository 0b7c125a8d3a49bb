"""The Pareto front of a sweep's trials: those that no other trial beats."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raydistill.sweep.stopping.ranking import Costs, front_numbers
from raydistill.sweep.trial_row import TrialRow


def costs_of(values: Sequence[Mapping[str, Any]], objectives: Mapping[str, str]) -> Costs:
    """Return the objectives of each trial as costs, which are to be small: [trials, objectives].

    Args:
        values: for each trial a value of each objective.
        objectives: name -> "max" or "min".
    """
    signs = [-1.0 if direction == "max" else 1.0 for direction in objectives.values()]
    numbers = [[each[name] for name in objectives] for each in values]
    return np.array(numbers, dtype=float).reshape(len(values), len(signs)) * signs


def non_dominated(rows: Sequence[TrialRow], objectives: Mapping[str, str]) -> list[TrialRow]:
    """Return the Pareto front of `rows`, the smallest set first.

    A row is in the front if no other row is as good in all objectives and better in one. Of rows that are equal in all
    objectives the first one stays. Rows that lack an objective, as before the first validation, are left out.

    Args:
        rows: the trials.
        objectives: name -> "max" or "min".
    """
    rows = [row for row in rows if all(getattr(row, name) is not None for name in objectives)]
    costs = costs_of([vars(row) for row in rows], objectives)
    front = front_numbers(costs) == 0
    _, first = np.unique(costs, axis=0, return_index=True)
    return sorted((rows[i] for i in sorted(first) if front[i]), key=lambda row: row.num_images or 0)
