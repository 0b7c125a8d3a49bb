"""Optuna's study as a journal that optuna-dashboard opens, on any storage.

The study that suggests points is in the driver's memory, and Tune saves it together with its table of trials, so that a
resumed sweep finds both as they were at one moment. The file in the storage is a copy in Optuna's own journal format. A
driver only appends to it, and a resumed driver writes it anew from the restored study. The copy is never read back.
"""

import json
from itertools import islice
from typing import Any

import optuna
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from raydistill.private_api.optuna import JournalWriter, asked_trials, enter_trial, study_of, told_trials

JOURNAL = "optuna.log"


class _Lines(BaseJournalBackend):
    """A backend of JournalStorage that returns to the driver what was written since the driver last asked."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []
        self.taken = 0

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Keep the logs until the next `take`."""
        self.logs += logs

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Return the logs from a number on; JournalStorage reads each one right after it wrote it."""
        return self.logs[log_number_from - self.taken :]

    def take(self) -> bytes:
        """Return the logs since the last call, as lines of JSON."""
        logs, self.logs = self.logs, []
        self.taken += len(logs)
        return "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()


class Journal:
    """The journal of a study, with what it holds already.

    Args:
        name: of the study in the journal.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines = _Lines()
        self.writer: JournalWriter | None = None  # It exists from the first trial on.
        self.seen = 0  # How many of the study's trials were looked at.
        self.trials_seen = 0  # How many of Ray's trials were looked at.
        self.names: dict[int, str] = {}  # Ray's trial by its number in the study, until it is written.
        # By number the id in the journal (-1 for none) and the values written.
        self.open: dict[int, tuple[int, int]] = {}

    def update(self, study: optuna.Study, trials: dict[str, optuna.Trial]) -> bytes:
        """Return the lines that the journal lacks of the study.

        Args:
            study: the one in memory.
            trials: those that Ray began, by Ray's identifier, in the order in which they were suggested.
        """
        if self.writer is None:
            self.writer = JournalWriter(self.lines, self.name, study.directions)
        self.names |= {trial.number: name for name, trial in islice(trials.items(), self.trials_seen, None)}
        self.trials_seen = len(trials)
        all_trials = study.get_trials(deepcopy=False)
        self.open |= dict.fromkeys(range(self.seen, len(all_trials)), (-1, 0))
        self.seen = len(all_trials)
        for number in list(self.open):
            self._write(all_trials[number], self.writer)
        return self.lines.take()

    def _write(self, trial: FrozenTrial, writer: JournalWriter) -> None:
        """Write what is new of a trial that was not finished at the last call."""
        identity, reported = self.open[trial.number]
        if identity < 0:
            if trial.state == TrialState.WAITING:  # A known good point that was not suggested yet.
                return
            attributes = trial.user_attrs | {"trial": self.names.pop(trial.number, "of a population")}
            self.open[trial.number] = writer.add_trial(trial, attributes), len(trial.intermediate_values)
        else:
            for step, value in islice(trial.intermediate_values.items(), reported, None):
                writer.report(identity, step, value)
            self.open[trial.number] = identity, len(trial.intermediate_values)
            if trial.state.is_finished():
                writer.finish(identity, trial.state, trial.values)
        if trial.state.is_finished():
            del self.open[trial.number]


def agree(search: Any, trials: list[Any]) -> None:
    """Make a restored search and Tune's restored trials agree, as the driver may have died between writing the two.

    A trial that only Optuna knows is reported to it as failed, because it would run for ever otherwise. A trial that
    only Tune knows is added to the study. A trial that has finished for Tune alone is reported as finished.

    Args:
        search: the OptunaSearch.
        trials: Tune's.
    """
    study = study_of(search)
    known = {trial.trial_id for trial in trials}
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    for name, asked in asked_trials(search).items():
        if name not in known and not states[asked.number].is_finished():
            study.tell(asked.number, state=TrialState.FAIL)
    for trial in trials:
        if trial.trial_id not in asked_trials(search):
            enter_trial(search, trial.trial_id, trial.config)
        if trial.is_finished() and trial.trial_id not in told_trials(search):
            result = trial.last_result if "iterations" in (trial.last_result or {}) else None
            search.on_trial_complete(trial.trial_id, result, error=trial.status == "ERROR")
