"""How much of the slots' time is spent inside trial steps, from the first step to the last result of a real sweep.

    uv run python benchmarks/occupancy.py --slots 2 -- --set budget.trials=32 --set budget.iterations=400

runs sweeps/mnist_fixed.yaml as `raydistill sweep` does, and notes when each step began and ended. The rest of the time
goes into checkpoints and results between two steps of a trial, into changing to the next trial, and into slots that
find no trial to run at the end. It also says how much memory a process that runs one trial after the other gains with
each, beside the size of what a trial holds; the first dozen trials fill caches. Writes
benchmarks/results/DATE-occupancy.md.
"""

import argparse
import datetime
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, commit, device_name

from raydistill.config.overrides import with_overrides
from raydistill.config.settings import read_yaml, validated
from raydistill.config.sweep_config import SweepConfig
from raydistill.sweep import tuner
from raydistill.sweep.driver import run_sweep
from raydistill.sweep.searching.trial import DistillTrial

STEPS = "steps.jsonl"
SWEEP = Path(__file__).parent.parent / "sweeps" / "mnist_fixed.yaml"


class TimedTrial(DistillTrial):
    """A trial that says when each of its steps began and ended, and what its process and its tensors take."""

    def step(self) -> dict[str, Any]:
        """The trial's own, between two looks at the clock."""
        begin = time.time()
        result = super().step()
        learned, config = self.run.current, self.run.config
        batch = self.run.problem.data.train.images[: config.batch_size]
        held = sum(t.nbytes for t in (learned.images, learned.labels, batch)) + 4 * self.run.problem.network.num_weights
        private = next(
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")
        )
        times = {"step_begin": begin, "step_end": time.time(), "held": held, "private": int(private.split()[1]) * 1024}
        with Path(self.logdir, STEPS).open("a") as file:  # it goes to the storage with each checkpoint
            file.write(json.dumps(times | {"pid": os.getpid(), "trial_id": self.trial_id}) + "\n")
        return result


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="as of raydistill sweep")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slots = [f"budget.concurrent={options.slots}", f"storage={folder}"]
        values = with_overrides(read_yaml(SWEEP), [*options.settings, *slots])
        config = validated(SweepConfig, values)
        tuner.DistillTrial = TimedTrial
        begin = time.perf_counter()
        result = run_sweep(config)
        whole = time.perf_counter() - begin
        steps = read_steps(Path(result.folder))
    lines = table(steps, options.slots, whole)
    print("\n".join(lines))
    today = datetime.date.today().isoformat()
    about = f"{today}, {device_name()}, torch {torch.__version__}, commit {commit()}.\n\n"
    command = f"    python benchmarks/occupancy.py {shlex.join(sys.argv[1:])}\n\n"
    (RESULTS / f"{today}-occupancy.md").write_text(f"# Occupancy\n\n{command}{about}" + "\n".join(lines) + "\n")


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """Every step of every trial, in the order they began."""
    files = folder.glob(f"trial-*/{STEPS}")
    return sorted(
        (json.loads(line) for file in files for line in file.read_text().splitlines()),
        key=lambda step: float(step["step_begin"]),
    )


def table(steps: list[dict[str, Any]], slots: int, whole: float) -> list[str]:
    """Where the slots' time went, in per cent; a slot is the process that ran the steps."""
    first, last = steps[0]["step_begin"], max(step["step_end"] for step in steps)
    total = slots * (last - first)
    inside = sum(step["step_end"] - step["step_begin"] for step in steps)
    places: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for step in steps:
        places[step["pid"]].append(step)
    between: list[float] = []
    changing: list[float] = []
    for place in places.values():
        for one, two in pairwise(place):
            same = one["trial_id"] == two["trial_id"]
            (between if same else changing).append(two["step_begin"] - one["step_end"])
    rest = total - inside - sum(between) - sum(changing)
    trials = len({step["trial_id"] for step in steps})
    rows = [
        ("inside steps", inside, inside / len(steps), len(steps)),
        ("between two steps of a trial", sum(between), statistics.mean(between or [0]), len(between)),
        ("between two trials", sum(changing), statistics.mean(changing or [0]), len(changing)),
        ("without a trial, at the begin or the end", rest, rest / slots, slots),
    ]
    head = f"{trials} trials in {last - first:.1f} s on {slots} slots ({len(places)} processes); "
    head += f"{whole:.1f} s with start and final tests."
    lines = [head, "", "| slots' time | s | share | each, s | times |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {s:.1f} | {100 * s / total:.1f}% | {each:.3f} | {n} |" for name, s, each, n in rows]
    return [*lines, "", memory(list(places.values()))]


def memory(places: list[list[dict[str, Any]]]) -> str:
    """What the processes gained with each trial: from the second on, and in the second half."""
    series = [list({step["trial_id"]: step["private"] / 1e6 for step in place}.values()) for place in places]
    series = [ends for ends in series if len(ends) >= 4]  # of each process, at the end of each trial
    if not series:
        return "Too few trials to say what memory each leaves behind."
    held = statistics.mean(step["held"] for place in places for step in place) / 1e6
    whole = statistics.mean((ends[-1] - ends[1]) / (len(ends) - 2) for ends in series)
    late = statistics.mean((ends[-1] - ends[len(ends) // 2]) / (len(ends) - 1 - len(ends) // 2) for ends in series)
    return (
        f"Private memory of a process grows by {whole:.2f} MB a trial from the second on, by {late:.2f} MB in the "
        f"second half; the network, distilled set and batch of one are {held:.2f} MB. One process at the end of "
        f"each of its trials, MB: {' '.join(f'{private:.0f}' for private in series[0])}."
    )


if __name__ == "__main__":
    main()
