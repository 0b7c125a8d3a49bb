"""How fast this checkout is beside another one, as before and after a change.

    uv run python benchmarks/against.py ../before a b1 --turns 3

Both checkouts run their own speed.py and latency.py by turns, in the environment of this call. The script prints a
table of medians and writes it to benchmarks/results/DATE-against-DEVICE.md. The speed of a case is the ratio to the
textbook in the same run, so that the load of the machine cancels out; waits are in seconds.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from record import keep_table, results_folder

from raydistill.system.device import pick_device

HERE = Path(__file__).parents[1]


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="folder of the other checkout")
    parser.add_argument("cases", nargs="*", default=["a", "b1"], help="of speed.py")
    parser.add_argument("--turns", type=int, default=3, help="runs of each checkout")
    parser.add_argument("--no-latency", action="store_true", help="leave out latency.py")
    parser.add_argument("--out", default=results_folder(), help="folder for the table [default: $OUT, else results]")
    options = parser.parse_args()
    checkouts = {"before": options.other.resolve(), "after": HERE}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(options.turns):
        for name, checkout in checkouts.items():
            for what, value in measured(checkout, options.cases, not options.no_latency).items():
                found[what][name].append(value)
    lines = ["| | before | after | all before | all after |", "|---|---|---|---|---|"]
    for what, values in found.items():
        before, after = values["before"], values["after"]
        every = [" ".join(f"{value:.3g}" for value in some) for some in (before, after)]
        lines.append(
            f"| {what} | {statistics.median(before):.3g} | {statistics.median(after):.3g} | {' | '.join(every)} |"
        )
    commits = [commit(checkout) for checkout in checkouts.values()]
    lines = [f"Before is commit {commits[0]}, after is {commits[1]}.", "", *lines]
    print("\n".join(lines))
    keep_table("against", "Before and after", "against.py", lines, pick_device("auto"), options.out)


def measured(checkout: Path, cases: list[str], latency: bool) -> dict[str, float]:
    """Return the ratio to the textbook of each case, and the seconds of each wait."""
    with tempfile.TemporaryDirectory() as out:
        printed = run(checkout, "speed.py", *cases, "--no-loader", "--rounds", "5", "--out", out)
    ratios = re.findall(r"^\| (\w+): (.+?) \| iterations/s \|.* ([\d.]+) \|\s*$", printed, re.MULTILINE)
    values = {f"{name}: {title}, times the textbook": float(ratio) for name, title, ratio in ratios}
    if latency:
        waits = re.findall(
            r"^\| (.+?) \| ([\d.]+) \| [\d. ]+ \|$", run(checkout, "latency.py", "--times", "3"), re.MULTILINE
        )
        values |= {f"{what}, s": float(seconds) for what, seconds in waits}
    return values


def run(checkout: Path, script: str, *arguments: str) -> str:
    """Return what a benchmark of a checkout prints; its package comes before an installed one."""
    command = [sys.executable, str(checkout / "benchmarks" / script), *arguments]
    environment = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def commit(checkout: Path) -> str:
    """Return the short name of a checkout's commit."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=checkout, capture_output=True, text=True)
    return done.stdout.strip() or checkout.name


if __name__ == "__main__":
    main()
