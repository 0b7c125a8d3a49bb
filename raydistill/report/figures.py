"""Figures, as matplotlib Figure objects without the global state of pyplot."""

import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from raydistill.store.artifact import Artifact
from raydistill.system.errors import UserError
from raydistill.system.storage import open_place, replace_file

MAX_ROWS = 12  # Rows of images in one grid.
COLUMNS = 20  # Images in a row.
# What random real images are trained with.
BASELINES = {"baseline_same_steps": "as many steps", "baseline_best_recipe": "the best recipe"}
SMALL = 16  # Sides of fewer pixels are drawn smooth: an eye does not put together a digit of 8 x 8 squares.


NAMES_ARE_TEXT: Any = {"text.usetex": False}  # It overrides the user's matplotlibrc: names may contain $, _ and %.


@matplotlib.rc_context(NAMES_ARE_TEXT)
def image_grid(
    pixels: Tensor, labels: Tensor, class_names: Sequence[str], learning_rates: Tensor | None = None
) -> Figure:
    """Draw one row for each minibatch, one column for each image; titles are classes, of soft labels the two largest.

    A single minibatch of more than 20 images, as ridge regression learns it, is drawn in rows of ten. Of a large set
    the first `MAX_ROWS` rows and 20 images of each are drawn. Each image is stretched to its own 2nd and 98th
    percentile: learned ones go far beyond black and white. Those with sides below `SMALL` are drawn smooth.

    Args:
        pixels: [S, B, C, H, W], 0 is black and 1 white.
        labels: class probabilities [S, B, K].
        class_names: of the K classes.
        learning_rates: [E, S]; where there are any, each row is marked with its step sizes.
    """
    several_of_a_class = pixels.shape[1] > len(class_names)
    if len(pixels) == 1 and pixels.shape[1] > COLUMNS and pixels.shape[1] % 10 == 0:
        pixels, labels = (tensor.unflatten(1, (-1, 10)).squeeze(0) for tensor in (pixels, labels))
        learning_rates = None  # All rows have the same.
    steps, batch = min(len(pixels), MAX_ROWS), pixels.shape[1]
    columns = min(batch, COLUMNS)
    soft = not torch.equal(labels, torch.nn.functional.one_hot(labels.argmax(-1), labels.shape[-1]).to(labels))
    figure = Figure(figsize=(1.1 * columns + 0.8, 1.25 * steps + 0.4), dpi=110, layout="constrained")
    axes = figure.subplots(steps, columns, squeeze=False)
    for s in range(steps):
        for b in range(columns):
            ax = axes[s, b]
            picture = stretched(pixels[s, b]).permute(1, 2, 0).squeeze(2).numpy()
            smooth = "bicubic" if max(picture.shape[:2]) < SMALL else "nearest"
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation=smooth)
            ax.set(xticks=[], yticks=[])
            if s == 0 or several_of_a_class or soft:
                ax.set_title(_title(labels[s, b], class_names, soft), fontsize=8, parse_math=False)  # "$" is a letter.
        if learning_rates is not None and learning_rates.numel():
            rates = " ".join(f"{rate:.2g}" for rate in learning_rates[:3, s].tolist())
            axes[s, 0].set_ylabel(f"step {s}\nlr {rates}", fontsize=6)
    return figure


def _title(label: Tensor, class_names: Sequence[str], soft: bool) -> str:
    if not soft:
        return class_names[int(label.argmax())][:12]
    values, classes = label.topk(min(2, len(label)))
    parts = zip(values.tolist(), classes.tolist(), strict=True)
    return "\n".join(f"{class_names[i].split(' - ')[0][:10]} {value:.2f}" for value, i in parts)


