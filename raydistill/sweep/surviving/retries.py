"""Which trials that failed are tried again: their own errors are counted, the loss of their machine is not.

Tune has one limit for both, does not retry a trial whose reused actor was lost between two trials, ends the sweep when
Ray kills an actor for want of memory, and offers no hook for any of it. So within `failures_judged` the method in which
its controller handles a failure asks `Judge` first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import (
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

from raydistill.system.errors import Lost, UserError

LOSSES = 8
"""A trial lost so many times in a row, without a result in between, is given up: it may be what kills its machine."""

NOT_ITS_FAULT = (RayActorError, ObjectLostError, OutOfMemoryError, WorkerCrashedError, RaySystemError, Lost)
"""What a trial's code may raise for want of others."""


class Judge:
    """Decides which failed trials go on from their last checkpoint.

    Args:
        failures: how many errors of its own a trial may raise and still go on.
    """

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.own: dict[str, int] = {}
        self.losses: dict[str, tuple[int, int]] = {}  # for each trial the steps it had done, and losses since

    def again(self, trial_id: str, steps: int, error: Exception) -> bool:
        """Whether the trial is tried again.

        Args:
            trial_id: which.
            steps: that it has done, by its last result.
            error: what Ray reported.
        """
        if is_lost(error):
            before, count = self.losses.get(trial_id, (-1, 0))
            count = count + 1 if steps <= before else 1
            self.losses[trial_id] = (max(steps, before), count)
            return count < LOSSES
        if _raised(error, UserError):
            return False  # it would say the same again
        self.own[trial_id] = self.own.get(trial_id, 0) + 1
        return self.own[trial_id] <= self.failures


def is_lost(error: Exception) -> bool:
    """Whether a process or a machine was lost, rather than the trial's code having raised the error."""
    in_start = isinstance(error, RayActorError) and error.actor_init_failed
    if in_start or isinstance(error, RayTaskError):
        return any(_raised(error, kind) for kind in NOT_ITS_FAULT)
    return isinstance(error, RayError)


def _raised(error: Exception, kind: type[Exception]) -> bool:
    """Whether this is what the trial's code raised; of its start Ray keeps no more than the words."""
    if isinstance(error, RayActorError):
        return f"{kind.__module__}.{kind.__qualname__}:" in str(error)
    return isinstance(getattr(error, "cause", error), kind)


@contextmanager
def failures_judged(failures: int) -> Iterator[None]:
    """Within it the trials of this process's sweeps are retried as `Judge` decides.

    Args:
        failures: how many errors of its own a trial may raise and still go on.
    """
    judge = Judge(failures)
    handle: Any = TuneController._process_trial_failure
    notice: Any = RayActorManager._actor_task_failed

    def noticed(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")  # others end the sweep
        notice(manager, tracked_actor_task, exception)

    def judged(controller: Any, trial: Any, exception: Exception) -> None:
        lost = is_lost(exception)
        if lost and trial.status != Trial.RUNNING:
            return  # said twice of an actor that was being reused; the first time did it
        controller._resetting_trials.discard(trial)  # else it would wait for ever for that actor
        if trial.status == Trial.PENDING:  # its error came from the reuse of an actor; Tune retries running ones only
            controller._unstage_trial_with_resources(trial)
            controller._set_trial_status(trial, Trial.RUNNING)
        steps = (trial.last_result or {}).get("training_iteration", 0)
        trial.max_failures = -1 if judge.again(trial.trial_id, steps, exception) else 0
        handle(controller, trial, exception)

    TuneController._process_trial_failure = judged
    RayActorManager._actor_task_failed = noticed
    try:
        yield
    finally:
        TuneController._process_trial_failure = handle
        RayActorManager._actor_task_failed = notice
