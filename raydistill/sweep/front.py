"""Which trials no other trial beats."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def non_dominated(rows: Sequence[dict[str, Any]], objectives: Mapping[str, str]) -> list[dict[str, Any]]:
    """The Pareto front of `rows`: those that no other row is as good as in all objectives and better than in one.

    Of rows that are equal in all objectives the first stays.

    Args:
        rows: a value for each objective in each.
        objectives: name -> "max" or "min".
    """
    signs = np.array([-1.0 if direction == "max" else 1.0 for direction in objectives.values()])
    costs = (
        np.array([[row[name] for name in objectives] for row in rows], dtype=float).reshape(len(rows), len(signs))
        * signs
    )
    front = []
    for index, cost in enumerate(costs):
        dominated = ((costs <= cost).all(1) & (costs < cost).any(1)).any()
        repeated = (costs[:index] == cost).all(1).any()
        if not dominated and not repeated:
            front.append(rows[index])
    return front