def artifact_grid(artifact: Artifact) -> Figure:
    """Draw the images of an artifact as `image_grid` does, and above them its accuracy beside random real images.

    Raises:
        UserError: they are neither grey nor RGB.
    """
    distilled = artifact.distilled
    if artifact.image_shape[0] not in (1, 3):
        raise UserError(f"images of {artifact.image_shape[0]} channels cannot be drawn; only those of 1 or 3")
    figure = image_grid(artifact.pixels(), distilled.labels, artifact.class_names, distilled.learning_rates)
    known = {name: f"{100 * value:.1f}%" for name, value in artifact.metrics.items() if value is not None}
    if {"test_accuracy", *BASELINES} <= known.keys():
        others = ", ".join(f"{known[name]} with {what}" for name, what in BASELINES.items())
        figure.suptitle(f"test accuracy {known['test_accuracy']}; random real images: {others}", fontsize=9)
    return figure


def stretched(pixels: Tensor) -> Tensor:
    """Return an image [C, H, W] with its 2nd percentile at 0 and its 98th at 1; values beyond are clipped."""
    low, high = torch.quantile(pixels.flatten(), torch.tensor([0.02, 0.98]))
    scaled: Tensor = (pixels - low) / (high - low).clamp_min(1e-6)
    return scaled.clamp(0, 1)


@matplotlib.rc_context(NAMES_ARE_TEXT)
def step_sizes(learning_rates: Tensor) -> Figure:
    """Draw the learned step sizes [E, S] in the order of their use."""
    figure = Figure(figsize=(5, 3), dpi=110, layout="constrained")
    ax = figure.subplots()
    ax.plot(range(1, learning_rates.numel() + 1), learning_rates.flatten().tolist(), "o-", markersize=3)
    ax.set(xlabel="gradient step", ylabel="step size", yscale="log")
    ax.grid(alpha=0.3)
    return figure


@matplotlib.rc_context(NAMES_ARE_TEXT)
def pareto_front(
    rows: Sequence[dict[str, Any]], front: Sequence[dict[str, Any]], objectives: Mapping[str, str]
) -> Figure:
    """Draw all trials and their Pareto front: the first objective against the second, else against the trial's number.

    Where the first objective is val_accuracy, random real images are drawn beside it, by their test accuracy.

    Args:
        rows: a mapping for each trial, with a value for each objective.
        front: the non-dominated ones of them, with what their test found, if there was one, under `tested`.
        objectives: name -> "max" or "min".
    """
    y, *others = objectives
    x = others[0] if others else None

    def xs(trials: Sequence[dict[str, Any]]) -> list[Any]:
        return [t[x] for t in trials] if x else [rows.index(t) for t in trials]

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    ax = figure.subplots()
    ax.plot(xs(rows), [r[y] for r in rows], "o", color="0.7", label=f"{len(rows)} trials")
    best = sorted(front, key=lambda r: r[x] if x else 0)
    ax.plot(xs(best), [r[y] for r in best], "o-", color="tab:red", label="front", drawstyle="steps-post")
    tested = [trial for trial in best if y == "val_accuracy" and BASELINES.keys() <= trial.get("tested", {}).keys()]
    for (name, what), mark in zip(BASELINES.items(), ("v", "^"), strict=True):
        if tested:
            heights = [trial["tested"][name] for trial in tested]
            ax.plot(xs(tested), heights, mark, color="tab:blue", label=f"random real images, {what} (test)")
    ax.set(xlabel=x or "trial", ylabel=y)
    ax.grid(alpha=0.3)
    ax.legend()
    return figure


@contextmanager
def any_letters() -> Iterator[None]:
    """Suppress the warnings for letters that matplotlib's font lacks; they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def write_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure in the format of the file's ending (.png, .pdf, .svg) to a folder or address.

    Raises:
        UserError: the place or the format cannot be written.
    """
    filesystem, inside = open_place(path)
    drawn = io.BytesIO()
    try:
        with any_letters():
            figure.savefig(drawn, format=os.path.splitext(inside)[1][1:] or None)
        filesystem.create_dir(os.path.dirname(inside), recursive=True)
        replace_file(filesystem, inside, drawn.getvalue())
    except (OSError, ValueError, RuntimeError) as error:  # matplotlib raises all three.
        raise UserError(f"{path}: the picture cannot be written: {error}") from error
