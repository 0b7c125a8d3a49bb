"""How long and how good: the same distillation with several seeds, one after the other.

    uv run python benchmarks/time_to_accuracy.py NAME --seeds 5 -- --set dataset=mnist

What stands behind `--` goes to `raydistill distill`. Writes benchmarks/results/DATE-NAME.md with each seed's seconds
(of the whole command, final test included) and accuracies, and their medians.
"""

import argparse
import datetime
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from record import RESULTS, commit, device_name


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--seeds", type=int, default=5)
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, settings = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    rows = []
    for seed in range(options.seeds):
        rows.append(run(seed, settings))
        print(rows[-1], flush=True)
    columns = (
        "seconds",
        "val_accuracy",
        "test_accuracy",
        "baseline_same_steps",
        "baseline_best_recipe",
        "best_iteration",
    )
    lines = [
        "| seed | seconds | val | test | random real, same steps | best recipe | best iteration |",
        "|---" * 7 + "|",
    ]
    medians = {name: statistics.median(row[name] for row in rows) for name in columns}
    for seed, row in [*enumerate(rows), ("median", medians)]:
        accuracies = " | ".join(f"{100 * row[name]:.2f}%" for name in columns[1:5])
        lines.append(f"| {seed} | {row['seconds']:.0f} | {accuracies} | {row['best_iteration']:.0f} |")
    print("\n".join(lines))
    today = datetime.date.today().isoformat()
    head = f"# {options.name}\n\n    raydistill distill {shlex.join(settings)} --set seed=0 (1, 2, ...)\n\n"
    about = f"{today}, {device_name()}, torch {torch.__version__}, commit {commit()}.\n\n"
    (RESULTS / f"{today}-{options.name}.md").write_text(head + about + "\n".join(lines) + "\n")


def run(seed: int, settings: list[str]) -> dict[str, float]:
    """The result of one seed, with the seconds it took from start to end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "raydistill.cli", "distill", *settings, "--set", f"seed={seed}"]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, "--out", f"{folder}/run", "--json"], stdout=subprocess.PIPE, text=True, check=True
        )
        seconds = time.perf_counter() - start
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result | {"seconds": seconds}


if __name__ == "__main__":
    main()
