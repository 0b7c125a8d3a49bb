"""How fast: this project beside a textbook implementation, in one run on one device.

    uv run python benchmarks/speed.py                       # the cases of CASES that suit the device
    uv run python benchmarks/speed.py a b1 --rounds 20

Prints a table and writes it to benchmarks/results/DATE-speed-DEVICE.md. Each implementation has a process of its own;
they take turns, round after round, so that what else the machine does hits both. Times are medians of the rounds.
"""

import argparse
import datetime
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import RESULTS, commit, device_name
from textbook import Textbook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from raydistill.config import DistillConfig
from raydistill.data import Dataset, load_dataset
from raydistill.device import pick_device, use_threads
from raydistill.method import Distiller
from raydistill.networks import build_network

PAPER = {"batch_size": 1024, "epochs": 3, "outer_lr": 0.01, "outer_schedule": "constant", "clip": None, "average": 0.0}
MNIST = {"dataset": "mnist", "network": "lenet", "inner_lr": 0.02, **PAPER}
CIFAR = {"dataset": "parquet", "inner_lr": 0.001, "weights": "random", **PAPER}
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
    parser.add_argument(
        "cases", nargs="*", help=f"of {', '.join(CASES)}; by default all that there are data for, on a CPU without d"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each implementation in a round, at least")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cifar", help="parquet file or folder of CIFAR-10, for cases c and d")
    parser.add_argument("--worker", choices=("textbook", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = pick_device(options.device)
    if options.worker:
        work(options, device)
        return
    ceiling = matmul_flops(device)
    lines = [
        f"Matrix products reach {ceiling / 1e9:.0f} GFLOP/s (float32). Shares are of that.",
        "",
        "| case | | textbook | ours | ratio |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    known = [case for case in CASES if case < "c" or (options.cifar and (case == "c" or device.type != "cpu"))]
    for name in options.cases or known:
        line = report(name, options, ceiling)
        lines.append(line)
        print(line, flush=True)
    write(lines, device)


def report(name: str, options: argparse.Namespace, ceiling: float) -> str:
    """One case as rows of the table."""
    title, settings = CASES[name]
    with Worker(name, "textbook", options) as textbook, Worker(name, "ours", options) as ours:
        for _ in range(options.rounds):
            for worker in (textbook, ours):
                worker.turn(options.seconds)
        population = settings.get("population", 1)
        slow = statistics.median(textbook.seconds) * population  # it does one set after the other
        fast = statistics.median(ours.seconds)
        flops = textbook.facts["flops"] * population
        memory = textbook.facts["peak_memory"], ours.facts["peak_memory"]
    rows = [
        ("iterations/s", f"{1 / slow:.3g}", f"{1 / fast:.3g}", f"{slow / fast:.1f}"),
        ("share of ceiling", f"{flops / slow / ceiling:.1%}", f"{flops / fast / ceiling:.1%}", ""),
        ("peak memory, MB", f"{memory[0] / 1e6:.0f}", f"{memory[1] / 1e6:.0f}", f"{memory[0] / max(1, memory[1]):.1f}"),
    ]
    return "\n".join(f"| {name + ': ' + title if i == 0 else ''} | {' | '.join(row)} |" for i, row in enumerate(rows))


class Worker:
    """A process that iterates when it is told to."""

    def __init__(self, name: str, which: str, options: argparse.Namespace) -> None:
        command = [sys.executable, __file__, name, "--worker", which, "--device", options.device]
        command += ["--cifar", options.cifar] if options.cifar else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds: list[float] = []  # an iteration, for each turn
        self.facts = self.ask(0)
        self.pace = self.ask(1)["seconds"]  # warms up, which takes four on a GPU
        if self.pace < 5:
            self.pace = self.ask(4)["seconds"]

    def ask(self, iterations: int) -> dict[str, float]:
        """Runs iterations and returns what the worker measured."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{iterations}\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.process.stdout.readline())
        return answer

    def turn(self, seconds: float) -> None:
        """Runs for about so many seconds, and at least one iteration."""
        answer = self.ask(max(1, round(seconds / self.pace)))
        self.seconds.append(answer["seconds"])
        self.facts["peak_memory"] = answer["peak_memory"]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def work(options: argparse.Namespace, device: torch.device) -> None:
    """A worker: for each number on a line of input, runs so many iterations and prints what it measured."""
    config, data = load(CASES[options.cases[0]][1], options)
    if options.worker == "ours":
        use_threads()  # which the textbook does without
        stepper: Any = make_ours(config, data, device)
    else:
        stepper = make_textbook(config, data, device)
    memory = PeakMemory(device)
    facts = {"flops": 0.0}
    if options.worker == "textbook":
        with FlopCounter() as counter:
            stepper.step()
        facts["flops"] = counter.total
    for line in sys.stdin:
        seconds = timed(stepper.step, int(line), device) if int(line) else 0.0
        print(json.dumps(facts | {"seconds": seconds, "peak_memory": memory.peak()}), flush=True)


class PeakMemory:
    """The most memory since its making, in bytes, beyond what there was then."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self.start = self.peak_now()

    def peak_now(self) -> int:
        """The most so far."""
        if self.cuda:
            return torch.cuda.max_memory_allocated()
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def peak(self) -> int:
        """The most so far, beyond what there was at the start."""
        return self.peak_now() - self.start


class FlopCounter(TorchDispatchMode):
    """FLOPs of matrix products and convolutions. (torch's FlopCounterMode cannot watch autograd.grad on leaves.)"""

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket in flop_registry:
            self.total += flop_registry[function.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def load(settings: dict[str, Any], options: argparse.Namespace) -> tuple[DistillConfig, Dataset]:
    """The config and its real data."""
    if settings["dataset"] == "parquet":
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


def write(lines: list[str], device: torch.device) -> None:
    """Keeps the table."""
    name = device_name() if device.type == "cuda" else device_name().replace(",", "")
    today = datetime.date.today().isoformat()
    path = RESULTS / f"{today}-speed-{'-'.join(name.lower().split())}.md"
    head = f"# Speed\n\n    python benchmarks/speed.py {' '.join(sys.argv[1:])}\n"
    about = f"\n{today}, {name}, torch {torch.__version__}, numpy {np.__version__}, commit {commit()}.\n\n"
    path.write_text(head + about + "\n".join(lines) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
