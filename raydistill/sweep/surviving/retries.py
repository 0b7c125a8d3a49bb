"""Which failed trials are retried: the errors of a trial's own are counted, the loss of its machine is not.

Tune has one limit for both, does not retry a trial whose reused actor was lost between two trials, and ends the sweep
when Ray kills an actor because a node is out of memory. Within `failures_judged`, `Judge` decides instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import (
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.tune.experiment import Trial

from raydistill.private_api.tune import failures_handled, losses_as_actor_errors
from raydistill.system.errors import Lost, UserError

LOSSES = 8
"""The losses in a row, without a result in between, after which a trial is given up: it may kill its machine."""

NOT_ITS_FAULT = (RayActorError, ObjectLostError, OutOfMemoryError, WorkerCrashedError, RaySystemError, Lost)
"""Errors that a trial's code raises because something else was lost."""


class Judge:
    """A count of each trial's failures, which decides whether the trial is retried from its last checkpoint.

    Args:
        failures: how many errors of its own a trial may raise and still be retried.
    """

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.own: dict[str, int] = {}
        self.losses: dict[str, tuple[int, int]] = {}  # The steps that each trial had done, and its losses since.

    def again(self, trial_id: str, steps: int, error: Exception) -> bool:
        """Count a failure; return whether the trial is retried.

        Args:
            trial_id: the trial that failed.
            steps: the steps it has done, by its last result.
            error: what Ray reported.
        """
        if is_lost(error):
            before, count = self.losses.get(trial_id, (-1, 0))
            count = count + 1 if steps <= before else 1
            self.losses[trial_id] = (max(steps, before), count)
            return count < LOSSES
        if _raised(error, UserError):
            return False  # A retry would raise it again.
        self.own[trial_id] = self.own.get(trial_id, 0) + 1
        return self.own[trial_id] <= self.failures


def is_lost(error: Exception) -> bool:
    """Return whether a process or a machine was lost, rather than an error raised by the trial's code."""
    in_start = isinstance(error, RayActorError) and error.actor_init_failed
    if in_start or isinstance(error, RayTaskError):
        return any(_raised(error, kind) for kind in NOT_ITS_FAULT)
    return isinstance(error, RayError)


def _raised(error: Exception, kind: type[Exception]) -> bool:
    """Return whether the trial's code raised such an error; of one raised at its start Ray keeps the text alone."""
    if isinstance(error, RayActorError):
        return f"{kind.__module__}.{kind.__qualname__}:" in str(error)
    return isinstance(getattr(error, "cause", error), kind)


@contextmanager
def failures_judged(failures: int) -> Iterator[None]:
    """Have `Judge` decide within this context which failed trials of this process's sweeps are retried.

    Args:
        failures: how many errors of its own a trial may raise and still be retried.
    """
    judge = Judge(failures)

    def decide(trial: Trial, error: Exception) -> bool | None:
        if is_lost(error) and trial.status != Trial.RUNNING:
            return None  # Ray reports the loss of an actor that was being reused twice; the first report was enough
        steps = (trial.last_result or {}).get("training_iteration", 0)
        return judge.again(trial.trial_id, steps, error)

    with losses_as_actor_errors(), failures_handled(decide):
        yield
