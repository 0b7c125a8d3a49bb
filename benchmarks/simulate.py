"""Sweeps on a simulated clock: real schedulers and a real search, on trials that are formulas or real distillations.

What a trial reports, and the seconds it takes, comes from the trial; when it is reported, from the clock of `slots`
machines. So no time goes into processes, and a machine that is busy otherwise does not change the result.
"""

import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from raydistill.config.sweep_config import SweepConfig
from raydistill.data import Dataset
from raydistill.runs.run import Run
from raydistill.sweep.searching.search_space import optuna_search
from raydistill.sweep.tuner import scheduler_of
from raydistill.system.errors import Diverged

Event = tuple[float, float, float]  # seconds of all slots together until then, accuracy, images
Report = tuple[dict[str, Any], float]  # a result, and the seconds since the one before
Curves = Callable[[dict[str, Any]], Iterator[Report]]  # settings -> the reports of a trial, made as they are asked for
CHANCE = 0.1
WORST = {"val_accuracy": 0.0, "val_loss": 1e6, "diverged": 1}


def formula(config: dict[str, Any], seed: int, iterations: int, every: int = 50) -> Iterator[Report]:
    """The reports of an invented trial, the same whenever it is asked for.

    In the long run 10 n images reach 1 - 0.45 n^-0.45, a little more with more epochs, and less the farther the rates
    are from the best ones, which differ with n. The way there goes as 1 - (1 + t / tau)^-1.5, slower for more images
    and smaller rates; large rates diverge. An iteration takes longer the more images and gradient steps there are.
    """
    c = config
    noise = np.random.default_rng([seed, *(int(1e6 * v) for v in c.values())])
    sets = c["images_per_class"] * c["steps"]
    inner = math.log10(c["inner_lr"]) - math.log10(0.05 * sets**0.3)
    outer = math.log10(c["outer_lr"]) - math.log10(0.02)
    reach = 1 - 0.45 * (1 - 0.15 * (c["epochs"] - 1) / 4) * sets**-0.45
    limit = CHANCE + (reach - CHANCE) * math.exp(-0.9 * inner**2 - 0.35 * outer**2) + 0.01 * noise.normal()
    tau = 60 * sets**0.35 * (0.02 / c["outer_lr"]) ** 0.5
    pace = 0.004 + 0.002 * c["steps"] * c["epochs"] * (1 + 0.3 * c["images_per_class"])  # seconds an iteration
    best = 0.0
    for t in range(every, iterations + 1, every):
        best = max(best, CHANCE + (limit - CHANCE) * (1 - (1 + t / tau) ** -1.5) + 0.008 * noise.normal())
        common = {"num_images": 10 * sets, "iterations": t, "seconds": t * pace}
        if c["outer_lr"] * c["inner_lr"] > 0.03 and t >= 100:
            yield common | WORST, every * pace
            return
        yield common | {"val_accuracy": best, "diverged": 0}, every * pace


class Distillations:
    """Real trials in this process, timed in seconds of the processor; each is made once and kept.

    Args:
        config: the sweep.
        data: the real data.
    """

    def __init__(self, config: SweepConfig, data: Dataset) -> None:
        self.config, self.data = config, data
        self._made: dict[tuple[Any, ...], tuple[list[Report], Iterator[Report]]] = {}

    def __call__(self, settings: dict[str, Any]) -> Iterator[Report]:
        """The reports of the trial with these settings."""
        key = tuple(settings.items())
        made, rest = self._made.setdefault(key, ([], self._trial(settings)))
        for i in itertools.count():
            if i == len(made):
                report = next(rest, None)
                if report is None:
                    return
                made.append(report)
            yield made[i]

    def _trial(self, settings: dict[str, Any]) -> Iterator[Report]:
        run = Run(self.config.trial_config(settings), self.data)
        while not run.done:
            start = time.process_time()
            try:
                run.advance()
                values = run.best_metrics | {"diverged": 0}
            except Diverged:
                values = WORST
            took = time.process_time() - start
            yield values | {"num_images": run.current.num_images, "iterations": run.iteration, "seconds": took}, took
            if values is WORST:
                return


@dataclass(eq=False)
class SimulatedTrial:
    """As much of Ray's Trial as schedulers see, and the reports to come."""

    trial_id: str
    reports: Iterator[Report]
    status: str = Trial.RUNNING

    def is_finished(self) -> bool:
        """As Trial's."""
        return self.status == Trial.TERMINATED


def simulated(
    config: SweepConfig, curves: Curves, sampler: str, seed: int, budget: float, slots: int
) -> tuple[list[Event], int, int]:
    """One sweep until the slots have together spent `budget` seconds.

    Args:
        config: its space, objectives, scheduler and iterations.
        curves: the trials.
        sampler: "random" or "tpe".
        seed: of the search.
        budget: seconds of all slots together.
        slots: trials at a time.

    Returns:
        what was reported and when; trials begun; trials that were stopped.
    """
    scheduler, search = scheduler_of(config), optuna_search(config.model_copy(update={"seed": seed}))
    if sampler == "random":
        search._ot_study.sampler = optuna.samplers.RandomSampler(seed=seed)
    events: list[Event] = []
    coming: list[tuple[float, str, SimulatedTrial, dict[str, Any]]] = []
    begun = stopped = 0

    def wait(now: float, trial: SimulatedTrial) -> None:
        result, seconds = next(trial.reports)
        heapq.heappush(coming, (now + seconds, trial.trial_id, trial, result))

    def begin(now: float) -> None:
        nonlocal begun
        begun, trial_id = begun + 1, f"{begun:06d}"
        trial = SimulatedTrial(trial_id, curves(search.suggest(trial_id)))
        scheduler.on_trial_add(None, trial)
        wait(now, trial)

    for _ in range(slots):
        begin(0.0)
    while True:
        now, _, trial, result = heapq.heappop(coming)
        if now * slots > budget:
            return events, begun, stopped
        events.append((now * slots, result["val_accuracy"], result["num_images"]))
        done = result["diverged"] or result["iterations"] >= config.budget.iterations
        if not done and scheduler.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE:
            search.on_trial_result(trial.trial_id, result)
            wait(now, trial)
            continue
        stopped += not done
        trial.status = Trial.TERMINATED
        scheduler.on_trial_complete(None, trial, result)
        search.on_trial_complete(trial.trial_id, result)
        begin(now)


def hypervolume(points: Iterable[Sequence[float]], reference: Sequence[float]) -> float:
    """The area that points [x, y], both to be small, beat within the reference point. Exact."""
    area, lowest = 0.0, reference[1]
    for x, y in sorted((x, y) for x, y in points if x < reference[0]):
        if y < lowest:
            area += (reference[0] - x) * (lowest - y)
            lowest = y
    return area


def quality(events: Iterable[Event], until: float, most_images: float) -> float:
    """The hypervolume of what was found in `until` seconds, as a fraction of the whole.

    Accuracy counts from chance to 1; the number of images from 10 to `most_images`, by its logarithm.
    """
    unit = math.log(most_images / 10)
    points = [(math.log(images / 10) / unit, 1 - accuracy) for seconds, accuracy, images in events if seconds <= until]
    return hypervolume(points, (1.0, 1 - CHANCE)) / (1 - CHANCE)
