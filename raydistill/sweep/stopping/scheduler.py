"""The scheduler that stops trials early and keeps the whole front: asynchronous successive halving."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raydistill.sweep.stopping.pareto import costs_of
from raydistill.sweep.stopping.ranking import Rung


class ParetoASHA(FIFOScheduler):
    """MO-ASHA (Schmucker et al. 2021, arXiv 2106.12639), the variant that stops trials and never pauses them.

    There are rungs at `grace` * `reduction` ** k iterations. When a trial first reaches one, its objectives are
    recorded there, and it continues if it is among the best 1 / `reduction` of what that rung has seen so far, by
    non-dominated sorting and, within a front, an epsilon-net (`raydistill.sweep.stopping.ranking`). So a small set is
    compared with small ones, and is not stopped because larger ones are more accurate. With one objective this is ASHA.

    A trial is recorded once in a rung, and only in the highest that it has reached; a result of one that was stopped
    before (its driver died before the stop was known) stops it again. A trial that diverged comes after all others.

    Args:
        objectives: name -> "max" or "min"; within a front the first has precedence.
        longest: iterations of a trial that is not stopped.
        grace: iterations before a trial may be stopped.
        reduction: at each rung the best 1 / reduction continue.
        time_attr: which value of a result counts the iterations.
    """

    def __init__(
        self,
        objectives: Mapping[str, str],
        longest: int,
        grace: int = 200,
        reduction: float = 3,
        time_attr: str = "iterations",
    ) -> None:
        super().__init__()
        self.objectives, self.time_attr = dict(objectives), time_attr
        places = (math.ceil(grace * reduction**k) for k in itertools.count())
        self.rungs = {at: Rung(reduction) for at in itertools.takewhile(lambda at: at < longest, places)}
        self.stopped: set[str] = set()
        self._live: dict[str, Trial] = {}

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Return STOP or CONTINUE for a result of a running trial."""
        if trial.trial_id in self.stopped or not self._continues(trial.trial_id, result):
            self.stopped.add(trial.trial_id)
        decision: str = TrialScheduler.STOP if trial.trial_id in self.stopped else TrialScheduler.CONTINUE
        return decision

    def _continues(self, trial: str, result: Mapping[str, Any]) -> bool:
        """Record the result where it is the trial's first in a rung; return whether the trial continues."""
        reached = max((at for at in self.rungs if at <= result.get(self.time_attr, 0)), default=None)
        if reached is None or not self.objectives.keys() <= result.keys():
            return True
        if any(trial in rung.costs for at, rung in self.rungs.items() if at >= reached):
            return True
        costs = costs_of([result], self.objectives)[0].tolist()
        return self.rungs[reached].add(trial, [math.inf] * len(costs) if result.get("diverged") else costs)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Record the last result: Tune gives one that says `done`, as of a trial that diverged, only here."""
        self._continues(trial.trial_id, result)
        self._live.pop(trial.trial_id, None)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Note a trial that is to run: a new one, or one that is retried or resumed."""
        if not trial.is_finished():
            self._live[trial.trial_id] = trial

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Forget a trial that failed. If it is retried, it is added again, behind those that wait."""
        self._live.pop(trial.trial_id, None)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Forget a trial that is given up before it runs."""
        self._live.pop(trial.trial_id, None)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Return the first trial that waits, else the first that is paused: as FIFO, but without those that ended."""
        for status in (Trial.PENDING, Trial.PAUSED):
            for trial in self._live.values():
                if trial.status == status:
                    return trial
        return None

    def debug_string(self) -> str:
        """Return one line on the rungs, for Tune's reports."""
        rungs = ", ".join(f"{len(rung.costs)} at {at}" for at, rung in self.rungs.items())
        return f"ParetoASHA on {', '.join(self.objectives)}: stopped {len(self.stopped)}; trials in rungs: {rungs}"

    def get_state(self) -> dict[str, Any]:
        """Return the results in the rungs and the trials that were stopped, in plain values."""
        return {"rungs": {at: dict(rung.costs) for at, rung in self.rungs.items()}, "stopped": sorted(self.stopped)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned of a scheduler with the same settings."""
        for at, costs in state["rungs"].items():
            self.rungs[at].costs = dict(costs)
        self.stopped = set(state["stopped"])


class SchedulerState(Callback):
    """A callback that keeps a scheduler's state: Tune saves the state of searchers and callbacks, not of schedulers.

    It must be pickled together with the scheduler, as Tuner does, so that both are restored as they belong.
    """

    def __init__(self, scheduler: ParetoASHA) -> None:
        self.scheduler = scheduler

    def get_state(self) -> dict[str, Any]:
        """Return the scheduler's state, each time Tune saves that of the sweep."""
        return self.scheduler.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state that was saved last, before the trials of a restored sweep are added."""
        self.scheduler.set_state(state)
