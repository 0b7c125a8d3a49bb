"""What of a trial's failures counts, on real trials that raise errors and lose their processes."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
)

from raydistill.sweep.surviving.retries import LOSSES, Judge, failures_judged, is_lost
from raydistill.system.errors import Lost, UserError


def raised(cause):
    return RayTaskError("step", f"Traceback ...\n{type(cause).__name__}: {cause}", cause, "p", 1, "10.0.0.1")


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ActorDiedError(), True),
        (RayActorError(preempted=True), True),
        (raised(Lost("workers=2: one of them was lost")), True),
        (raised(ObjectLostError("0" * 56, "", "")), True),
        (raised(RuntimeError("CUDA error")), False),
        (raised(UserError("bank=x: is damaged")), False),
        (RayActorError(error_msg="ValueError: no", actor_init_failed=True), False),
        (RayActorError(error_msg="raydistill.system.errors.Lost: workers=2", actor_init_failed=True), True),
        (raised(OutOfMemoryError("the node is full")), True),
        (OutOfMemoryError("the node is full"), True),
        (NodeDiedError("gone"), True),
        (RuntimeError("of Tune"), False),
    ],
)
def test_what_is_a_loss(error, lost):
    assert is_lost(error) == lost


def test_losses_count_only_without_a_step_between_them():
    judge = Judge(failures=0)
    assert all(judge.again("a", steps, ActorDiedError()) for steps in range(1000))
    assert all(judge.again("a", 999, ActorDiedError()) for _ in range(LOSSES - 2))
    assert all(judge.again("b", 0, ActorDiedError()) for _ in range(LOSSES - 1))
    assert not judge.again("a", 7, ActorDiedError())  # it went on from an older checkpoint, and came no further
    assert not judge.again("b", 0, ActorDiedError())


def test_errors_of_its_own_count_with_losses_between_them():
    judge = Judge(failures=2)
    own, lost = raised(RuntimeError("no")), ActorDiedError()
    assert [judge.again("a", i, error) for i, error in enumerate([own, lost, own, lost, lost, own])] == [True] * 5 + [
        False
    ]
    assert not Judge(9).again("a", 0, raised(UserError("bank=x: is damaged")))
    wrong = RayActorError(error_msg="raydistill.system.errors.UserError: bank=x: is damaged", actor_init_failed=True)
    assert not Judge(9).again("a", 0, wrong)


@pytest.mark.parametrize("error", [OutOfMemoryError("full"), NodeDiedError("gone"), ActorDiedError()])
def test_a_loss_of_any_kind_reaches_the_trial(error):
    told = []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda actor, error: told.append(error))
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    task = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: told.append(error))
    before = RayActorManager._actor_task_failed
    with failures_judged(0):
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=error)  # as Ray calls it
    assert len(told) == 2
    assert all(isinstance(e, RayActorError) and is_lost(e) for e in told)
    assert RayActorManager._actor_task_failed is before


class Unlucky(tune.Trainable):
    """Ends after four steps, if the fate in its config lets it. Each life begun leaves a file."""

    def setup(self, config):
        self.fate, self.folder, self.done = config["fate"], Path(config["folder"]), 0
        (self.folder / f"{self.fate}-{os.urandom(4).hex()}").touch()
        self.lives = len(list(self.folder.glob(f"{self.fate}-*")))

    def step(self):
        if self.fate == "raises":
            raise RuntimeError("in step")
        if self.fate == "lost twice" and self.lives < 3 and self.done == self.lives:
            os.kill(os.getpid(), signal.SIGKILL)
        self.done += 1
        return {"steps": self.done, "done": self.done == 4}

    def save_checkpoint(self, checkpoint_dir):
        Path(checkpoint_dir, "done").write_text(str(self.done))

    def load_checkpoint(self, checkpoint):
        self.done = int(Path(checkpoint, "done").read_text())

    def reset_config(self, new_config):
        self.setup(new_config)
        if self.fate == "lost in reuse" and self.lives == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return True


def test_trials_that_fail(local_ray, tmp_path):
    """With one error of its own allowed to each; Tune itself would end all but the first."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    tuner = tune.Tuner(
        tune.with_resources(Unlucky, {"cpu": 1}),
        param_space={
            "fate": tune.grid_search(["first", "lost in reuse", "lost twice", "raises"]),
            "folder": str(tmp_path),
        },
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=1),
        run_config=tune.RunConfig(
            name="t",
            storage_path=str(tmp_path / "storage"),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    )
    with failures_judged(1):
        results = tuner.fit()
    found = {
        (fate := result.config["fate"]): (
            len(list(tmp_path.glob(f"{fate}-*"))),
            (result.metrics or {}).get("steps"),
            bool(result.error),
        )
        for result in results
    }
    assert found == {
        "first": (1, 4, False),
        "lost in reuse": (2, 4, False),
        "lost twice": (3, 4, False),
        "raises": (2, None, True),
    }
