"""From YAML to Optuna, and the front."""

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.sweep.searching.search_space import optuna_search
from raydistill.sweep.stopping.pareto import non_dominated
from raydistill.sweep.trial_row import TrialRow

SEARCH = {
    "steps": {"int": [1, 3]},
    "images_per_class": {"logint": [1, 64]},
    "inner_lr": {"loguniform": [0.001, 1.0]},
    "images.init.std": {"uniform": [0.5, 1.5]},
    "network.init": {"choice": ["xavier", "kaiming"]},
}


def config(**update):
    return validated(SweepConfig, {"name": "t", "base": {"images.init": "noise"}, "search": SEARCH} | update)


def test_suggestions_lie_in_the_space_and_cover_it():
    search = optuna_search(config())
    points = [search.suggest(str(i)) for i in range(40)]
    for name, distribution in config().search.items():
        assert all(distribution.contains(point[name]) for point in points), name
    assert {point["network.init"] for point in points} == {"xavier", "kaiming"}
    assert {point["steps"] for point in points} == {1, 2, 3}
    assert sum(point["inner_lr"] < 0.03 for point in points) > 8  # logarithmic: half lie below the geometric mean
    assert all(isinstance(point["steps"], int) for point in points)


def test_known_good_points_come_first():
    good = [{"steps": 2, "inner_lr": 0.5, "images.init.std": 1.0}, {"network.init": "kaiming", "images.init.std": 0.75}]
    search = optuna_search(config(known_good=good))
    first, second = search.suggest("a"), search.suggest("b")
    assert (first["steps"], first["inner_lr"], first["images.init.std"]) == (2, 0.5, 1.0)
    assert (second["network.init"], second["images.init.std"]) == ("kaiming", 0.75)


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
    search.on_trial_complete("a", {"val_accuracy": 0.5, "num_images": 20, "iterations": 2000})
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
    result = {"val_accuracy": 0.8, "num_images": 20, "iterations": 2000, "members": members}
    search.on_trial_complete("a", result)
    told = [(trial.params, trial.values) for trial in search._ot_study.trials]
    assert told == [(point, [0.5, 20]), (point | {"inner_lr": 0.25}, [0.8, 20])]
    search.on_trial_complete("a", result)  # Ray may say it twice
    assert len(search._ot_study.trials) == 2


ONE = {"objectives": {"val_accuracy": "max"}}


def test_with_one_objective_a_stopped_trial_is_pruned_with_its_values():
    search = optuna_search(config(**ONE))
    for trial in ("stopped", "whole", "diverged", "failed", "never ran"):
        search.suggest(trial)
    results = [{"val_accuracy": a, "iterations": i} for a, i in ((0.3, 100), (0.5, 200), (0.7, 300))]
    for result in (*results[:2], results[0]):  # set back by a failure, it says the first again
        search.on_trial_result("stopped", result)
    search.on_trial_complete("stopped", results[2])  # Ray tells the result that stopped it only here
    search.on_trial_result("whole", results[0])
    search.on_trial_complete("whole", {"val_accuracy": 0.8, "iterations": 2000})
    search.on_trial_complete("diverged", {"val_accuracy": 0.0, "iterations": 150, "diverged": 1, "members": [{}]})
    search.on_trial_complete("failed", error=True)
    search.on_trial_complete("never ran")
    stopped, whole, diverged, failed, never = search._ot_study.trials
    assert stopped.state == TrialState.PRUNED
    assert stopped.intermediate_values == {100: 0.3, 200: 0.5, 300: 0.7}
    assert (whole.state, whole.value, whole.intermediate_values) == (TrialState.COMPLETE, 0.8, {100: 0.3})
    assert (diverged.state, diverged.value) == (TrialState.COMPLETE, 0.0)
    assert (failed.state, failed.value) == (TrialState.FAIL, None)
    assert (never.state, never.intermediate_values) == (TrialState.PRUNED, {})
    assert search.suggest("next")  # the sampler takes them all


def test_with_several_objectives_a_stopped_trial_counts_with_its_best_set():
    """And as slow as it would have been: else those stopped first would be the fastest there are."""
    search = optuna_search(config(objectives={"val_accuracy": "max", "num_images": "min", "seconds": "min"}))
    for trial in ("stopped", "whole"):
        search.suggest(trial)
    last = {"val_accuracy_last": 0.4, "val_accuracy": 0.5, "num_images": 20, "seconds": 9.0, "iterations": 200}
    search.on_trial_result("stopped", last)
    search.on_trial_complete("stopped", last)
    search.on_trial_complete("whole", {"val_accuracy": 0.6, "num_images": 20, "seconds": 80.0, "iterations": 2000})
    stopped, whole = search._ot_study.trials
    assert (stopped.state, stopped.values) == (TrialState.COMPLETE, [0.5, 20, 90.0])
    assert (whole.state, whole.values) == (TrialState.COMPLETE, [0.6, 20, 80.0])


def test_a_stopped_population_is_pruned_set_by_set():
    search = optuna_search(config(**ONE))
    point = search.suggest("a")
    members = [{"val_accuracy": 0.5}, {"val_accuracy": 0.8, "inner_lr": 0.25}]
    search.on_trial_result("a", {"val_accuracy": 0.8, "iterations": 100, "members": members})
    search.on_trial_complete("a", {"val_accuracy": 0.8, "iterations": 200, "members": members})
    first, second = search._ot_study.trials
    assert (first.state, first.params, first.intermediate_values) == (TrialState.PRUNED, point, {100: 0.5, 200: 0.5})
    assert (second.state, second.params["inner_lr"], second.intermediate_values) == (
        TrialState.PRUNED,
        0.25,
        {200: 0.8},
    )


def test_the_search_goes_on_after_it_was_saved(tmp_path):
    search = optuna_search(config(**ONE))
    search.suggest("a")
    search.on_trial_result("a", {"val_accuracy": 0.3, "iterations": 100})
    search.save(str(tmp_path / "search"))
    again = optuna_search(config(**ONE))
    again.restore(str(tmp_path / "search"))
    again.on_trial_result("a", {"val_accuracy": 0.2, "iterations": 100})
    again.on_trial_complete("a", {"val_accuracy": 0.4, "iterations": 200})
    assert again._ot_study.trials[0].intermediate_values == {100: 0.3, 200: 0.4}


def test_front_against_the_definition():
    rng = np.random.default_rng(0)
    objectives = {"val_accuracy": "max", "num_images": "min"}
    pairs = list(zip(rng.random(60).round(1).tolist(), rng.integers(1, 9, 60).tolist(), strict=True))
    rows = [TrialRow(str(i), "TERMINATED", val_accuracy=a, num_images=n) for i, (a, n) in enumerate(pairs)]
    rows.insert(30, TrialRow("without a result", "RUNNING", num_images=1))

    def beats(x, y):
        return x[0] >= y[0] and x[1] <= y[1] and x != y

    expected = {pair for pair in pairs if not any(beats(other, pair) for other in pairs)}
    front = non_dominated(rows, objectives)
    assert [(row.val_accuracy, row.num_images) for row in front] == sorted(expected, key=lambda pair: pair[1])
    assert all(
        int(row.trial) == pairs.index((row.val_accuracy, row.num_images)) for row in front
    )  # of equals the first
    assert non_dominated([], objectives) == []
    assert non_dominated(rows, {"val_accuracy": "max"})[0].val_accuracy == max(a for a, _ in pairs)
