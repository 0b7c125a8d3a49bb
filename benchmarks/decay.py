"""A run whose outer rate is too large, with and without the way back to its best set (`outer.rewinds`).

    python benchmarks/decay.py [--seeds 5] [--out FOLDER]

Learns 100 images of scikit-learn's digits for LeNets of random weights, by an outer rate that is too large: after some
hundred iterations the loss rises. The table has, for each seed, the best and the last validation accuracy, and the test
accuracy of the best set. Writes benchmarks/results/DATE-decay-DEVICE.md.
"""

import argparse
import statistics

import torch
from record import keep_table, results_folder

from raydistill.config.distill_config import DistillConfig
from raydistill.data import Dataset, load_dataset
from raydistill.runs.run import Run
from raydistill.system.device import use_threads

CONFIG = DistillConfig().changed(
    {
        "weights": "random",
        "labels": "softmax",
        "steps": 5,
        "images_per_class": 2,
        "epochs": 8,
        "iterations": 600,
        "eval_every": 25,
        "outer_lr": 0.05,
        "outer.schedule": "constant",
        "recipe": "schedule",
        "choice": {"steps": 1, "nets": 1},
        "device": "cpu",
    }
)
COLUMNS = ("best_val", "last_val", "test", "rewinds")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", default=results_folder())
    options = parser.parse_args()
    use_threads()
    data = load_dataset(CONFIG)
    lines = ["| rewinds | seed | best validation | last validation | test | went back |", "|---|---|---|---|---|---|"]
    for rewinds in (0, CONFIG.outer.rewinds):
        rows = [result(seed, rewinds, data) for seed in range(options.seeds)]
        medians = {name: statistics.median(row[name] for row in rows) for name in COLUMNS}
        for seed, row in [*enumerate(rows), ("median", medians)]:
            percents = " | ".join(f"{100 * row[name]:.1f}%" for name in COLUMNS[:3])
            lines.append(f"| {rewinds} | {seed} | {percents} | {row['rewinds']:.0f} |")
            print(lines[-1], flush=True)
    keep_table("decay", "A run that decays", "decay.py", lines, torch.device("cpu"), options.out)


def result(seed: int, rewinds: int, data: Dataset) -> dict[str, float]:
    """One run to its end: accuracies as fractions, and how often it went back."""
    run = Run(CONFIG.changed({"seed": seed, "outer.rewinds": rewinds}), data)
    metrics: dict[str, float] = {}
    while not run.done:
        metrics = run.advance() or {}
    return {
        "best_val": run.best_metrics["val_accuracy"],
        "last_val": metrics["val_accuracy"],
        "test": run.test()["test_accuracy"],
        "rewinds": run.rewinder.count,
    }


if __name__ == "__main__":
    main()
