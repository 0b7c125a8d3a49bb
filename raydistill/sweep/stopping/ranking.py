"""The order of results by several objectives: by front, and within a front by how well they spread.

Costs [N, D] are N results in D objectives, each to be small. A result beats another that it is as good as in all
objectives and better than in one. Front 0 holds the results that none beats, front 1 those that only front 0 beats, and
so on (non-dominated sorting). Within a front the order is that of an epsilon-net: first the best in the first
objective, then again and again the one farthest from all before it, so that the first few stand for the whole front
(Clarkson 2006, "Nearest-neighbor searching and metric space dimensions"; for stopping trials Salinas et al. 2021 and
Schmucker et al. 2021, arXiv 2106.12639). Distances are in units of the front's extent in each objective. Equal results,
and those that tie in the order, share the better place.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

Costs = NDArray[np.float64]


def front_numbers(costs: Costs) -> NDArray[np.int64]:
    """Return the number of each result's front: [N] for costs [N, D].

    It takes O(N log N) for up to two objectives; for more, one pass over the results left for each that is placed.
    """
    distinct, where = _distinct(costs)
    return _numbers(distinct)[where]


def _distinct(costs: Costs) -> tuple[Costs, NDArray[np.int64]]:
    """Return the distinct rows, sorted by the first column, then the second ..., and the index in them of each row."""
    order = np.lexsort(costs.T[::-1])
    rows = costs[order]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (rows[1:] != rows[:-1]).any(1)
    where = np.empty(len(rows), dtype=np.int64)
    where[order] = np.cumsum(new) - 1
    return rows[new], where


def _numbers(rows: Costs) -> NDArray[np.int64]:
    """Return the fronts as `front_numbers` does, for distinct rows in lexicographic order.

    Only earlier rows can beat a row.
    """
    numbers = np.empty(len(rows), dtype=np.int64)
    if rows.shape[1] <= 2:
        least: list[float] = []  # The least second cost in each front so far; it grows from front to front.
        for i, second in enumerate(rows[:, 1].tolist() if rows.shape[1] == 2 else [0.0] * len(rows)):
            numbers[i] = number = bisect_right(least, second)
            least[number : number + 1] = [second]
        return numbers
    left, number = np.arange(len(rows)), 0
    while left.size:
        candidates, beaten = left, []
        while candidates.size:  # The first is in the front, and those that it beats are not.
            numbers[candidates[0]] = number
            worse = (rows[candidates] >= rows[candidates[0]]).all(1)
            beaten.append(candidates[worse][1:])
            candidates = candidates[~worse]
        left, number = np.sort(np.concatenate(beaten)), number + 1
    return numbers


class Front:
    """A front in the order of its epsilon-net.

    Args:
        costs: [N, D] of its results, distinct and in lexicographic order.
        repeats: [N], how often each came.
    """

    def __init__(self, costs: Costs, repeats: NDArray[np.int64]) -> None:
        self.costs, self.repeats = costs, repeats
        self.columns = costs.T.tolist() if costs.shape[1] == 2 else None
        self.low, extent = costs.min(0), np.ptp(costs, axis=0)
        self.unit = np.where(extent > 0, extent, 1.0)

    def beats(self, x: Costs) -> bool:
        """Return whether a result of this front beats `x` [D], in O(log N) for two objectives, else O(N)."""
        if self.columns is None:
            return bool(((self.costs <= x).all(1) & (self.costs < x).any(1)).any())
        firsts, seconds = self.columns  # The first costs ascend, the second ones descend.
        last = bisect_right(firsts, x[0]) - 1  # The best in the second objective among those as good in the first.
        return last >= 0 and bool(seconds[last] <= x[1]) and bool(seconds[last] < x[1] or firsts[last] < x[0])

    @cached_property
    def _net(self) -> tuple[Costs, NDArray[np.float64], NDArray[np.int64]]:
        """The results in order, in units; each one's distance to the nearest before it; how many come before it."""
        points = (self.costs - self.low) / self.unit
        order, gaps = (_net_of_two if points.shape[1] == 2 else _net_of_many)(points)
        return points[order], np.array(gaps), np.concatenate([[0], np.cumsum(self.repeats[order])])

    def place(self, x: Costs) -> int:
        """Return how many results of the front come before `x` [D], which none of them beats."""
        points, gaps, before = self._net
        x = (x - self.low) / self.unit
        if x[0] <= points[0, 0]:
            return 0
        reach = np.minimum.accumulate(
            _distances(points, x)
        )  # Distance to the nearest of the first, of the first two, and so on.
        sooner = reach[:-1] >= gaps[1:]  # Whether x is farther from those before than the next one is.
        return int(before[sooner.argmax() + 1 if sooner.any() else -1])


