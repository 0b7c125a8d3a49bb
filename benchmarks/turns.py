"""Implementations in processes of their own, which iterate when they are told to, and so can take turns."""

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from cases import load, make_ours, make_textbook
from counting import FlopCounter, PeakMemory, kernels, timed

from raydistill.kernels.cuda_graph import WARM_UP
from raydistill.system.device import use_precision, use_threads

LOADER, ON_DEVICE, OURS = IMPLEMENTATIONS = ("textbook", "textbook, data on the device", "ours")
REFILL = 0.3  # seconds in which loaders fill their queues again after a turn, before it is another's


class Worker:
    """A process that iterates when it is told to. It begins at once; `get_ready` waits for it.

    Args:
        name: of the case.
        which: of IMPLEMENTATIONS.
        options: those of speed.py.
    """

    def __init__(self, name: str, which: str, options: argparse.Namespace) -> None:
        self.which = which
        command = [sys.executable, str(Path(__file__).with_name("speed.py")), name, "--worker", which]
        command += ["--device", options.device, "--precision", options.precision]
        command += ["--cifar", options.cifar] if options.cifar else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seconds: list[float] = []  # an iteration, for each turn
        self.facts: dict[str, float] = {}
        self.pace = 0.0  # seconds an iteration, about

    def get_ready(self) -> None:
        """Waits until it is warm, and takes its pace from calls in which nothing is recorded or captured any more."""
        self.facts = self.ask("warm up")
        self.pace = self.ask(1)["seconds"]
        if self.pace < 0.1:
            self.pace = self.ask(round(0.2 / self.pace))["seconds"]

    def ask(self, what: int | str) -> dict[str, float]:
        """Has it do something, or so many iterations; returns what it measured."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.process.stdout.readline())
        return answer

    def turn(self, seconds: float) -> None:
        """Runs for about so many seconds, and at least one iteration."""
        answer = self.ask(max(1, round(seconds / self.pace)))
        self.seconds.append(answer["seconds"])
        self.facts |= answer
        if self.which == LOADER:
            time.sleep(REFILL)

    def count_kernels(self) -> tuple[int, float]:
        """Of an iteration, with the seconds they take; (0, 0.0) where it cannot tell."""
        try:
            answer = self.ask("kernels")
        except (OSError, ValueError):  # it ended: a profiler that does not suit the driver
            return 0, 0.0
        return int(answer["kernels"]), answer["kernel_seconds"]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()  # no more input, which ends it


def work(name: str, which: str, options: argparse.Namespace, device: torch.device) -> None:
    """The worker's side: obeys the lines of its input."""
    use_precision(options.precision, device)
    config, data = load(name, options.cifar, precision=options.precision)

    def made() -> Any:
        return (
            make_ours(config, data, device) if which == OURS else make_textbook(config, data, device, which != LOADER)
        )

    if which == OURS:
        use_threads()  # which the textbook does without
    stepper, memory = made(), PeakMemory(device)
    for line in sys.stdin:
        answer: dict[str, float] = {}
        if line == "warm up\n":
            answer["flops"] = warmed_up(stepper, which, device)
        elif line == "kernels\n":
            stepper = None  # another one, whose first iterations are kernel after kernel, no graph
            gc.collect()
            stepper = made()
            stepper.step()
            answer["kernels"], answer["kernel_seconds"] = kernels(stepper.step, device)
        else:
            answer["seconds"] = timed(stepper.step, int(line), device)
        print(json.dumps(answer | {"peak_memory": memory.peak()}), flush=True)


def warmed_up(stepper: Any, which: str, device: torch.device) -> float:
    """Iterates until all is recorded and captured; returns the FLOPs of one of ON_DEVICE's."""
    if which != ON_DEVICE:
        timed(stepper.step, WARM_UP + 2 if which == OURS and device.type == "cuda" else 1, device)
        return 0.0
    with FlopCounter() as counter:
        stepper.step()
    return float(counter.total)
