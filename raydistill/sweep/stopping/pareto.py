"""Which trials no other trial beats."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raydistill.sweep.stopping.ranking import Costs, front_numbers


def costs_of(rows: Sequence[Mapping[str, Any]], objectives: Mapping[str, str]) -> Costs:
    """The objectives of each row as costs, which are to be small: [rows, objectives].

    Args:
        rows: a value for each objective in each.
        objectives: name -> "max" or "min".
    """
    signs = [-1.0 if direction == "max" else 1.0 for direction in objectives.values()]
    values = [[row[name] for name in objectives] for row in rows]
    return np.array(values, dtype=float).reshape(len(rows), len(signs)) * signs


def non_dominated(rows: Sequence[dict[str, Any]], objectives: Mapping[str, str]) -> list[dict[str, Any]]:
    """The Pareto front of `rows`: those that no other row is as good as in all objectives and better than in one.

    Of rows that are equal in all objectives the first stays.

    Args:
        rows: a value for each objective in each.
        objectives: name -> "max" or "min".
    """
    costs = costs_of(rows, objectives)
    front = front_numbers(costs) == 0
    _, first = np.unique(costs, axis=0, return_index=True)
    return [rows[i] for i in sorted(first) if front[i]]
