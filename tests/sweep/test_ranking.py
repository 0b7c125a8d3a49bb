"""The order of results in several objectives, against its definition."""

import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.study._multi_objective import _fast_non_domination_rank
from ray.tune.schedulers import ASHAScheduler

from raydistill.sweep.stopping.ranking import Ranking, Rung, front_numbers


def beats(x, y):
    return bool((x <= y).all() and (x < y).any())


def defined_fronts(costs):
    """Front after front, as the definition says."""
    beaten_by = [[j for j, y in enumerate(costs) if beats(y, x)] for x in costs]
    numbers, left, number = [0] * len(costs), set(range(len(costs))), 0
    while left:
        front = {i for i in left if left.isdisjoint(beaten_by[i])}
        for i in front:
            numbers[i] = number
        left, number = left - front, number + 1
    return numbers


def defined_place(costs, at):
    """How many results come before number `at`, when it wins all ties: fronts, then farthest from those before."""
    numbers = np.array(defined_fronts(costs))
    rows = np.unique(costs[numbers == numbers[at]], axis=0)
    extent = np.where(np.ptp(rows, 0) > 0, np.ptp(rows, 0), 1)
    points = (rows - rows.min(0)) / extent
    mine = int((rows == costs[at]).all(1).argmax())
    before, far = int((numbers < numbers[at]).sum()), 9 - points[:, 0]  # at first all are as far as they are good
    while far[mine] < far.max():
        chosen = int(far.argmax())
        before += int((costs == rows[chosen]).all(1).sum())  # with all its equals
        far = np.minimum(far if far.max() <= 5 else 5, np.sqrt(((points - points[chosen]) ** 2).sum(1)))
    return before


CASES = [(d, kind, seed) for d in (1, 2, 3) for kind in ("distinct", "grid", "front") for seed in range(2)]


def made(d, kind, seed, n=30):
    rng = np.random.default_rng(seed)
    if kind == "grid":  # many equal values and equal results
        return rng.integers(0, 5, (n, d)).astype(float) * np.array([1 / 1024, 1024, 1])[:d]
    costs = rng.random((n, d))
    return costs / costs.sum(1, keepdims=True) if kind == "front" and d > 1 else costs


@pytest.mark.parametrize(("d", "kind", "seed"), CASES)
def test_fronts_against_the_definition_and_optuna(d, kind, seed):
    costs = made(d, kind, seed)
    assert front_numbers(costs).tolist() == defined_fronts(costs)
    assert front_numbers(costs).tolist() == _fast_non_domination_rank(costs).tolist()


@pytest.mark.parametrize(("d", "kind", "seed"), CASES)
def test_places_against_the_definition(d, kind, seed):
    costs = made(d, kind, seed)
    ranking = Ranking(costs)
    for at, x in enumerate(costs):
        assert ranking.place(x)[0] == defined_fronts(costs)[at]
        assert ranking.place(x)[1] == defined_place(costs, at), at


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_result_placed_later_has_its_front_and_mostly_its_place(d):
    rng = np.random.default_rng(1)
    off = []
    for _ in range(25):
        costs = rng.random((31, d))
        front, place = Ranking(costs[:-1]).place(costs[-1])
        assert front == defined_fronts(costs)[-1]
        off.append(abs(place - defined_place(costs, 30)))
    assert np.mean(np.array(off) == 0) >= 0.7
    assert max(off) <= 12  # within the front


def test_the_order_within_a_front_does_not_depend_on_scale_and_spreads():
    costs = np.stack([-np.linspace(0.5, 1.0, 9), np.linspace(16, 512, 9)], 1)  # the more images the more accurate
    places = [Ranking(costs).place(x)[1] for x in costs]
    assert places == [Ranking(costs * [1024, 1 / 1024]).place(x)[1] for x in costs * [1024, 1 / 1024]]
    assert sorted(range(9), key=places.__getitem__)[:5] == [8, 0, 4, 2, 6]  # most accurate, smallest, the middle ...


def decisions(rows, reduction=3):
    rung = Rung(reduction)
    return [rung.add(str(i), row) for i, row in enumerate(rows)]


def test_a_small_rung_decides_by_the_definition():
    for d in (1, 2, 3):
        costs = np.random.default_rng(d).integers(0, 8, (24, d)).astype(float)
        for n, decision in enumerate(decisions(costs.tolist()), 1):
            place, front = defined_place(costs[:n], n - 1), defined_fronts(costs[:n])[-1]
            assert decision == (place < n / 3 or (front == 0 and place < d)), n


def asha_decisions(values, reduction):
    asha = ASHAScheduler(time_attr="t", metric="v", mode="max", max_t=100, grace_period=1, reduction_factor=reduction)
    trials = [SimpleNamespace(trial_id=str(i)) for i in range(len(values))]
    for trial in trials:
        asha.on_trial_add(None, trial)
    return [
        asha.on_trial_result(None, trial, {"t": 1, "v": v}) == "CONTINUE"
        for trial, v in zip(trials, values, strict=True)
    ]


@pytest.mark.parametrize("reduction", [2, 3, 4])
def test_with_one_objective_it_is_asha(reduction):
    """Ray's cut lies between two results, by interpolation; only one between these two may be judged otherwise."""
    values = np.random.default_rng(0).random(60)
    ours = decisions([[-v] for v in values], reduction)
    for n, (mine, theirs) in enumerate(zip(ours, asha_decisions(values, reduction), strict=True)):
        better = int((values[:n] > values[n]).sum())
        cut = (n - 1) / reduction
        if not math.floor(cut) < better <= math.ceil(cut):
            assert mine == theirs, n
    assert asha_decisions([0.5] * 9, 3) == decisions([[-0.5]] * 9) == [True] * 9  # equals share a fate


def test_a_large_rung_keeps_its_share_and_hardly_errs():
    """Between rankings a result is placed among slightly old ones: compared with ranking all each time."""
    rng = np.random.default_rng(0)
    images = rng.integers(1, 50, 1200) * 10.0
    costs = np.stack([-(1 - 0.5 * np.exp(-images / 100) - 0.3 * rng.random(1200)), images], 1)
    quick = np.array(decisions(costs.tolist()))
    late = range(700, 1200, 8)
    exact = []
    for n in late:
        front, place = Ranking(costs[: n + 1]).place(costs[n])
        exact.append(place < (n + 1) / 3 or (front == 0 and place < 2))
    assert np.mean(quick[700:1200:8] == exact) >= 0.95
    assert 0.28 < quick.mean() < 0.40


def test_worst_and_not_finite_results_come_last():
    rung = Rung(2)
    assert rung.add("a", [-0.5, 10])
    assert not rung.add("diverged", [math.inf, math.inf])
    assert not rung.add("strange", [math.nan, 5])
    assert rung.add("b", [-0.4, 20])  # beaten by a, yet among the best half of four
    assert Rung(2).add("only", [-0.1, 5])
    assert not Rung(2).add("only", [math.nan, 5])


def test_a_rung_goes_on_after_pickling():
    rows = np.random.default_rng(3).random((200, 2)).tolist()
    rung = Rung(3)
    first = [rung.add(str(i), row) for i, row in enumerate(rows[:120])]
    again = pickle.loads(pickle.dumps(rung))
    assert first + [again.add(str(i), row) for i, row in enumerate(rows[120:], 120)] == decisions(rows)
