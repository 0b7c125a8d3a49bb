"""What a sweep's driver reports while it runs, and when: the index, Optuna's journal, the sweep's curves."""

import logging
import time
from typing import Any

from raydistill.config.sweep_config import SweepConfig
from raydistill.private_api.optuna import asked_trials, study_of
from raydistill.sweep.reporting.index import INDEX, About, State, index_schema, to_parquet
from raydistill.sweep.reporting.index_rows import Rows
from raydistill.sweep.reporting.journal import JOURNAL, Journal, agree
from raydistill.sweep.reporting.storage_writer import StorageWriter
from raydistill.sweep.reporting.sweep_tensorboard import SweepTensorBoard
from raydistill.sweep.surviving.lease import Lease
from raydistill.sweep.trial_row import TrialRow

EVERY = 4.0  # The least seconds between two writings of the index while results come in.
LONGEST = 60.0  # The most seconds between two, even if a writing takes long (the first after a resume may).
SHARE = 0.03  # The share of the driver's time that writing may take.

logger = logging.getLogger("raydistill")


class Pace:
    """Decides when it is time to write: after a change, and seldom enough to take only a small part of the time."""

    def __init__(self) -> None:
        self.changed = True
        self.next = 0.0  # Seconds on the clock of time.monotonic.

    @property
    def due(self) -> bool:
        """Whether something changed and the pause after the last writing is over."""
        return self.changed and time.monotonic() >= self.next

    def wrote(self, seconds: float) -> None:
        """Begin the pause after a writing that took so many seconds."""
        self.changed = False
        self.next = time.monotonic() + min(max(EVERY, seconds / SHARE), LONGEST)


class IndexWriter:
    """Writes the index, the journal and the curves of one sweep through the thread of `storage`.

    Where that fails a line says so, once, and the sweep continues without.

    Args:
        config: the sweep.
        place: its folder or address.
        lease: of this driver; once it is lost nothing is written.
    """

    def __init__(self, config: SweepConfig, place: str, lease: Lease) -> None:
        self.config, self.place, self.lease = config, place, lease
        self.storage = StorageWriter(place, lambda: lease.held)
        self.trials: list[Any] = []  # Tune's
        self.state: State = "running"
        self.rows = Rows(place, config.budget.iterations)
        self.schema = index_schema(config)
        self.search: Any = None  # The OptunaSearch, once the sweep has begun.
        self.journal = Journal(config.name)
        self.curves: SweepTensorBoard | None = None
        self.pace = Pace()
        self.failed = False

    def begin(self, trials: list[Any]) -> None:
        """Make a restored search and restored trials agree, and begin the curves where an earlier driver ended."""
        agree(self.search, trials)
        self.rows.finish(trials)
        self.curves = SweepTensorBoard(self.place, self.config.objectives, len(self.rows.finished))

    def current_rows(self) -> list[TrialRow]:
        """Return a row for each trial, as the sweep stands now."""
        return self.rows.make(self.trials, self.state)

    def say(self, state: State, front: list[TrialRow] | None = None) -> None:
        """Write a new state of the sweep, and the front's artifacts if they are given."""
        self.state = state
        self.rows.show_front(front or [])
        self.write()

    def write(self) -> None:
        """Write everything now."""
        if self.lease.lost:
            return
        begin = time.monotonic()
        try:
            self._write()
        except Exception as error:  # No error of a writing may end hours of other people's work.
            if not self.failed:
                logger.warning("%s cannot be written; the sweep continues: %r", INDEX, error)
            self.failed = True
        self.pace.wrote(time.monotonic() - begin)

    def _write(self) -> None:
        rows = self.current_rows()
        about = About(
            name=self.config.name,
            state=self.state,
            objectives=self.config.objectives,
            searched=list(self.config.search),
            trials=self.config.budget.trials,
        )
        self.storage.put(INDEX, to_parquet(rows, self.schema, about))
        if self.search is not None:
            self.storage.grow(JOURNAL, self.journal.update(study_of(self.search), asked_trials(self.search)))
        if self.curves is not None:
            for name, data in self.curves.update(rows).items():
                self.storage.put(name, data)

    def end(self, state: State) -> None:
        """Write how the sweep ended, wait until all is written, and close the curves."""
        self.say(state)
        if not self.storage.close() and not self.lease.lost:
            logger.warning("%s: %s could not be written at the end", self.place, INDEX)
        if self.curves is not None:
            self.curves.close()
