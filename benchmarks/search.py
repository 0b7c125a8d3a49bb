"""How good a front sweeps find in the same trial-seconds: without stopping, with ASHA on accuracy, with ParetoASHA.

    uv run python benchmarks/search.py              # all, about a quarter of an hour on one core
    uv run python benchmarks/search.py synthetic    # or one of: synthetic, many, digits, time

Writes benchmarks/results/DATE-search-PART.md. The trials run on a simulated clock (benchmarks/simulate.py): those of
`synthetic` and `many` are formulas, those of `digits` real distillations of sweeps/digits.yaml with fewer iterations.
`time` is the time a scheduler takes for each result.
"""

import datetime
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.tune.schedulers import ASHAScheduler
from record import RESULTS, commit, device_name
from simulate import Curves, Distillations, SimulatedTrial, formula, quality, simulated

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import read_yaml, validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.data import load_dataset
from raydistill.sweep.stopping.scheduler import ParetoASHA

SPACE = {
    "images_per_class": {"int": [1, 5]},
    "steps": {"int": [1, 10]},
    "epochs": {"int": [1, 5]},
    "inner_lr": {"loguniform": [0.001, 1.0]},
    "outer_lr": {"loguniform": [0.002, 0.2]},
}
STOPPING = {"none": "no stopping", "asha": "ASHA on accuracy", "pareto_asha": "ParetoASHA"}
SAMPLERS = {"random": "random search", "tpe": "Optuna's TPE"}
MARKS = (0.125, 0.25, 0.5, 1.0)


def main() -> None:
    """See the module's docstring."""
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], list[str]]] = {"synthetic": synthetic, "many": many, "digits": digits, "time": pace}
    chosen = sys.argv[1:] or list(parts)
    if unknown := set(chosen) - set(parts):
        sys.exit(f"{', '.join(unknown)}: should be of {', '.join(parts)}")
    for name in chosen:
        start = time.perf_counter()
        lines = parts[name]()
        print("\n".join(lines), flush=True)
        about = f"# Search: {name}\n\n    python benchmarks/search.py {name}\n\n"
        today = datetime.date.today().isoformat()
        about += f"{today}, {device_name()}, commit {commit()}; {time.perf_counter() - start:.0f} s.\n\n"
        (RESULTS / f"{today}-search-{name}.md").write_text(about + "\n".join(lines) + "\n")


def synthetic() -> list[str]:
    """A sweep's usual size: as much time as 32 trials of 4,000 iterations take, on 8 slots."""
    arms = [(sampler, stopping) for sampler in SAMPLERS for stopping in STOPPING]
    return compared(arms, synthetic_sweep, 32, slots=8, seeds=10, most_images=1000)


def many() -> list[str]:
    """Thousands of trials, by random search."""
    return compared([("random", s) for s in STOPPING], synthetic_sweep, 600, slots=64, seeds=3, most_images=1000)


def synthetic_sweep(stopping: str, seed: int) -> tuple[SweepConfig, Curves, float]:
    """A sweep over formulas, its trials, and the mean seconds of one that is not stopped."""
    config = sweep_config(stopping, {"name": "synthetic", "search": SPACE}, 200, {"iterations": 4000})
    return config, functools.partial(formula, seed=seed, iterations=4000), 264.0


def digits() -> list[str]:
    """The sweep of digits with 120 iterations: as much time as 16 trials take, one at a time."""
    arms = [("random", "none"), ("random", "asha"), ("random", "pareto_asha"), ("tpe", "asha"), ("tpe", "pareto_asha")]
    return compared(arms, digits_sweep(), 16, slots=1, seeds=3, most_images=120)


def digits_sweep() -> Callable[[str, int], tuple[SweepConfig, Curves, float]]:
    """As `synthetic_sweep`, with real trials, which the arms share where they try the same settings."""
    values = read_yaml(Path(__file__).parents[1] / "sweeps" / "digits.yaml")
    values |= {"base": values["base"] | {"eval_every": 20}, "known_good": []}
    budget = {"iterations": 120}
    real = Distillations(sweep_config("none", values, 20, budget), load_dataset(DistillConfig(dataset="digits")))
    middle = {"images_per_class": 1, "steps": 2, "epochs": 2, "inner_lr": 0.1, "outer_lr": 0.03}
    whole = sum(seconds for _, seconds in real(middle))
    return lambda stopping, seed: (sweep_config(stopping, values, 20, budget), real, whole)


def sweep_config(stopping: str, values: dict[str, Any], grace: int, budget: dict[str, int]) -> SweepConfig:
    """A sweep with this scheduler."""
    scheduler = stopping if stopping == "none" else {stopping: {"grace": grace, "reduction": 3}}
    return validated(SweepConfig, values | {"scheduler": scheduler, "budget": budget})


