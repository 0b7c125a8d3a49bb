"""Rows made of Tune's trials: the only place that makes a `TrialRow` of a trial."""

import os
from datetime import UTC, datetime
from typing import Any

from raydistill.sweep.reporting.index import ENDED, State
from raydistill.sweep.searching.trial import BEST
from raydistill.sweep.trial_row import Status, TrialRow
from raydistill.system.storage import is_local, join


class Rows:
    """Makes the rows of all trials, and those of finished trials only once.

    Args:
        place: the sweep's folder or address.
        iterations: how many a whole trial does.
    """

    def __init__(self, place: str, iterations: int) -> None:
        self.place, self.iterations = anywhere(place), iterations
        self.finished: set[str] = set()  # Trials that Tune reported as finished.
        self.front: dict[str, str] = {}  # The artifact of each trial.
        self._done: dict[str, TrialRow] = {}

    def finish(self, trials: list[Any]) -> None:
        """Note which trials of a restored sweep had finished before."""
        self.finished = {trial.trial_id for trial in trials if trial.is_finished()}

    def show_front(self, front: list[TrialRow]) -> None:
        """Let the rows of the front's trials name their tested artifacts from now on."""
        self.front |= {row.trial: anywhere(row.artifact) for row in front if row.artifact is not None}

    def make(self, trials: list[Any], state: State) -> list[TrialRow]:
        """Return one row for each trial, in the same order.

        Args:
            trials: Tune's.
            state: of the sweep.
        """
        if state in ENDED:
            self._done.clear()
        return [self._done.get(trial.trial_id) or self._row(trial, state) for trial in trials]

    def _row(self, trial: Any, state: State) -> TrialRow:
        last = trial.last_result or {}
        row = TrialRow(
            trial=trial.trial_id,
            status=self._status(trial, state),
            config=searched_settings(last) if "config" in last else trial.config,
            node=last.get("node_ip"),
            diverged=bool(last["diverged"]) if "diverged" in last else None,
            time=datetime.fromtimestamp(last["timestamp"], UTC) if "timestamp" in last else None,
            artifact=self.front.get(trial.trial_id) or self._newest(trial),
            val_accuracy=last.get("val_accuracy"),
            val_accuracy_std=last.get("val_accuracy_std"),
            val_loss=last.get("val_loss"),
            num_images=last.get("num_images"),
            grad_steps=last.get("grad_steps"),
            iterations=last.get("iterations"),
            seconds=last.get("seconds"),
        )
        if row.finished:
            self._done[trial.trial_id] = row
        return row

    def _newest(self, trial: Any) -> str | None:
        """Return the place of the best set of the newest checkpoint."""
        if trial.checkpoint is None:
            return None
        *_, folder, checkpoint = trial.checkpoint.path.rstrip("/").split("/")
        return join(self.place, folder, checkpoint, BEST)

    def _status(self, trial: Any, state: State) -> Status:
        last = trial.last_result or {}
        begun = "iterations" in last
        if trial.status == "TERMINATED" and trial.trial_id in self.finished:
            whole = last.get("diverged") or (begun and last["iterations"] >= self.iterations)
            return "TERMINATED" if whole else "STOPPED"
        if trial.status == "TERMINATED" or (trial.status == "RUNNING" and state in ENDED):
            return "PAUSED" if begun else "PENDING"  # Tune also ends those that a resume will continue
        status: Status = trial.status
        return status


def searched_settings(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the searched settings of a trial's best set; of a population those of its best member."""
    config: dict[str, Any] = metrics["config"]
    members, best = metrics.get("members", [{}]), metrics.get("best_member", 0)
    member = members[best] if best < len(members) else {}  # A trial that diverged reports no members.
    return {name: member.get(name, value) for name, value in config.items()}


def anywhere(place: str) -> str:
    """Return a name of the place that is right in any working directory."""
    return os.path.abspath(place) if is_local(place) else place
