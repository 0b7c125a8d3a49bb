"""Which trials are stopped, and what of it outlives the driver."""

import pickle

import numpy as np
import pytest
from ray.tune.experiment import Trial

from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.sweep.stopping.scheduler import ParetoASHA, SchedulerState
from raydistill.sweep.tuner import scheduler_of

OBJECTIVES = {"val_accuracy": "max", "num_images": "min"}


class Waiting:
    """As much of Ray's Trial as a scheduler sees."""

    def __init__(self, trial_id, status=Trial.PENDING):
        self.trial_id, self.status = str(trial_id), status

    def is_finished(self):
        return self.status in (Trial.TERMINATED, Trial.ERROR)


def result(accuracy, images, iterations, **others):
    return {"val_accuracy": accuracy, "num_images": images, "iterations": iterations} | others


def goes_on(scheduler, trial, *values, **others):
    return scheduler.on_trial_result(None, Waiting(trial), result(*values, **others)) == "CONTINUE"


def filled():
    scheduler = ParetoASHA(OBJECTIVES, 1000, grace=100, reduction=3)
    for i, accuracy in enumerate(np.linspace(0.5, 0.9, 30)):
        goes_on(scheduler, f"large{i}", accuracy, 100, 100)
    return scheduler


def test_rungs_lie_below_the_budget():
    assert list(ParetoASHA(OBJECTIVES, 1000, 100, 3).rungs) == [100, 300, 900]
    assert list(ParetoASHA(OBJECTIVES, 900, 100, 3).rungs) == [100, 300]
    assert list(ParetoASHA(OBJECTIVES, 50, 100, 3).rungs) == []
    assert list(ParetoASHA(OBJECTIVES, 30, 10, 1.5).rungs) == [10, 15, 23]


@pytest.mark.parametrize("first", [False, True])
def test_a_small_set_is_not_stopped_because_larger_ones_are_more_accurate(first):
    scheduler = ParetoASHA(OBJECTIVES, 1000, 100) if first else filled()
    if first:
        assert goes_on(scheduler, "large", 0.9, 100, 100)
    assert goes_on(scheduler, "small", 0.2, 10, 100)
    assert goes_on(scheduler, "middle", 0.6, 50, 100) or first  # two of three go on: the most accurate, the smallest
    assert not goes_on(scheduler, "worse and as large", 0.1, 100, 100)
    assert not goes_on(scheduler, "diverged", 0.0, 5, 100, diverged=1)


def test_the_best_of_each_size_outlive_the_others():
    """Ten sizes, thirty trials each, the larger the more accurate: the best of each of the sizes go on."""
    rng = np.random.default_rng(0)
    trials = [(size, quality) for size in range(1, 11) for quality in np.linspace(0, 1, 30)]
    rng.shuffle(trials)
    scheduler = ParetoASHA(OBJECTIVES, 1000, 100)
    went = [goes_on(scheduler, i, size / 11 + q / 12, 10 * size, 100) for i, (size, q) in enumerate(trials)]
    best = [[w for w, (s, q) in zip(went, trials, strict=True) if s == size and q > 0.9] for size in range(1, 11)]
    worst = [[w for w, (s, q) in zip(went, trials, strict=True) if s == size and q < 0.3] for size in range(1, 11)]
    assert all(np.mean(b) >= 0.6 for b in best)
    assert np.mean(best) >= 0.9
    assert np.mean(worst) <= 0.1
    assert 0.3 <= np.mean(went) <= 0.4


def test_a_trial_is_recorded_once_and_only_in_the_highest_rung_it_has_reached():
    scheduler = ParetoASHA(OBJECTIVES, 1000, 100)
    assert goes_on(scheduler, "a", 0.1, 10, 99)
    assert goes_on(scheduler, "a", 0.2, 10, 110)
    assert goes_on(scheduler, "a", 0.3, 10, 120)
    assert goes_on(scheduler, "b", 0.9, 10, 450)  # restored past a rung that does not know it
    assert goes_on(scheduler, "b", 0.9, 10, 250)  # set back
    assert goes_on(scheduler, "a", 0.95, 10, 300)
    seen = {at: rung.costs for at, rung in scheduler.rungs.items()}
    assert seen[100] == {"a": [-0.2, 10]}
    assert seen[300] == {"b": [-0.9, 10], "a": [-0.95, 10]}
    assert seen[900] == {}


