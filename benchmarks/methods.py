"""Which method when: validation accuracy against the seconds of learning, of all methods on the same cores in one run.

    python benchmarks/methods.py [--data mnist cifar10] [--images 1 10] [--seconds 600] [--out FOLDER]

For each data set and number of images a class it learns sets for ConvNets of depth 3, width 32 and instance norm, with
any random initial weights: by `ridge`, by `unroll`, and by the textbook's unroll. And it trains on as many random real
images, with as many steps as the unroll and with the best recipe. Seconds are those of the outer iterations alone.
Writes DATE-methods-DEVICE.md and methods.png. Nothing of the test data is read.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from record import keep_table, results_folder
from textbook import Textbook, convnet

from raydistill.config.distill_config import DistillConfig
from raydistill.config.recipe_settings import summary
from raydistill.data import Dataset, load_dataset
from raydistill.data.pixels import Pixels
from raydistill.evaluation.accuracy import evaluate_on
from raydistill.evaluation.baselines import random_real
from raydistill.evaluation.problem import Problem
from raydistill.evaluation.recipes import chosen_recipe, recipe_so_far, validation_recipe
from raydistill.method import DistilledSet
from raydistill.report.figures import write_figure
from raydistill.system.device import pick_device, use_threads

POINTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)  # Shares of the seconds after which a set is validated.
COMMON: dict[str, Any] = {
    "network": {"name": "convnet", "width": 32, "depth": 3, "init": "kaiming"},
    **{"weights": "random", "iterations": 10**6, "outer.schedule": "constant", "val_nets": 2, "test_nets": 4},
}
METHODS: dict[str, dict[str, Any]] = {
    "ridge": {
        **{"solver": "ridge", "labels": {"learned": "free", "lr": 0.003}, "outer_lr": 0.03, "batch_size": 256},
        "data.augment": {"shift": 2, "rotate": 15.0, "scale": 1.2, "on": "paired"},
    },
    "unroll": {"labels": "softmax", "epochs": 30, "inner_lr": 0.02, "outer_lr": 0.01, "batch_size": 256},
    "textbook": {"epochs": 30, "inner_lr": 0.02, "outer_lr": 0.01, "batch_size": 256},
}
Point = tuple[float, float]  # Seconds, and validation accuracy as a fraction.


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["mnist", "cifar10"])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 10], help="images a class")
    parser.add_argument("--seconds", type=float, default=600, help="of learning, for each method")
    parser.add_argument("--steps", type=int, help="gradient steps of each recipe that is tried (choice.steps)")
    parser.add_argument("--out", default=results_folder())
    options = parser.parse_args()
    use_threads()
    device = pick_device("auto")
    figure = Figure(figsize=(5 * len(options.images), 4 * len(options.data)), layout="constrained")
    axes = figure.subplots(len(options.data), len(options.images), squeeze=False)
    lines = [
        "| data | images | method | " + " | ".join(f"{p * options.seconds:.0f} s" for p in POINTS) + " | best recipe |"
    ]
    lines.append("|---" * (4 + len(POINTS)) + "|")
    for row, name in enumerate(options.data):
        data = load_dataset(DistillConfig(dataset=name)).to(device)
        for column, count in enumerate(options.images):
            common = COMMON | {"dataset": name, "images_per_class": count, "choice.steps": options.steps}
            curves = {m: curve(m, common | settings, data, options.seconds) for m, settings in METHODS.items()}
            for line in rows_of(curves, DistillConfig().changed(common | METHODS["unroll"]), data):
                lines.append(f"| {name} | {10 * count} | {line} |")
                print(lines[-1], flush=True)
            draw(axes[row, column], f"{name}, {10 * count} images", {m: points for m, (points, _) in curves.items()})
            axes[row, column].set_xticks([p * options.seconds for p in POINTS])
    keep_table("methods", "Validation accuracy against seconds", "methods.py", lines, device, options.out)
    write_figure(figure, Path(options.out) / "methods.png")


def curve(method: str, settings: dict[str, Any], data: Dataset, seconds: float) -> tuple[list[Point], str]:
    """Validation accuracies along the way; and that of the best recipe at the end, as the table shows it."""
    problem = Problem.of(DistillConfig().changed(settings), data)
    step, current = textbook(problem) if method == "textbook" else ours(problem)
    points, spent, recipe = [], 0.0, None
    for share in POINTS:
        begin = time.perf_counter() - spent
        while time.perf_counter() - begin < share * seconds:
            step()
        if data.train.labels.is_cuda:
            torch.cuda.synchronize()
        spent = time.perf_counter() - begin
        recipe = recipe or validation_recipe(problem, current())
        points.append((spent, evaluate_on(problem, current(), "validation", recipe).accuracy))
    best = chosen_recipe(problem, current()).recipe
    accuracy = evaluate_on(problem, current(), "validation", best).accuracy
    return points, f"{100 * accuracy:.1f}: {summary(best)}"


def ours(problem: Problem) -> tuple[Callable[[], Any], Callable[[], DistilledSet]]:
    """An outer iteration, and the set so far."""
    distiller = problem.distiller()
    return distiller.step, lambda: distiller.averaged.unstack()[0].detached()


def textbook(problem: Problem) -> tuple[Callable[[], Any], Callable[[], DistilledSet]]:
    """The same of the textbook's code."""
    train, config = problem.data.train, problem.config
    assert isinstance(train.images, Pixels)
    channels, size, _ = problem.data.image_shape
    pixels = train.images
    real = pixels.levels, train.labels
    module = convnet(channels, size, COMMON["network"]["width"])
    book = Textbook(config, real, pixels.mean, pixels.std, str(problem.device), None, module)
    labels = torch.nn.functional.one_hot(book.labels, 10).float().expand(config.steps, -1, -1)
    return book.step, lambda: DistilledSet(torch.stack(book.images), labels, book.raw_rates).detached()


def rows_of(curves: dict[str, tuple[list[Point], str]], config: DistillConfig, data: Dataset) -> Iterator[str]:
    """The rows of the table: the methods, and random real images, in % of the validation images."""
    for method, (points, best) in curves.items():
        yield f"{method} | " + " | ".join(f"{100 * accuracy:.1f}" for _, accuracy in points) + f" | {best}"
    problem = Problem.of(config, replace(data, test=data.val))
    like = problem.distiller().learned.unstack()[0]
    same, best_of, chosen = random_real(problem, like, recipe_so_far(problem, like))
    empty = " |" * (len(POINTS) - 1)
    yield f"random real, as many steps | {100 * same.accuracy:.1f}{empty} | "
    yield f"random real |{empty} | {100 * best_of.accuracy:.1f}: {summary(chosen.recipe)}"


def draw(ax: Any, title: str, curves: dict[str, list[Point]]) -> None:
    """One panel of the figure."""
    for method, points in curves.items():
        ax.plot(*zip(*points, strict=True), "o-", label=method)
    ax.set(title=title, xlabel="seconds of learning", ylabel="validation accuracy")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:.3g}")
    ax.grid(alpha=0.3)
    ax.legend()


if __name__ == "__main__":
    main()