def compared(
    arms: list[tuple[str, str]],
    sweep: Callable[[str, int], tuple[SweepConfig, Curves, float]],
    trials: int,
    slots: int,
    seeds: int,
    most_images: float,
) -> list[str]:
    """The table: for each search and scheduler the hypervolume at fractions of the budget, over the seeds.

    Args:
        arms: sampler and scheduler.
        sweep: (scheduler, seed) -> the sweep, its trials, and the seconds of one that is not stopped.
        trials: the budget, in trials that are not stopped.
        slots: trials at a time.
        seeds: runs of each.
        most_images: the reference point of the hypervolume.
    """
    whole = sweep("none", 0)[2]
    budget = trials * whole
    lines = [
        f"Hypervolume of accuracy (from chance) and images (logarithm, 10 to {most_images:g}), % of the whole, after "
        f"so many trial-seconds; mean ± standard error of {seeds} seeds. {budget:,.0f} s are about {trials} trials "
        f"that are not stopped; {slots} at a time.",
        "",
        "| search | stopping | " + " | ".join(f"{budget * f:,.0f} s" for f in MARKS) + " | trials | stopped |",
        "|---|---|" + "---:|" * (len(MARKS) + 2),
    ]
    for sampler, stopping in arms:
        rows, counts = [], []
        for seed in range(seeds):
            config, curves, _ = sweep(stopping, seed)
            events, begun, stopped = simulated(config, curves, sampler, seed, budget, slots)
            rows.append([100 * quality(events, budget * f, most_images) for f in MARKS])
            counts.append((begun, stopped))
        means, errors = np.mean(rows, 0), np.std(rows, 0, ddof=1) / np.sqrt(seeds)
        begun, stopped = np.mean(counts, 0)
        cells = " | ".join(f"{m:.1f} ± {e:.1f}" for m, e in zip(means, errors, strict=True))
        lines.append(f"| {SAMPLERS[sampler]} | {STOPPING[stopping]} | {cells} | {begun:.0f} | {stopped:.0f} |")
        print(lines[-1], flush=True)
    return lines


def pace() -> list[str]:
    """The time of `on_trial_result`, for one rung that all trials reach."""
    lines = [
        "Microseconds of the processor for a result that reaches a rung, mean over the second half of so many trials.",
        "",
        "| scheduler | results | 100 | 1,000 | 10,000 |",
        "|---|---|---:|---:|---:|",
    ]
    rng = np.random.default_rng(0)
    images = 10.0 * rng.integers(1, 51, 10_000)
    accuracy = 1 - 0.45 * (images / 10) ** -0.45 - 0.4 * rng.random(10_000)
    two = {"val_accuracy": "max", "num_images": "min"}
    cases: list[tuple[str, str, Any, np.ndarray[Any, Any]]] = [
        ("ParetoASHA", "as a sweep's, 2 objectives", two, np.stack([accuracy, images], 1)),
        ("ParetoASHA", "random, 2", two, rng.random((10_000, 2))),
        ("ParetoASHA", "all on one front, 2", two, np.repeat(rng.random((10_000, 1)), 2, axis=1)),
        ("ParetoASHA", "random, 1", {"val_accuracy": "max"}, accuracy[:, None]),
        ("ParetoASHA", "random, 3", two | {"seconds": "min"}, rng.random((10_000, 3))),
        ("Ray's ASHA", "random, 1", None, accuracy[:, None]),
    ]
    for name, what, objectives, values in cases:
        names = list(objectives or ["val_accuracy"])
        scheduler = ParetoASHA(objectives, 10_000) if objectives else ray_asha()
        taken = list(timed(scheduler, [dict(zip(names, row, strict=True)) for row in values.tolist()]))
        cells = [f"{1e6 * statistics.fmean(taken[n // 2 : n]):.0f}" for n in (100, 1000, 10_000)]
        lines.append(f"| {name} | {what} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def ray_asha() -> ASHAScheduler:
    """Ray's, with one rung."""
    return ASHAScheduler("iterations", "val_accuracy", "max", max_t=1000, grace_period=200, reduction_factor=3)


def timed(scheduler: Any, results: list[dict[str, float]]) -> Iterator[float]:
    """The seconds that each result takes."""
    for i, values in enumerate(results):
        trial = SimulatedTrial(f"{i:06d}", iter(()))
        scheduler.on_trial_add(None, trial)
        start = time.process_time()
        scheduler.on_trial_result(None, trial, values | {"iterations": 200})
        yield time.process_time() - start


if __name__ == "__main__":
    main()