def test_a_stopped_trial_stays_stopped():
    scheduler = filled()
    assert not goes_on(scheduler, "late", 0.4, 100, 100)
    assert not goes_on(scheduler, "late", 0.99, 100, 120)
    assert "stopped" in scheduler.debug_string()
    assert "31 at 100, 0 at 300" in scheduler.debug_string()


def test_a_trial_that_ends_is_recorded_too():
    """A result that says `done` comes with on_trial_complete alone."""
    scheduler = ParetoASHA(OBJECTIVES, 1000, 100)
    scheduler.on_trial_complete(None, Waiting("diverged"), result(0.0, 5, 150, diverged=1, done=True))
    scheduler.on_trial_complete(None, Waiting("whole"), result(0.9, 10, 1000, done=True))
    scheduler.on_trial_complete(None, Waiting("at once"), {})
    assert [len(rung.costs) for rung in scheduler.rungs.values()] == [1, 0, 1]
    assert goes_on(scheduler, "a", 0.1, 500, 100)  # better than the one that diverged
    assert goes_on(scheduler, "b", 0.2, 10, 100)


def test_trials_wait_their_turn():
    scheduler = ParetoASHA(OBJECTIVES, 1000, 100)
    trials = {name: Waiting(name) for name in "abcd"}
    for trial in (*trials.values(), Waiting("old", Trial.TERMINATED)):
        scheduler.on_trial_add(None, trial)
    trials["a"].status, trials["b"].status = Trial.RUNNING, Trial.PAUSED
    assert scheduler.choose_trial_to_run(None) is trials["c"]
    scheduler.on_trial_error(None, trials["c"])
    scheduler.on_trial_add(None, trials["c"])  # tried again, behind d
    assert scheduler.choose_trial_to_run(None) is trials["d"]
    scheduler.on_trial_remove(None, trials["d"])
    trials["c"].status = Trial.ERROR
    assert scheduler.choose_trial_to_run(None) is trials["b"]
    scheduler.on_trial_remove(None, trials["b"])
    assert scheduler.choose_trial_to_run(None) is None


def test_what_the_rungs_know_is_kept_with_the_sweep():
    scheduler = filled()
    goes_on(scheduler, "late", 0.4, 100, 100)
    fresh, memory = pickle.loads(pickle.dumps([s := ParetoASHA(OBJECTIVES, 1000, 100, 3), SchedulerState(s)]))
    memory.set_state(pickle.loads(pickle.dumps(SchedulerState(scheduler).get_state())))
    for trial, values in {"late": (0.99, 100, 120), "x": (0.6, 100, 100), "y": (0.95, 100, 100)}.items():
        assert goes_on(fresh, trial, *values) == goes_on(scheduler, trial, *values), trial
    assert fresh.debug_string() == scheduler.debug_string()


def test_the_sweep_file_names_the_scheduler():
    values = {"name": "t", "search": {"steps": {"int": [1, 2]}}, "budget": {"iterations": 900}}
    pareto = scheduler_of(validated(SweepConfig, values))
    assert (type(pareto), list(pareto.rungs), pareto.objectives) == (ParetoASHA, [200, 600], OBJECTIVES)
    named = validated(SweepConfig, values | {"scheduler": {"pareto_asha": {"grace": 100, "reduction": 2}}})
    assert list(scheduler_of(named).rungs) == [100, 200, 400, 800]
    again = named.model_dump(mode="json", include={"scheduler"})
    assert validated(SweepConfig, values | again).scheduler == named.scheduler
    for scheduler, kind in (({"asha": {}}, "AsyncHyperBandScheduler"), ("none", "FIFOScheduler")):
        assert type(scheduler_of(validated(SweepConfig, values | {"scheduler": scheduler}))).__name__ == kind