def _net_of_many(points: Costs) -> tuple[list[int], list[float]]:
    """Return the order of the epsilon-net, and each one's distance to the nearest before it, in O(N^2)."""
    order, gaps = [0], [math.inf]
    reach = _distances(points, points[0])
    for _ in range(len(points) - 1):
        order.append(int(reach.argmax()))
        gaps.append(float(reach[order[-1]]))
        reach = np.minimum(reach, _distances(points, points[order[-1]]))
    return order, gaps


def _net_of_two(points: Costs) -> tuple[list[int], list[float]]:
    """Return the same as `_net_of_many` for two objectives, in O(N log N).

    The nearest results on such a front are its neighbours on it, so that each choice splits a gap.
    """
    order, gaps = [0], [math.inf]
    farthest: list[tuple[float, int, int, int]] = []  # Each gap has minus its distance, its result, and its two ends.

    def split(left: int, right: int) -> None:
        """Enter the farthest result between two that are chosen."""
        if right - left > 1:
            inside = points[left + 1 : right]
            reach = np.minimum(_distances(inside, points[left]), _distances(inside, points[right]))
            best = int(reach.argmax())
            heappush(farthest, (-float(reach[best]), left + 1 + best, left, right))

    if len(points) > 1:
        heappush(farthest, (-float(_distances(points[-1:], points[0])[0]), len(points) - 1, 0, len(points) - 1))
    while farthest:
        gap, chosen, left, right = heappop(farthest)
        order.append(chosen)
        gaps.append(-gap)
        split(left, chosen)
        split(chosen, right)
    return order, gaps


def _distances(points: Costs, x: Costs) -> NDArray[np.float64]:
    """Return the Euclidean distance of each of the points [N, D] to `x` [D]."""
    distances: NDArray[np.float64] = np.sqrt(((points - x) ** 2).sum(1))
    return distances


class Ranking:
    """The order of some results, in which others can be placed.

    Args:
        costs: [N, D], finite.
    """

    def __init__(self, costs: Costs) -> None:
        rows, where = _distinct(costs)
        numbers = _numbers(rows)
        order = np.argsort(numbers, kind="stable")
        self._rows, self._repeats = rows[order], np.bincount(where, minlength=len(rows))[order]
        self._cuts = [0, *np.cumsum(np.bincount(numbers)).tolist()]  # The first row of each front.
        self._before = np.concatenate([[0], np.cumsum(self._repeats)])
        self._fronts: dict[int, Front] = {}

    def _front(self, number: int) -> Front:
        """Return a front, ordered when it is first needed."""
        if number not in self._fronts:
            part = slice(self._cuts[number], self._cuts[number + 1])
            self._fronts[number] = Front(self._rows[part], self._repeats[part])
        return self._fronts[number]

    def place(self, x: Costs) -> tuple[int, int]:
        """Return the front of `x` [D], and how many of the results come before it.

        Both are exact for one of the results. Another is placed among them as they are ordered without it: its front is
        exact, its place too unless x beats results of that front, which would leave it, or extends the front.
        """
        fronts = len(self._cuts) - 1  # A result of each earlier front beats x.
        number = bisect_left(range(fronts), True, key=lambda i: not self._front(i).beats(x))
        inside = self._front(number).place(x) if number < fronts else 0
        return number, int(self._before[self._cuts[number]]) + inside


class Rung:
    """The results of trials at one number of iterations, each of which is placed as it comes.

    With up to 64 results, and whenever there are a sixteenth more than at the last time, all are ranked again, and the
    answer is exact. In between, a result is placed among those of the last ranking (`Ranking.place`), as if it had come
    right after it. So ranking takes O(log N) a result, amortised, and placing O(log F log N) in F fronts, for up to two
    objectives, plus one vectorised pass over the front in which the result comes to lie.

    Args:
        reduction: the best 1 / reduction continue.
    """

    EXACT, GROWTH = 64, 1 / 16

    def __init__(self, reduction: float) -> None:
        self.reduction = reduction
        self.costs: dict[str, Sequence[float]] = {}
        self._ranking = Ranking(np.empty((0, 1)))
        self._ranked = 0

    def add(self, trial: str, costs: Sequence[float]) -> bool:
        """Record a trial's result; return whether the trial continues.

        It does if fewer than 1 / reduction of the results (the new one included) come before it, and if it is one of
        the first D in front 0: with few results, that is who is best in one of the objectives. A result that is not
        finite comes after all others.
        """
        self.costs[trial] = costs
        new = len(self.costs) > max(self.EXACT, self._ranked * (1 + self.GROWTH))
        if new or len(self.costs) <= self.EXACT:
            rows = np.array(list(self.costs.values()), dtype=float)
            self._ranking = Ranking(rows[np.isfinite(rows).all(1)])
            self._ranked = len(rows)
            count = self._ranked
        else:
            count = self._ranked + 1
        x = np.array(costs, dtype=float)
        if not np.isfinite(x).all():
            return False
        front, place = self._ranking.place(x)
        return place < count / self.reduction or (front == 0 and place < len(x))
