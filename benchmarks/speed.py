"""How fast: this project beside a textbook implementation, in one run on one device.

    uv run python benchmarks/speed.py                       # the cases of CASES that suit the device
    uv run python benchmarks/speed.py a b1 --rounds 20

Prints a table and writes it to benchmarks/results/DATE-speed-DEVICE.md. The two take turns, round after round, so that
what else the machine does hits both; times are medians of a round. Peak memory is that of a process of its own.
"""

import argparse
import datetime
import functools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from record import RESULTS, device_name
from textbook import Textbook
from torch.utils.flop_counter import FlopCounterMode

from raydistill.config import DistillConfig
from raydistill.data import Dataset, load_dataset
from raydistill.device import pick_device, use_threads
from raydistill.method import Distiller, hypergradient
from raydistill.networks import build_network

PAPER = {"batch_size": 1024, "epochs": 3, "outer_lr": 0.01, "outer_schedule": "constant", "clip": None, "average": 0.0}
MNIST = {"dataset": "mnist", "network": "lenet", "inner_lr": 0.02, **PAPER}
CIFAR = {"dataset": "cifar10", "inner_lr": 0.001, "weights": "random", **PAPER}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a": ("MNIST LeNet fixed, 1 x 1 x 3", MNIST | {"weights": "fixed", "steps": 1}),
    "a16": ("the same, population of 16", MNIST | {"weights": "fixed", "steps": 1, "population": 16}),
    "b1": ("MNIST LeNet random, 1 x 10 x 3", MNIST | {"weights": "random", "steps": 10}),
    "b4": ("the same, 4 networks", MNIST | {"weights": "random", "steps": 10, "train_nets": 4}),
    "b16": ("the same, 16 networks", MNIST | {"weights": "random", "steps": 10, "train_nets": 16}),
    "c": ("CIFAR-10 AlexCifarNet random, 1 x 10 x 3", CIFAR | {"network": "alexcifarnet", "steps": 10}),
    "d": ("CIFAR-10 ConvNet-3 random, 10 images a class, 40 steps",
          CIFAR | {"network": "convnet", "images_per_class": 10, "steps": 1, "epochs": 40}),
}  # fmt: skip


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="by default all (on a CPU all but d)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each implementation in a round, at least")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cifar", help="parquet file or folder of CIFAR-10, if not from torchvision")
    parser.add_argument("--memory-of", choices=("ours", "textbook"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    use_threads()
    device = pick_device(options.device)
    if options.memory_of:
        print(json.dumps(peak_memory(options, device)))
        return
    ceiling = matmul_flops(device)
    lines = [
        f"Matrix products reach {ceiling / 1e9:.0f} GFLOP/s (float32). Shares are of that.",
        "",
        "| case | | textbook | ours | ratio | hypergradients differ by |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in options.cases or [case for case in CASES if device.type != "cpu" or case != "d"]:
        line = report(name, options, device, ceiling)
        lines.append(line)
        print(line, flush=True)
    write(lines, device)


def report(name: str, options: argparse.Namespace, device: torch.device, ceiling: float) -> str:
    """One case as rows of the table."""
    title, settings = CASES[name]
    config, data = load(settings, options)
    textbook, ours = make_textbook(config, data, device), make_ours(config, data, device)
    count = FlopCounterMode(display=False)
    with count:
        textbook.step()
    flops = count.get_total_flops() * config.population
    textbook_times, our_times = take_turns([textbook.step, ours.step], options, device)
    slow, fast = (statistics.median(times) for times in (textbook_times, our_times))
    slow *= config.population  # which it would do one by one
    memory = [memory_in_a_process(name, which, options) for which in ("textbook", "ours")]
    rows = [
        ("iterations/s", f"{1 / slow:.2f}", f"{1 / fast:.2f}", f"{slow / fast:.1f}"),
        ("share of ceiling", f"{flops / slow / ceiling:.0%}", f"{flops / fast / ceiling:.0%}", ""),
        ("peak memory, MB", f"{memory[0] / 1e6:.0f}", f"{memory[1] / 1e6:.0f}", f"{memory[0] / max(1, memory[1]):.1f}"),
    ]
    difference = f"{compare(textbook, ours, data):.1e}" if name in ("a", "b1", "c", "d") else ""
    return "\n".join(
        f"| {name + ': ' + title if i == 0 else ''} | {' | '.join(row)} | {difference if i == 0 else ''} |"
        for i, row in enumerate(rows)
    )


def load(settings: dict[str, Any], options: argparse.Namespace) -> tuple[DistillConfig, Dataset]:
    """The config and its real data."""
    if settings["dataset"] == "cifar10" and options.cifar:
        settings = settings | {"dataset": f"parquet:{options.cifar}"}
    config = DistillConfig(**settings)
    return config, load_dataset(config)


def make_textbook(config: DistillConfig, data: Dataset, device: torch.device) -> Textbook:
    """The textbook implementation; on a CPU it loads data in its own process, which is faster there."""
    pixels = (data.train.images * data.std[:, None, None] + data.mean[:, None, None]) * 255
    real = pixels.round().byte(), data.train.labels
    return Textbook(config, real, data.mean, data.std, str(device), workers=0 if device.type == "cpu" else 8)


def make_ours(config: DistillConfig, data: Dataset, device: torch.device) -> Distiller:
    """Ours."""
    network = build_network(config, data.image_shape, data.num_classes)
    return Distiller(config, network, data.to(device).train, data.num_classes)


def take_turns(
    functions: list[Callable[[], Any]], options: argparse.Namespace, device: torch.device
) -> list[list[float]]:
    """Seconds a call of each function, for each round."""
    counts = []
    for function in functions:
        for _ in range(4):
            seconds = timed(function, 1, device)  # the last one without what only the first ones do
        counts.append(max(1, round(options.seconds / seconds)))
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(options.rounds):
        for function, count, mine in zip(functions, counts, times, strict=True):
            mine.append(timed(function, count, device))
    return times


def timed(function: Callable[[], Any], count: int, device: torch.device) -> float:
    """Seconds a call, with the device's work done."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(count):
        function()
    synchronise(device)
    return (time.perf_counter() - start) / count


def synchronise(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def matmul_flops(device: torch.device) -> float:
    """The best FLOP/s of a square float32 matrix product."""
    best = 0.0
    for n in (1024, 2048, 4096 if device.type == "cpu" else 8192):
        a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
        seconds = min(timed(functools.partial(torch.matmul, a, b), 3, device) for _ in range(5))
        best = max(best, 2 * n**3 / seconds)
    return best


def compare(textbook: Textbook, ours: Distiller, data: Dataset) -> float:
    """Relative difference of the two hypergradients, at noise images, for the same network and real batch."""
    config = ours.config
    device = ours.real.images.device
    generator = torch.Generator(device).manual_seed(1)
    start = ours.initial_weights[0].sample(1, generator)
    images, labels = ours.real.sample(config.batch_size, generator)
    fresh = make_ours(config, data, device)
    _, gradient = hypergradient(ours.network, fresh.learned, start[None], images, labels)
    for mine, theirs in zip(textbook.images, fresh.learned.images[0], strict=True):
        mine.data.copy_(theirs)
    textbook.raw_rates.data.copy_(fresh.learned.raw_rates[0])
    named = zip(textbook.fixed, ours.network.unflatten(start[0]).values(), strict=True)
    _, expected = textbook.hypergradient({k: w.clone().requires_grad_() for k, w in named}, images, labels)
    mine, theirs = gradient.images[0].flatten(), torch.stack(expected[:-1]).flatten()
    return ((mine - theirs).norm() / theirs.norm()).item()


def memory_in_a_process(name: str, which: str, options: argparse.Namespace) -> float:
    """Peak memory in bytes of three iterations, without the data's."""
    command = [sys.executable, __file__, name, "--memory-of", which, "--device", options.device]
    command += ["--cifar", options.cifar] if options.cifar else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def peak_memory(options: argparse.Namespace, device: torch.device) -> float:
    """What `memory_in_a_process` runs there."""
    config, data = load(CASES[options.cases[0]][1], options)
    make = make_ours if options.memory_of == "ours" else make_textbook
    stepper = make(config, data, device)

    def peak() -> float:
        if device.type == "cuda":
            return float(torch.cuda.max_memory_allocated())
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0

    before = peak()
    for _ in range(5 if device.type == "cuda" else 3):
        stepper.step()
    synchronise(device)
    return peak() - before


def write(lines: list[str], device: torch.device) -> None:
    """Keeps the table."""
    name = device_name() if device.type == "cuda" else device_name().replace(",", "")
    today = datetime.date.today().isoformat()
    path = RESULTS / f"{today}-speed-{'-'.join(name.lower().split())}.md"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    head = f"# Speed\n\n    python benchmarks/speed.py {' '.join(sys.argv[1:])}\n"
    about = f"\n{today}, {name}, torch {torch.__version__}, numpy {np.__version__}, commit {commit or 'unknown'}.\n\n"
    path.write_text(head + about + "\n".join(lines) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
