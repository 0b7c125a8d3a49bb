"""The events of a running sweep, handed to the parts that report it, stop it, or give it up."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune import Callback
from ray.tune.result import SHOULD_CHECKPOINT

from raydistill.config.sweep_config import SweepConfig
from raydistill.private_api.tune_trials import last_error
from raydistill.sweep.error_reasons import explain
from raydistill.sweep.reporting.index import State
from raydistill.sweep.reporting.index_writer import IndexWriter
from raydistill.sweep.reporting.quiet_loggers import quiet_loggers
from raydistill.sweep.searching.trial import LOG_TROUBLE
from raydistill.sweep.stopping.sweep_stop import SweepStop
from raydistill.sweep.surviving.lease import Lease
from raydistill.sweep.surviving.storage_failures import StorageFailures

logger = logging.getLogger("raydistill")


class Watch(Callback):
    """Tune's callback of a sweep, which hands each event to the parts that it concerns.

    Ray calls the methods with keywords: their parameters' names are Ray's.

    Args:
        config: the sweep.
        place: its folder or address.
        lease: of this driver, which ends when it is lost.
        signalled: returns whether the user of this process wants the sweep to stop.
    """

    def __init__(
        self, config: SweepConfig, place: str, lease: Lease, signalled: Callable[[], bool] = lambda: False
    ) -> None:
        self.lease = lease
        self.index = IndexWriter(config, place, lease)
        self.stop = SweepStop(lambda: self.index.storage.stop_asked, signalled)
        self.storage_failures = StorageFailures(place)
        self.begun = False
        self.logged: set[str] = set()  # Troubles with trials' logs that were reported.

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """End the driver if its lease is lost; the first step also begins the index."""
        self.lease.check()
        if not self.begun:
            self.begun = True
            self.index.begin(trials)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a trial that starts, perhaps again after it failed in an earlier driver."""
        self.index.pace.changed = True
        self.index.rows.finished.discard(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note a trial that ended."""
        self.index.pace.changed = True
        self.index.rows.finished.add(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Log which trial failed and why."""
        self.on_trial_complete(iteration, trials, trial)
        self._note_error(trial, "failed")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Log which trial was lost or failed and is tried again."""
        done = (trial.last_result or {}).get("iterations", 0)
        again = "starts again" if trial.checkpoint is None else "continues from its checkpoint"
        self._note_error(trial, f"was cut off after iteration {done} and {again}")

    def _note_error(self, trial: Any, what: str) -> None:
        error = last_error(trial)
        logger.warning("trial %s %s: %s", trial.trial_id, what, explain(error))
        self.storage_failures.note(error)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Note a result, which is followed by a checkpoint once a stop is under way, and log a new gap in a log."""
        self.index.pace.changed = True
        if (trouble := result.get(LOG_TROUBLE)) and trouble not in self.logged:
            self.logged.add(trouble)
            logger.warning("trial %s: %s", trial.trial_id, trouble)
        if self.stop.under_way:
            result[SHOULD_CHECKPOINT] = True

    def on_checkpoint(self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any) -> None:
        """Note that a step of a trial is saved."""
        self.index.pace.changed = True
        self.storage_failures.checkpoint_written()
        self.stop.checkpoint_written(trial.trial_id)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Many times a second: write the index if it is time, and begin or end a stop if somebody asked for one.

        Raises:
            UserError: the storage has failed the trials again and again.
        """
        self.index.trials = trials
        self.storage_failures.check()
        if self.index.pace.due:
            self.index.write()
        if self.stop.begin_if_asked(trials):
            self.index.say("stopping")
        if self.stop.end_if_ready(trials):
            self.index.state = "testing"

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Note the trials, of which a resumed sweep shows no other event where all had ended before."""
        self.index.trials = trials
        if not self.begun:
            self.index.rows.finish(trials)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Listen to signals within it, and write afterwards how the sweep ended."""
        end: State = "failed"
        with quiet_loggers():  # They stay quiet to the end, as Tune's own writing may continue to fail.
            try:
                with self.stop.listening():
                    yield
                end = "stopped" if self.stop.begun else "done"
            except KeyboardInterrupt:
                end = "stopped"
                raise
            finally:
                self.index.end(end)
