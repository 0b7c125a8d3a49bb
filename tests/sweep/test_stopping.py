"""Early stopping in a real Tune, with trials that cost nothing."""

from pathlib import Path

import pytest
from optuna.trial import TrialState
from ray import tune
from ray.tune.logger import JsonLoggerCallback

from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.sweep.searching.search_space import optuna_search
from raydistill.sweep.stopping.scheduler import SchedulerState
from raydistill.sweep.tuner import scheduler_of

TRIALS = 24


def curve():
    """The trials' class; made in a function, it goes to Ray's workers by value, as they cannot import this file."""

    class Curve(tune.Trainable):
        """The more steps, the more images and the more accurate. One trial fails where a file says so."""

        def setup(self, config):
            self.iterations = 0

        def step(self):
            self.iterations += 10
            stumble = Path(self.config["stumble"])
            if self.iterations == 50 and stumble.exists():
                stumble.unlink()
                raise RuntimeError("a bad day for this host")
            accuracy = self.config["steps"] / 4 + self.config["inner_lr"] / 5
            done = self.iterations >= 100
            images = 10 * self.config["steps"]
            return {"iterations": self.iterations, "val_accuracy": accuracy, "num_images": images, "done": done}

        def save_checkpoint(self, folder):
            Path(folder, "iterations").write_text(str(self.iterations))

        def load_checkpoint(self, folder):
            self.iterations = int(Path(folder, "iterations").read_text())

        def reset_config(self, config):
            self.setup(config)
            return True

    return tune.with_resources(Curve, {"cpu": 1})


@pytest.fixture(scope="module")
def interrupted(local_ray, tmp_path_factory):
    """A sweep in which a trial failed, and the same sweep restored from its folder and gone on with."""
    folder = tmp_path_factory.mktemp("runs")
    stumble = folder / "stumble"
    stumble.touch()
    values = {
        "name": "t",
        "search": {"steps": {"int": [1, 3]}, "inner_lr": {"uniform": [0.001, 1.0]}},
        "budget": {"trials": TRIALS, "iterations": 100},
        "scheduler": {"pareto_asha": {"grace": 20, "reduction": 3}},
    }
    config = validated(SweepConfig, values)
    scheduler = scheduler_of(config)
    first = tune.Tuner(
        curve(),
        param_space={"stumble": str(stumble)},
        tune_config=tune.TuneConfig(
            search_alg=optuna_search(config), scheduler=scheduler, num_samples=TRIALS, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="t",
            storage_path=str(folder),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            callbacks=[JsonLoggerCallback(), SchedulerState(scheduler)],
            verbose=0,
        ),
    )
    before = first.fit()
    known = scheduler.get_state()
    second = tune.Tuner.restore(
        str(folder / "t"),
        curve(),
        param_space={"stumble": str(stumble)},
        resume_errored=True,
    )
    after = second.fit()
    return before, known, after, second._local_tuner._tune_config


def iterations(results):
    return {row.metrics["trial_id"]: row.metrics["iterations"] for row in results}


@pytest.mark.slow
def test_some_trials_are_stopped_and_small_sets_are_not(interrupted):
    before, _, after, config = interrupted
    assert len(before) == len(after) == TRIALS
    assert before.num_errors == 1
    assert after.num_errors == 0
    ends = iterations(after)
    assert set(ends.values()) <= {20, 60, 100}  # the rungs and the end
    stopped = [trial for trial, end in ends.items() if end < 100]
    assert TRIALS / 4 <= len(stopped) < TRIALS
    assert set(stopped) == config.scheduler.stopped
    sizes = {row.metrics["num_images"] for row in after if row.metrics["iterations"] == 100}
    assert 10 in sizes  # although every larger set is more accurate
    best = max(row.metrics["val_accuracy"] for row in after)
    assert any(row.metrics["val_accuracy"] == best and row.metrics["iterations"] == 100 for row in after)


def test_a_restored_sweep_remembers_its_rungs(interrupted):
    before, known, after, config = interrupted
    assert set(known["rungs"][20]) == {row.metrics["trial_id"] for row in before}
    now = config.scheduler.get_state()
    assert now["rungs"][20] == known["rungs"][20]  # nothing lost, nothing twice
    assert known["rungs"][60].items() <= now["rungs"][60].items()
    assert set(known["stopped"]) <= set(now["stopped"])
    [failed] = [row.metrics["trial_id"] for row in before if row.error]
    assert failed in now["rungs"][60]
    ended = {trial: end for trial, end in iterations(before).items() if trial != failed}
    assert ended.items() <= iterations(after).items()
    searched = config.search_alg._ot_study.trials
    assert len(searched) == TRIALS
    assert sum(trial.state == TrialState.COMPLETE for trial in searched) == TRIALS - 1  # and one that failed once
