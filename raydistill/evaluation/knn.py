"""Nearest neighbours: real images are classified without a network, by the images of a set that are nearest."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raydistill.data import Split
from raydistill.method.objective import CLASSIFY, Objective
from raydistill.system.device import exact_products

NEIGHBOURS = (1, 3, 5)  # The numbers of neighbours to choose from.
BLOCK = 2**22  # The number of distances that are computed at once.


@dataclass(frozen=True)
class ByNeighbours:
    """Accuracy (a fraction) on real images with `k` neighbours: mean and deviation of the sample over several sets."""

    accuracy: float
    accuracy_std: float
    k: int


def by_neighbours(
    images: Tensor, classes: Tensor, choose: Split, test: Split, objective: Objective = CLASSIFY
) -> ByNeighbours:
    """Test nearest neighbours, with the number of them in `NEIGHBOURS` that has the best accuracy on `choose`.

    Args:
        images: D sets [D, S, B, C, H, W].
        classes: the classes [S, B] of each set's images.
        choose: the real images to choose the number of neighbours with.
        test: the real images to test with.
        objective: what the real images should be taken for.
    """
    possible = [k for k in NEIGHBOURS if k <= classes.numel()]
    best = int(neighbour_accuracies(images, classes, choose, possible, objective).mean(1).argmax())
    [accuracies] = neighbour_accuracies(images, classes, test, possible[best : best + 1], objective)
    std = accuracies.std().item() if len(accuracies) > 1 else 0.0
    return ByNeighbours(accuracies.mean().item(), std, possible[best])


def neighbour_accuracies(
    images: Tensor, classes: Tensor, split: Split, counts: Sequence[int], objective: Objective = CLASSIFY
) -> Tensor:
    """Return accuracies on real images [len(counts), D], for each number of neighbours and each of D sets.

    Distances are Euclidean in normalised space. Where several classes have most votes, the first one counts, as in
    scikit-learn.
    Images and classes are as in `by_neighbours`; no count is above S * B.
    """
    sets, references = len(images), classes.numel()
    points = images.reshape(sets * references, -1)  # [D * S * B, F]
    lengths = points.square().sum(1)
    kinds = 1 + int(torch.maximum(classes.max(), split.labels.max()))
    confusion = torch.zeros(len(counts), sets * kinds**2, dtype=torch.int64, device=images.device)
    offsets = kinds**2 * torch.arange(sets, device=images.device)
    size = max(1, BLOCK // len(points))
    for real, labels in zip(split.images.split(size), split.labels.split(size), strict=True):
        with exact_products():  # This is |x - r|^2 without |x|^2, which is the same for all r.
            distances = torch.addmm(lengths, real.flatten(1), points.T, alpha=-2).view(-1, sets, references)
        nearest = classes.flatten()[distances.topk(max(counts), largest=False).indices]  # [M, D, k]
        for i, count in enumerate(counts):
            votes = torch.zeros(len(real), sets, kinds, device=images.device)
            votes.scatter_add_(2, nearest[:, :, :count], torch.ones_like(votes[:, :, :1]).expand(-1, -1, count))
            cells = (offsets + labels[:, None] * kinds + votes.argmax(2)).flatten()
            confusion[i] += cells.bincount(minlength=sets * kinds**2)
    accuracies = objective.measures(confusion.view(-1, kinds, kinds))["accuracy"]
    return accuracies.view(len(counts), sets)
