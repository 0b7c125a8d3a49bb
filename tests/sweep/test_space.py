"""From YAML to Optuna, and the front."""

import itertools

import numpy as np
import optuna
import pytest

from raydistill.settings import validated
from raydistill.sweep.front import non_dominated
from raydistill.sweep.space import optuna_search
from raydistill.sweep_config import SweepConfig

SEARCH = {
    "steps": {"int": [1, 3]},
    "images_per_class": {"logint": [1, 64]},
    "inner_lr": {"loguniform": [0.001, 1.0]},
    "image_std": {"uniform": [0.5, 1.5]},
    "init": {"choice": ["xavier", "kaiming"]},
}


def config(**update):
    return validated(SweepConfig, {"name": "t", "search": SEARCH} | update)


def test_suggestions_lie_in_the_space_and_cover_it():
    search = optuna_search(config())
    points = [search.suggest(str(i)) for i in range(40)]
    for name, distribution in config().search.items():
        assert all(distribution.contains(point[name]) for point in points), name
    assert {point["init"] for point in points} == {"xavier", "kaiming"}
    assert {point["steps"] for point in points} == {1, 2, 3}
    assert sum(point["inner_lr"] < 0.03 for point in points) > 8  # logarithmic: half lie below the geometric mean
    assert all(isinstance(point["steps"], int) for point in points)


def test_known_good_points_come_first():
    good = [{"steps": 2, "inner_lr": 0.5, "image_std": 1.0}, {"init": "kaiming", "image_std": 0.75}]
    search = optuna_search(config(known_good=good))
    first, second = search.suggest("a"), search.suggest("b")
    assert (first["steps"], first["inner_lr"], first["image_std"]) == (2, 0.5, 1.0)
    assert (second["init"], second["image_std"]) == ("kaiming", 0.75)


def test_the_seed_decides():
    points = [[optuna_search(config(seed=s)).suggest(str(i)) for i in range(3)] for s in (1, 1, 2)]
    assert points[0] == points[1] != points[2]


@pytest.mark.parametrize(
    ("objectives", "directions"),
    [({"val_accuracy": "max"}, ["MAXIMIZE"]), ({"val_accuracy": "max", "num_images": "min"}, ["MAXIMIZE", "MINIMIZE"])],
)
def test_results_reach_optuna(objectives, directions):
    search = optuna_search(config(objectives=objectives))
    study = search._ot_study
    assert [d.name for d in study.directions] == directions
    search.suggest("a")
    search.on_trial_complete("a", {"val_accuracy": 0.5, "num_images": 20, "training_iteration": 1})
    assert study.trials[0].state == optuna.trial.TrialState.COMPLETE
    assert study.trials[0].values == [0.5, 20][: len(objectives)]


def test_every_set_of_a_population_reaches_optuna():
    search = optuna_search(config())
    point = search.suggest("a")
    members = [
        {"seed": 0, "inner_lr": point["inner_lr"], "outer_lr": 0.1, "val_accuracy": 0.5},
        {"seed": 7, "inner_lr": 0.25, "outer_lr": 0.2, "val_accuracy": 0.8},
        {"seed": 8, "inner_lr": 5.0, "outer_lr": 0.2, "val_accuracy": 0.7},  # outside the space
        {"seed": 9, "inner_lr": 0.3, "outer_lr": 0.2},  # without a validation
    ]
    search.on_trial_complete("a", {"val_accuracy": 0.8, "num_images": 20, "members": members})
    told = [(trial.params, trial.values) for trial in search._ot_study.trials]
    assert told == [(point, [0.5, 20]), (point | {"inner_lr": 0.25}, [0.8, 20])]
    search.on_trial_complete("a", {"val_accuracy": 0.8, "num_images": 20, "members": members})  # Ray may say it twice
    assert len(search._ot_study.trials) == 2


def test_front_against_the_definition():
    rng = np.random.default_rng(0)
    objectives = {"val_accuracy": "max", "num_images": "min"}
    rows = [
        {"val_accuracy": float(a), "num_images": int(n)}
        for a, n in zip(rng.random(60).round(1), rng.integers(1, 9, 60), strict=True)
    ]

    def beats(x, y):
        as_good = x["val_accuracy"] >= y["val_accuracy"] and x["num_images"] <= y["num_images"]
        return as_good and x != y

    expected = [row for row in rows if not any(beats(other, row) for other in rows)]
    front = non_dominated(rows, objectives)
    assert {tuple(row.values()) for row in front} == {tuple(row.values()) for row in expected}
    assert all(a != b for a, b in itertools.combinations(front, 2))  # equals once
    assert non_dominated([], objectives) == []
    assert non_dominated(rows, {"val_accuracy": "max"})[0]["val_accuracy"] == max(r["val_accuracy"] for r in rows)
