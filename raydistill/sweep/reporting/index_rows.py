"""A sweep's trials, as Tune has them, as rows of the index."""

import os
from datetime import UTC, datetime
from typing import Any

from raydistill.sweep.reporting.index import ENDED, FINISHED, METRICS, State
from raydistill.sweep.reporting.result import searched_settings
from raydistill.sweep.searching.trial import BEST
from raydistill.system.storage import is_local, join


class Rows:
    """Makes the rows, each once more only as long as it can change.

    Args:
        place: the sweep's folder or address.
        iterations: of a whole trial.
    """

    def __init__(self, place: str, iterations: int) -> None:
        self.place, self.iterations = anywhere(place), iterations
        self.finished: set[str] = set()  # trials of which Tune said so
        self.front: dict[str, str] = {}  # trial -> artifact
        self._done: dict[str, dict[str, Any]] = {}

    def finish(self, trials: list[Any]) -> None:
        """Notes which of the trials Tune holds for finished, as a restored sweep has them."""
        self.finished = {trial.trial_id for trial in trials if trial.is_finished()}

    def show_front(self, front: list[dict[str, Any]]) -> None:
        """From now on the front's trials point to their tested artifacts."""
        self.front |= {row["trial"]: anywhere(row["artifact"]) for row in front}

    def make(self, trials: list[Any], state: State) -> list[dict[str, Any]]:
        """One for each trial, in their order; `state` is the sweep's."""
        if state in ENDED:
            self._done.clear()
        return [self._done.get(trial.trial_id) or self._row(trial, state) for trial in trials]

    def _row(self, trial: Any, state: State) -> dict[str, Any]:
        last = trial.last_result or {}
        row = {name: last.get(name) for name in METRICS} | (
            searched_settings(last) if "config" in last else trial.config
        )
        row |= {"trial": trial.trial_id, "status": self._status(trial, state), "node": last.get("node_ip")}
        row["diverged"] = bool(last["diverged"]) if "diverged" in last else None
        row["time"] = datetime.fromtimestamp(last["timestamp"], UTC) if "timestamp" in last else None
        row["artifact"] = self.front.get(trial.trial_id) or self._newest(trial)
        if row["status"] in FINISHED:
            self._done[trial.trial_id] = row
        return row

    def _newest(self, trial: Any) -> str | None:
        """The best set in the newest checkpoint."""
        if trial.checkpoint is None:
            return None
        *_, folder, checkpoint = trial.checkpoint.path.rstrip("/").split("/")
        return join(self.place, folder, checkpoint, BEST)

    def _status(self, trial: Any, state: State) -> str:
        last = trial.last_result or {}
        begun = "iterations" in last
        if trial.status == "TERMINATED" and trial.trial_id in self.finished:
            whole = last.get("diverged") or (begun and last["iterations"] >= self.iterations)
            return "TERMINATED" if whole else "STOPPED"
        if trial.status == "TERMINATED" or (trial.status == "RUNNING" and state in ENDED):
            return "PAUSED" if begun else "PENDING"  # Tune ends those too that it would go on with
        return str(trial.status)


def anywhere(place: str) -> str:
    """A place by a name that is right in any working directory."""
    return os.path.abspath(place) if is_local(place) else place
