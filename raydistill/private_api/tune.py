"""Private names of Ray Tune, but for those in its trials and files (`raydistill.private_api.tune_trials`)."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.event_manager import RayEventManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution.experiment_state import _ExperimentCheckpointManager
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

LOGGERS = (
    "ray.tune.execution.tune_controller",
    "ray.tune.execution.experiment_state",
    "ray.train._internal.storage",
    "ray.tune.tune",
)
"""The loggers with which Tune writes a traceback for what raydistill says in one line.

Why: Tune has no option that silences them; `RunConfig(verbose=0)` does not.
Tested: Ray 2.52 and 2.60.
"""

DECISIONS = ("_cached_trial_decisions", "_queued_trial_decisions")


@contextmanager
def _replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace a method of a class by what `make` returns for it, and put it back at the end."""
    before = getattr(owner, name)
    setattr(owner, name, make(before))
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def failures_handled(decide: Callable[[Trial, Exception], bool | None]) -> Iterator[None]:
    """Ask `decide` of each failed trial whether it is retried (True), given up (False), or did not fail (None).

    A trial that waits for an actor which failed while it was being reused is no longer made to wait for it. It counts
    as running, because Tune retries only trials that run.

    Why: `FailureConfig(max_failures)` counts every failure alike, whatever its cause, and no callback decides.
    Tested: Ray 2.52 and 2.60 (`TuneController._process_trial_failure`, `_resetting_trials`, `_set_trial_status` and
    `_unstage_trial_with_resources`, `Trial.max_failures`).
    """

    def make(handle: Any) -> Any:
        def handled(controller: Any, trial: Trial, exception: Exception) -> None:
            again = decide(trial, exception)
            if again is None:
                return
            controller._resetting_trials.discard(trial)
            if trial.status == Trial.PENDING:
                controller._unstage_trial_with_resources(trial)
                controller._set_trial_status(trial, Trial.RUNNING)
            trial.max_failures = -1 if again else 0  # -1: without limit
            handle(controller, trial, exception)

        return handled

    with _replaced(TuneController, "_process_trial_failure", make):
        yield


@contextmanager
def losses_as_actor_errors() -> Iterator[None]:
    """Have Tune treat every error by which Ray reports a lost actor as the failure of one trial.

    Why: Tune knows RayActorError and RayTaskError; any other RayError, for example OutOfMemoryError, ends the sweep.
    Tested: Ray 2.52 and 2.60 (`RayActorManager._actor_task_failed`).
    """

    def make(notice: Any) -> Any:
        def noticed(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
            if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
                exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
            notice(manager, tracked_actor_task, exception)

        return noticed

    with _replaced(RayActorManager, "_actor_task_failed", make):
        yield


@contextmanager
def before_each_result(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before Tune takes any result of an actor; what it raises ends the sweep.

    Why: callbacks are called once Tune has taken a result, which may have changed files in the storage.
    Tested: Ray 2.52 and 2.60 (`RayEventManager.resolve_future`).
    """

    def make(resolve: Any) -> Any:
        def resolved(manager: Any, future: Any) -> None:
            check()
            resolve(manager, future)

        return resolved

    with _replaced(RayEventManager, "resolve_future", make):
        yield


@contextmanager
def state_written_by_time_alone(allowed: Callable[[], bool]) -> Iterator[None]:
    """Have Tune write its state as often as that takes a twentieth of its time, and only while `allowed()` is true.

    Why: Tune also writes it after every other checkpoint of any trial, without an option against it, and with thousands
    of trials (25 kB each) does nothing else. Nor can it be told to write nothing for a while.
    Tested: Ray 2.52 and 2.60 (`_ExperimentCheckpointManager.on_trial_checkpoint`, `sync_up_experiment_state`).
    """

    def make(write: Any) -> Any:
        def written(manager: Any, *arguments: Any, **options: Any) -> None:
            if allowed():
                write(manager, *arguments, **options)

        return written

    with (
        _replaced(_ExperimentCheckpointManager, "on_trial_checkpoint", lambda before: lambda manager, trial: None),
        _replaced(_ExperimentCheckpointManager, "sync_up_experiment_state", make),
    ):
        yield


@contextmanager
def restored_without_decisions() -> Iterator[None]:
    """Have a restored Tune forget which trials were to end once their last checkpoint is made.

    Why: such a trial, restored from an earlier checkpoint, would end after its next one, wherever it is then.
    Tested: Ray 2.52 and 2.60 (`TuneController.__setstate__`, `_cached_trial_decisions`, `_queued_trial_decisions`).
    """

    def make(restore: Any) -> Any:
        def restored(controller: Any, state: dict[str, Any]) -> None:
            restore(controller, {key: value for key, value in state.items() if key not in DECISIONS})

        return restored

    with _replaced(TuneController, "__setstate__", make):
        yield


@contextmanager
def restored_in_place() -> Iterator[None]:
    """Have a restored Tune keep everything where it was restored from.

    Why: Tune moves the trials that it has, but neither what new trials are made of nor what sends the trials' logs.
    Tested: Ray 2.52 and 2.60 (`TuneController.resume`, `_search_alg._experiment`, `_storage`, `_trials`, and the
    `syncer` of `Trial.storage`).
    """

    def make(resume: Any) -> Any:
        def resumed(controller: Any, *arguments: Any, **options: Any) -> None:
            resume(controller, *arguments, **options)
            forget_old_place(controller)

        return resumed

    with _replaced(TuneController, "resume", make):
        yield


def forget_old_place(controller: Any) -> None:
    """Set the storage of a restored controller for the trials to come and for the logs of those that it has.

    Why, Tested: as of `restored_in_place`.
    """
    experiment, here = controller._search_alg._experiment, controller._storage
    experiment.storage = experiment.spec["storage"] = here
    for trial in controller._trials:
        trial.storage.syncer = copy.copy(here.syncer)


def tune_config(tuner: tune.Tuner) -> tune.TuneConfig:
    """Return the search algorithm and the scheduler of a Tuner, also of a restored one.

    Why: `Tuner.restore` gives no access to what it unpickled.
    Tested: Ray 2.52 and 2.60 (`Tuner._local_tuner._tune_config`).
    """
    return tuner._local_tuner._tune_config


def set_callbacks(tuner: tune.Tuner, callbacks: Sequence[tune.Callback]) -> None:
    """Give a Tuner its callbacks after it was made or restored.

    Why: those in `RunConfig(callbacks)` are pickled with the Tuner, and `Tuner.restore` takes no others.
    Tested: Ray 2.52 and 2.60 (`Tuner._local_tuner.get_run_config().callbacks`).
    """
    tuner._local_tuner.get_run_config().callbacks = list(callbacks)
