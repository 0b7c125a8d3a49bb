"""How many sets a second one GPU learns: by several processes that take turns on it, and by populations in one process.

    uv run python benchmarks/gpu_sharing.py                 # case a of speed.py
    uv run python benchmarks/gpu_sharing.py d --cifar FOLDER --processes 1 2 4 --populations 1 4

All processes are there from the start and wait, so that each number of them is measured without a new start; those that
iterate begin at the same moment. Then the same under MPS, NVIDIA's service that lets processes compute at once, where
it is installed and may be started: one of our own, which ends with the script. No setting of the GPU is changed.
Writes benchmarks/results/DATE-gpu-sharing-DEVICE.md.
"""

import argparse
import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import torch
from cases import CASES, load, make_ours
from counting import PeakMemory, synchronise, timed
from mps import Mps
from record import keep_table, results_folder

from raydistill.kernels.cuda_graph import WARM_UP
from raydistill.system.device import pick_device, use_precision, use_threads

PATIENCE = 60.0  # seconds for a process to start or to answer
HEAD = ("case", "processes", "sets in each", "MPS", "iterations/s of each", "sets/s in all", "MB of each process")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["a"], help=f"of {', '.join(CASES)}")
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--populations", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cifar", help="parquet file or folder of CIFAR-10, for cases c and d")
    parser.add_argument("--out", default=results_folder(), help="folder for the table [default: $OUT, else results]")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = pick_device(options.device)
    if options.worker:
        work(options.cases[0], options.worker, options.cifar, device)
        return
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    print("\n".join(lines), flush=True)

    def tell(*row: Any) -> None:
        lines.append(f"| {' | '.join(map(str, row))} |")
        print(lines[-1], flush=True)

    for case in options.cases:
        for sizes in ([(1, p) for p in options.populations], [(n, 1) for n in options.processes]):
            measure(case, sizes, "no", options, {}, tell)
        with Mps(device) as mps:
            if mps.problem:
                tell(case, "", "", mps.problem, "", "", "")
            else:
                measure(case, [(n, 1) for n in options.processes], "yes", options, mps.environment, tell)
    keep_table("gpu-sharing", "Sharing a GPU", "gpu_sharing.py", lines, device, options.out)


def measure(
    case: str,
    sizes: list[tuple[int, int]],
    mps: str,
    options: argparse.Namespace,
    environment: dict[str, str],
    tell: Any,
) -> None:
    """A row for each (number of processes, sets in each)."""
    populations = sorted({p for _, p in sizes})
    most = max((n for n, _ in sizes), default=0)
    with ExitStack() as stack:
        crews = {
            p: [stack.enter_context(Process(case, p, options, environment)) for _ in range(most)] for p in populations
        }
        try:
            for crew in crews.values():
                for process in crew:
                    process.answer()
            for count, population in sizes:
                answers = together(crews[population][:count], options.seconds)
                pace = statistics.median(answer["pace"] for answer in answers)
                sets = population * sum(answer["pace"] for answer in answers)
                memory = max(answer["memory"] for answer in answers) / 1e6
                tell(case, count, population, mps, f"{pace:.4g}", f"{sets:,.0f}", f"{memory:.0f}")
        except RuntimeError as error:
            tell(case, "", "", mps, error, "", "")


def together(crew: "Sequence[Process]", seconds: float) -> list[dict[str, float]]:
    """What processes measured that iterated in the same seconds."""
    begin = time.monotonic() + 0.2  # one clock for all processes
    for process in crew:
        process.ask(begin, seconds)
    return [process.answer() for process in crew]


class Process:
    """A process that distils when it is told to; it begins to get ready at once, and says when it is."""

    def __init__(self, case: str, population: int, options: argparse.Namespace, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__, case, "--worker", str(population), "--device", options.device]
        command += ["--cifar", options.cifar] if options.cifar else []
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process: Any = subprocess.Popen(command, text=True, env=os.environ | environment, **pipes)

    def ask(self, begin: float, seconds: float) -> None:
        """Has it iterate from a moment on, for so long."""
        self.process.stdin.write(f"{begin} {seconds}\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, float]:
        """What it measured: iterations a second, and bytes of memory.

        Raises:
            RuntimeError: it does not answer.
        """
        there, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if there else ""
        if not line:
            raise RuntimeError("a process ended or hung; its error is on the screen")
        answer: dict[str, float] = json.loads(line)
        return answer

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(subprocess.TimeoutExpired, OSError):
            self.process.communicate(timeout=20)  # no more input, which ends it
        self.process.kill()
        self.process.wait()


def work(case: str, population: int, cifar: str | None, device: torch.device) -> None:
    """The process's side: gets ready, then iterates as each line of its input says."""
    use_threads(1)
    use_precision("float32", device)
    config, data = load(case, cifar, population=population)
    memory = PeakMemory(device)
    distiller = make_ours(config, data, device)
    timed(distiller.step, WARM_UP + 2 if device.type == "cuda" else 1, device)
    pace = timed(distiller.step, 3, device)
    print("{}", flush=True)
    for line in sys.stdin:
        begin, seconds = map(float, line.split())
        time.sleep(max(0.0, begin - time.monotonic()))
        start, done = time.monotonic(), 0
        while time.monotonic() - start < seconds:
            for _ in range(max(1, round(0.05 / pace))):  # the device's queue is never longer than that
                distiller.step()
                done += 1
            synchronise(device)
        answer = {"pace": done / (time.monotonic() - start), "memory": held(memory, device)}
        print(json.dumps(answer), flush=True)


def held(memory: PeakMemory, device: torch.device) -> float:
    """Bytes that this process has of the device, as far as torch knows; on a CPU, what it took for the work."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else memory.peak()


if __name__ == "__main__":
    main()
