"""The protocol by which a sweep ends on request, such that it can continue later."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = {"request": 60.0, "signal": 10.0}  # Seconds that a stop waits for running steps.

logger = logging.getLogger("raydistill")


class SweepStop:
    """Ends a sweep when somebody asks for it, by a file in the storage or by a signal.

    Running trials may finish the step they are in and write a checkpoint. Then, or when `PATIENCE` is over, Tune is
    made to save its state and end.

    Args:
        requested: returns whether somebody asked for the end by the file.
        signalled: returns whether the user of this process asked for it.
    """

    def __init__(self, requested: Callable[[], bool], signalled: Callable[[], bool] = lambda: False) -> None:
        self.requested = requested
        self.signalled = signalled
        self.possible = False
        self.begun = False
        self.ended = False
        self.waiting: set[str] = set()  # Trials whose checkpoint it waits for.
        self.deadline = 0.0  # Seconds on the clock of time.monotonic.

    @property
    def under_way(self) -> bool:
        """Whether it waits for checkpoints now."""
        return self.begun and not self.ended

    def begin_if_asked(self, trials: list[Any]) -> bool:
        """Begin to wait for the running trials if somebody asked for the end; return whether it begins now."""
        if self.begun or not self.possible or not (self.requested() or self.signalled()):
            return False
        self.begun = True
        self.waiting = running(trials)
        self.deadline = time.monotonic() + PATIENCE["request" if self.requested() else "signal"]
        logger.warning("stopping; %d trials may finish the step they are in", len(self.waiting))
        return True

    def checkpoint_written(self, trial: str) -> None:
        """Wait no longer for this trial."""
        self.waiting.discard(trial)

    def end_if_ready(self, trials: list[Any]) -> bool:
        """Make Tune end if no trial needs more time, or none is left; return whether it ends now."""
        if not self.under_way or (time.monotonic() < self.deadline and self.waiting & running(trials)):
            return False
        self.ended = True
        signal.raise_signal(signal.SIGUSR1)  # Tune saves its state and ends on this signal.
        return True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Make a stop possible, and afterwards restore the handler of the signal on which Tune ends.

        In other threads than the main one the sweep cannot be stopped, because Tune listens in that one only.
        """
        self.possible = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGUSR1)
        try:
            yield
        finally:
            if self.possible:  # Tune leaves a handler of its own
                signal.signal(signal.SIGUSR1, before)


def running(trials: list[Any]) -> set[str]:
    """Return the identifiers of the trials that run."""
    return {trial.trial_id for trial in trials if trial.status == "RUNNING"}
