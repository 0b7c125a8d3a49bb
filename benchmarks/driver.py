"""What the driver of a sweep costs for each result: thousands of trials whose steps take no time, on real Ray Tune.

    uv run python benchmarks/driver.py --trials 1000 10000

The trials report made-up learning curves under our own trials' names, nine results each unless they are stopped early,
from `--slots` processes. Search, scheduler, index, journal and Tune's own records are those of a real sweep, so what
the driver computes for a result says how fast results may come in before trials wait. That is counted in time on a
core, of the whole process and of its parts, so that other work on the machine does not count. Writes
benchmarks/results/DATE-driver.md, or DATE-driver-random.md.
"""

import argparse
import datetime
import logging
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
from ray import tune
from record import RESULTS, commit, device_name

from raydistill.cluster.private_ray import start_private_ray
from raydistill.config.settings import validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.sweep.reporting.watch import Watch
from raydistill.sweep.surviving.lease import leased
from raydistill.sweep.surviving.retries import failures_judged
from raydistill.sweep.surviving.tune_state import Bookkeeper, tune_state_amended
from raydistill.sweep.tuner import attend, fresh_tuner

STEPS = 9
SEARCH = {
    "images_per_class": {"int": [1, 5]},
    "steps": {"int": [1, 10]},
    "epochs": {"int": [1, 5]},
    "inner_lr": {"loguniform": [0.001, 0.5]},
    "outer_lr": {"loguniform": [0.001, 0.1]},
}
PARTS = {  # whose methods the driver calls, one after the other, for each trial or result
    "search: next point": ("search", "suggest"),
    "search: told of an end": ("search", "on_trial_complete"),
    "scheduler: told of a result": ("scheduler", "on_trial_result"),
    "index, journal and log": ("watch", "on_step_end"),
    "copy of Tune's state": ("books", "on_step_begin"),
}


class QuickTrial(tune.Trainable):
    """A learning curve that rises towards what the settings allow, in steps that take no time."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begins with these settings."""
        self.settings, self.at = config, 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins with other settings."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The next point of the curve."""
        self.at += 1
        images = 10 * self.settings["images_per_class"] * self.settings["steps"]
        best = 0.98 - 0.5 / images - 10 * abs(self.settings["inner_lr"] - 0.05) ** 2
        accuracy = max(0.0, best * (1 - 0.8**self.at))
        result = {"val_accuracy": accuracy, "val_loss": 1 - accuracy, "num_images": images, "iterations": self.at}
        return result | {"seconds": float(self.at), "diverged": 0, "done": self.at == STEPS}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Next to nothing: a real trial's checkpoint is written in the trial's own time."""
        Path(checkpoint_dir, "at").write_text(str(self.at))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Goes on from one."""
        self.at = int(Path(checkpoint, "at").read_text())


class Progress(tune.Callback):
    """Says how far it is, as ten thousand trials take an hour."""

    def __init__(self) -> None:
        self.ended, self.begin = 0, time.process_time()

    def on_trial_complete(self, **info: Any) -> None:
        """Counts."""
        self.ended += 1
        if self.ended % 1000 == 0:
            print(f"{self.ended:,} trials: {time.process_time() - self.begin:,.0f} s on a core", flush=True)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--random", action="store_true", help="search at random: what all but the search costs")
    options = parser.parse_args()
    start_private_ray(num_cpus=options.slots, log_to_driver=False, logging_level=logging.ERROR)
    rows = [measure(trials, options.random) for trials in options.trials]
    lines = [f"| | {' | '.join(f'{n:,} trials' for n in options.trials)} |", "|---|" + "---|" * len(rows)]
    lines += [f"| {name} | {' | '.join(f'{row[name]:,.4g}' for row in rows)} |" for name in rows[0]]
    print("\n".join(lines))
    today = datetime.date.today().isoformat()
    command = f"    python benchmarks/driver.py {shlex.join(sys.argv[1:])}\n\n"
    about = f"{today}, {device_name()}, torch {torch.__version__}, ray {ray.__version__}, commit {commit()}.\n\n"
    name = f"{today}-driver{'-random' if options.random else ''}.md"
    (RESULTS / name).write_text(f"# The driver\n\n{command}{about}" + "\n".join(lines) + "\n")


def measure(trials: int, random: bool) -> dict[str, float]:
    """Runs that many trials, searched by TPE or at random; seconds and, for each part, milliseconds a result."""
    with tempfile.TemporaryDirectory() as folder, leased(f"{folder}/driver") as lease:
        values = {"name": "driver", "base": {"dataset": "digits"}, "search": SEARCH, "storage": folder}
        scheduler = {"scheduler": {"pareto_asha": {"grace": 1, "reduction": 3}}}
        config = validated(SweepConfig, values | scheduler | {"budget": {"trials": trials, "iterations": STEPS}})
        watch, books = Watch(config, lease.place, lease), Bookkeeper(lease.place, lease)
        tuner = fresh_tuner(config, tune.with_resources(QuickTrial, {"CPU": 1}))
        attend(tuner, watch, [books, Progress()])
        settings = tuner._local_tuner._tune_config
        if random:
            settings.search_alg._ot_study.sampler = optuna.samplers.RandomSampler(seed=0)
        spent: dict[str, float] = defaultdict(float)
        calls: dict[str, int] = defaultdict(int)
        parts = {"search": settings.search_alg, "scheduler": settings.scheduler, "watch": watch, "books": books}
        begin, computed = time.perf_counter(), time.process_time()
        with ExitStack() as stack:
            for name, (part, method) in PARTS.items():
                stack.enter_context(timed(type(parts[part]), method, name, spent, calls))
            for context in (watch.running(), failures_judged(0), tune_state_amended(lease)):
                stack.enter_context(context)
            results = tuner.fit()
        seconds, computed = time.perf_counter() - begin, time.process_time() - computed
    assert len(results) == trials
    told = calls["scheduler: told of a result"]
    row = {"results": told, "seconds": seconds, "driver's seconds on a core": computed}
    parts_of = {"all in all": computed} | {name: spent[name] for name in PARTS}
    return row | {f"{name}, ms a result": 1000 * part / told for name, part in parts_of.items()}


@contextmanager
def timed(kind: type, method: str, name: str, spent: dict[str, float], calls: dict[str, int]) -> Iterator[None]:
    """Within it a class's method adds up its calls and their seconds on a core."""
    original: Callable[..., Any] = getattr(kind, method)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        begin = time.thread_time()
        try:
            return original(*args, **kwargs)
        finally:
            spent[name] += time.thread_time() - begin
            calls[name] += 1

    setattr(kind, method, wrapper)
    try:
        yield
    finally:
        setattr(kind, method, original)


if __name__ == "__main__":
    main()
