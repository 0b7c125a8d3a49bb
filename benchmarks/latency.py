"""How long one waits: for help, for the first iteration, for an evaluation.

    uv run python benchmarks/latency.py            # MNIST from RAYDISTILL_DATA

Writes benchmarks/results/DATE-latency.md. Times are those of whole commands, medians of `--times` runs.
"""

import argparse
import datetime
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from record import RESULTS, device_name

from raydistill.config.distill_config import DistillConfig
from raydistill.data import Dataset, load_dataset
from raydistill.evaluation.accuracy import evaluate_set
from raydistill.method.initial_set import initial_set
from raydistill.method.rng import named_generator
from raydistill.networks import build_network
from raydistill.system.device import use_threads

RAYDISTILL = [str(Path(sys.executable).with_name("raydistill"))]
NETS = 200


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    rows = [
        ("`raydistill --help`", measured(help_text, times)),
        (
            "`raydistill distill --set dataset=mnist`, to its first iteration",
            measured(first_iteration, times),
        ),
        (f"{NETS} random LeNets trained on 10 images in 3 steps and tested on MNIST", measured(evaluation, 3)),
    ]
    lines = ["| | median, s | all |", "|---|---|---|"]
    lines += [f"| {what} | {statistics.median(t):.2f} | {' '.join(f'{s:.2f}' for s in t)} |" for what, t in rows]
    print("\n".join(lines))
    today = datetime.date.today().isoformat()
    about = f"# Latency\n\n    python benchmarks/latency.py\n\n{today}, {device_name()}, torch {torch.__version__}.\n\n"
    (RESULTS / f"{today}-latency.md").write_text(about + "\n".join(lines) + "\n")


def measured(function: Callable[[], float], times: int) -> list[float]:
    """Seconds of each run, after one that fills the system's caches."""
    function()
    return [function() for _ in range(times)]


def help_text() -> float:
    """Of `raydistill --help`."""
    start = time.perf_counter()
    subprocess.run([*RAYDISTILL, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def first_iteration() -> float:
    """Until `distill` reports its first iteration."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*RAYDISTILL, "distill", "--set", "dataset=mnist", "--set", "eval_every=1", "--out", f"{folder}/run"]
        start = time.perf_counter()
        unbuffered = os.environ | {"PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=unbuffered) as run:
            assert run.stdout is not None
            for line in run.stdout:
                if line.startswith("1/"):
                    break
            seconds = time.perf_counter() - start
            run.send_signal(signal.SIGINT)
            run.stdout.read()
    return seconds


def mnist() -> Dataset:
    """Real MNIST."""
    return load_dataset(DistillConfig(dataset="mnist"))


def evaluation() -> float:
    """Of `evaluate_set` with 200 random networks, on a set of 10 images and 3 steps."""
    use_threads()
    config, data = DistillConfig(dataset="mnist"), mnist()
    network = build_network(config, data.image_shape, data.num_classes)
    distilled = initial_set(config, data.train, data.num_classes)[0]
    weights = network.initial_weights(NETS, named_generator(0, "test weights"))
    start = time.perf_counter()
    result = evaluate_set(network, distilled, weights, data.test)
    assert result.nets == NETS
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
