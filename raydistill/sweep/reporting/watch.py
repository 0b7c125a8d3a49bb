"""What goes on beside a sweep's trials: its index, journal and log are kept, and requests to stop obeyed."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune import Callback
from ray.tune.result import SHOULD_CHECKPOINT

from raydistill.config.sweep_config import SweepConfig
from raydistill.runs.distillation import stop_on_signals
from raydistill.sweep.error_reasons import explain, is_of_storage, last_error
from raydistill.sweep.reporting.index import INDEX, About, State, index_schema, to_parquet
from raydistill.sweep.reporting.index_rows import Rows
from raydistill.sweep.reporting.journal import JOURNAL, Journal, agree
from raydistill.sweep.reporting.storage_writer import Mailbox
from raydistill.sweep.reporting.sweep_tensorboard import Board
from raydistill.sweep.searching.trial import TROUBLE
from raydistill.sweep.surviving.lease import Lease
from raydistill.system.errors import UserError
from raydistill.system.output import aside
from raydistill.system.shell import resuming, typed

EVERY = 4.0  # seconds between two writings of the index while results come in
LONGEST = 60.0  # also where a writing takes long, as the first one after a resume of thousands of trials
SHARE = 0.03  # of the driver's time that it may take at most
PATIENCE = {"request": 60.0, "signal": 10.0}  # seconds that a stop waits for the steps under way

STORAGE_FAILURES = 4  # in a row, after which a sweep is given up: every other trial would fail as well

CURVES = "the sweep's curves in TensorBoard"

logger = logging.getLogger("raydistill")
TOLD_HERE = (  # in a line, not a traceback
    "ray.tune.execution.tune_controller",
    "ray.tune.execution.experiment_state",
    "ray.train._internal.storage",
    "ray.tune.tune",
)


class Watch(Callback):
    """Tells the storage what the trials do, and ends the sweep when it is asked to.

    Ray calls the methods with keywords: their parameters' names are Ray's.

    Args:
        config: the sweep.
        place: its folder or address.
        lease: of this driver; while it is not held nothing is written.
    """

    def __init__(self, config: SweepConfig, place: str, lease: Lease) -> None:
        self.config, self.place, self.lease = config, place, lease
        self.rows = Rows(place, config.budget.iterations)
        self.search: Any = None
        self.schema = index_schema(config)
        self.state: State = "running"
        self.mail = Mailbox(place, lambda: lease.held)
        self.journal = Journal(config.name)
        self.agreed = False
        self.board: Board | None = None  # also where it failed
        self.signalled: Callable[[], bool] = lambda: False
        self.trials: list[Any] = []
        self.changed = True
        self.due = 0.0
        self.failed = False  # to write, and said so
        self.may_stop = False
        self.stopped = False  # by somebody's wish
        self.storage_failures = 0  # in a row
        self.trouble = ""  # for which the sweep is given up
        self.deadline = 0.0
        self.told: set[str] = set()  # what trials said of their logs
        self.waiting: set[str] = set()  # trials whose step a stop waits for

    # What Tune tells.

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Before the first: a restored search and restored trials are brought together."""
        self.lease.check()
        if not self.agreed:
            self.agreed = True
            agree(self.search, trials)
            self.rows.finish(trials)
            with aside(CURVES):
                self.board = Board(self.place, self.config.objectives, len(self.rows.finished))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """As any other news; one that failed in an earlier driver may start again."""
        self.changed = True
        self.rows.finished.discard(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """As any other news."""
        self.changed = True
        self.rows.finished.add(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says which trial failed and why."""
        self.on_trial_complete(iteration, trials, trial)
        self._note_error(trial, "failed")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says which trial was lost or failed and is tried again."""
        done = (trial.last_result or {}).get("iterations", 0)
        again = "begins again" if trial.checkpoint is None else "goes on from its checkpoint"
        self._note_error(trial, f"was cut off after iteration {done} and {again}")

    def _note_error(self, trial: Any, what: str) -> None:
        """Gives the sweep up when the storage has failed its trials again and again, and nothing else came between."""
        error = last_error(trial)
        logger.warning("trial %s %s: %s", trial.trial_id, what, explain(error))
        self.storage_failures = self.storage_failures + 1 if is_of_storage(error) else 0
        if self.storage_failures >= STORAGE_FAILURES:
            self.trouble = explain(error)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """As any other news; once a stop is asked for, each result is followed by a checkpoint."""
        self.changed = True
        if (trouble := result.get(TROUBLE)) and trouble not in self.told:
            self.told.add(trouble)
            logger.warning("trial %s: %s", trial.trial_id, trouble)
        if self.state == "stopping":
            result[SHOULD_CHECKPOINT] = True

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """A step is in safety."""
        self.changed = True
        self.storage_failures = 0
        self.waiting.discard(trial.trial_id)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Many times a second: writes the index if it is time, and looks whether to stop.

        Raises:
            UserError: the storage has failed the trials again and again. A stop as others would have Tune wait for the
                storage to take its state, file by file.
        """
        self.trials = trials
        if self.trouble:
            again = typed(resuming(self.place))
            raise UserError(f"{self.place}: {self.trouble}; when that is mended, go on with {again}")
        now = time.monotonic()
        if self.changed and now >= self.due:
            self.write()
        if not self.stopped and self.may_stop and (self.mail.stop_asked or self.signalled()):
            self._begin_to_stop("request" if self.mail.stop_asked else "signal")
        if self.state == "stopping" and (now >= self.deadline or not self._under_way()):
            self.state = "testing"
            signal.raise_signal(signal.SIGUSR1)  # on which Tune keeps its state and ends

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """All there is to hear of a resumed sweep whose trials had ended."""
        self.trials = trials
        if not self.agreed:
            self.rows.finish(trials)

    def _begin_to_stop(self, by: str) -> None:
        self.state, self.stopped = "stopping", True
        self.waiting = {trial.trial_id for trial in self.trials if trial.status == "RUNNING"}
        self.deadline = time.monotonic() + PATIENCE[by]
        logger.warning("stopping; %d trials may finish the step they are in", len(self.waiting))
        self.write()

    def _under_way(self) -> set[str]:
        """Trials that run and have not kept a step since the stop was asked for."""
        return self.waiting & {trial.trial_id for trial in self.trials if trial.status == "RUNNING"}

    # What the storage is told.

    def write(self) -> None:
        """Sends the index, the journal and the log on their way; where that fails the sweep goes on without."""
        if self.lease.lost:
            return
        begin = time.monotonic()
        try:
            self._write()
        except Exception as error:  # whatever it is: hours of other people's work depend on this process
            if not self.failed:
                logger.warning("%s cannot be written; the sweep goes on: %r", INDEX, error)
            self.failed = True
        self.changed = False
        now = time.monotonic()
        self.due = now + min(max(EVERY, (now - begin) / SHARE), LONGEST)

    def _write(self) -> None:
        rows = self.rows.make(self.trials, self.state)
        about = About(
            name=self.config.name,
            state=self.state,
            objectives=self.config.objectives,
            searched=list(self.config.search),
            trials=self.config.budget.trials,
        )
        self.mail.put(INDEX, to_parquet(rows, self.schema, about))
        if self.search is not None:
            self.mail.grow(JOURNAL, self.journal.update(self.search._ot_study, self.search._ot_trials))
        if self.board is not None:
            board, self.board = self.board, None
            with aside(CURVES):
                for name, data in board.update(rows).items():
                    self.mail.put(name, data)
                self.board = board

    # The frame around it.

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it the first Ctrl-C or SIGTERM asks for a clean end, a second one ends at once.

        Afterwards the index says how it ended, and signals do what they did before. In other threads than the main
        one the sweep cannot be stopped: Tune listens in that one only.
        """
        self.may_stop = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGUSR1)
        levels = {name: logging.getLogger(name).level for name in TOLD_HERE}
        for name in TOLD_HERE:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        end: State = "failed"
        try:
            with stop_on_signals() as self.signalled:
                yield
            end = "stopped" if self.stopped else "done"
        except KeyboardInterrupt:
            end = "stopped"
            raise
        finally:
            if self.may_stop:  # Tune leaves its own
                signal.signal(signal.SIGUSR1, before)
            self.say(end)
            if not self.mail.close() and not self.lease.lost:
                logger.warning("%s: %s could not be written at the end", self.place, INDEX)
            if self.board is not None:
                with aside(CURVES):
                    self.board.close()
            for name, level in levels.items():  # last: Tune's own writing may go on failing for a while
                logging.getLogger(name).setLevel(level)

    def say(self, state: State, front: list[dict[str, Any]] | None = None) -> None:
        """Puts into the index where the sweep stands, and the front's artifacts where they are there."""
        self.state = state
        self.rows.show_front(front or [])
        self.write()
