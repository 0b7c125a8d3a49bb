"""How fast: this project beside a textbook implementation, in one run on one device.

    uv run python benchmarks/speed.py                       # the cases of CASES that suit the device
    uv run python benchmarks/speed.py a b1 --rounds 20

Prints a table and writes it to benchmarks/results/DATE-speed-DEVICE.md. Each implementation has a process of its own;
they take turns, round after round, so that what else the machine does hits both. Times are medians of the rounds. The
textbook is there twice: with a DataLoader, as it is usually written (up to 16 batches are ready when its turn begins),
and with its real data on the device.
"""

import argparse
import statistics
from contextlib import ExitStack

import torch
from cases import CASES
from counting import matmul_flops
from record import keep_table, results_folder
from turns import IMPLEMENTATIONS, LOADER, ON_DEVICE, OURS, Worker, work

from raydistill.system.device import pick_device, use_precision


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "cases", nargs="*", help=f"of {', '.join(CASES)}; by default all that there are data for, on a CPU without d"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each implementation in a round, at least")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("float32", "tf32"), default="float32", help="of all implementations")
    parser.add_argument("--no-loader", action="store_true", help="leave out the textbook with a DataLoader")
    parser.add_argument("--cifar", help="parquet file or folder of CIFAR-10, for cases c and d")
    parser.add_argument("--out", default=results_folder(), help="folder for the table [default: $OUT, else results]")
    parser.add_argument("--worker", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = pick_device(options.device)
    use_precision(options.precision, device)
    if options.worker:
        work(options.cases[0], options.worker, options, device)
        return
    ceiling = matmul_flops(device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    columns = [which for which in IMPLEMENTATIONS if which != LOADER or not options.no_loader]
    head = ["case", "", *columns, *(f"ratio to {which}" for which in columns[:-1])]
    lines = [
        f"Matrix products reach {ceiling / 1e9:.0f} GFLOP/s ({options.precision}). Shares are of that.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    print("\n".join(lines), flush=True)
    known = [case for case in CASES if case < "c" or (options.cifar and (case == "c" or device.type != "cpu"))]
    for name in options.cases or known:
        line = report(name, columns, options, ceiling, device)
        lines.append(line)
        print(line, flush=True)
    precision = "" if options.precision == "float32" else f"-{options.precision}"
    keep_table(f"speed{precision}", "Speed", "speed.py", lines, device, options.out)


def report(name: str, columns: list[str], options: argparse.Namespace, ceiling: float, device: torch.device) -> str:
    """One case as rows of the table."""
    title, settings = CASES[name]
    population = settings.get("population", 1)
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(name, which, options)) for which in columns]
        for worker in workers:
            worker.get_ready()
        for _ in range(options.rounds):
            for worker in workers:
                worker.turn(options.seconds)
        launched = workers[-1].count_kernels() if device.type == "cuda" else (0, 0.0)
    # the textbook does one set after the other
    sets = [1 if which == OURS else population for which in columns]
    seconds = [statistics.median(worker.seconds) * count for worker, count in zip(workers, sets, strict=True)]
    flops = workers[columns.index(ON_DEVICE)].facts["flops"] * population
    memory = [worker.facts["peak_memory"] for worker in workers]
    rows = [
        ["iterations/s", *(f"{1 / s:.3g}" for s in seconds), *(f"{s / seconds[-1]:.1f}" for s in seconds[:-1])],
        ["share of ceiling", *(f"{flops / s / ceiling:.1%}" for s in seconds)],
        [
            "peak memory, MB",
            *(f"{m / 1e6:.0f}" for m in memory),
            *(f"{m / max(1, memory[-1]):.1f}" for m in memory[:-1]),
        ],
    ]
    if launched[0]:
        kernels = f"{launched[0]:,}, {1000 * launched[1]:.3g} ms"
        rows.append(["kernels of an iteration, and their time", *[""] * (len(columns) - 1), kernels])
    width = 2 * len(columns)
    cells = [row + [""] * (width - len(row)) for row in rows]
    return "\n".join(f"| {name + ': ' + title if i == 0 else ''} | {' | '.join(row)} |" for i, row in enumerate(cells))


if __name__ == "__main__":
    main()
