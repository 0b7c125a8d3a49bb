"""Agreement of two hypergradients, by direction and norm as well as by the largest difference."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from raydistill.method import DistilledSet


@dataclass(frozen=True)
class Agreement:
    """Agreement of a computed value with the expected one; of several parts, the worst.

    error: norm of the difference over the norm. cosine: of the angle between them; the direction is right where it
    is 1. largest: largest difference over largest value. A single ReLU or pool that switches shows in `largest` long
    before it shows in `error`.
    """

    error: float
    cosine: float
    largest: float

    @property
    def digits(self) -> float:
        """Correct decimal digits, by norm: 0 to 16; 0 where something is not a number."""
        return 0.0 if math.isnan(self.error) else min(16.0, max(0.0, -math.log10(self.error or 1e-16)))


def agreement(got: DistilledSet, expected: DistilledSet) -> Agreement:
    """Return the worst over images, labels and raw rates, each alone: their sizes differ by orders of magnitude."""
    parts = [
        tensor_agreement(getattr(got, name), getattr(expected, name)) for name in ("images", "labels", "raw_rates")
    ]
    return Agreement(
        error=_worst([part.error for part in parts]),
        cosine=-_worst([-part.cosine for part in parts]),
        largest=_worst([part.largest for part in parts]),
    )


def tensor_agreement(got: Tensor, expected: Tensor) -> Agreement:
    """Compare two tensors of one shape, in float64 on the CPU; `expected` is not all zero."""
    a, b = (tensor.detach().to("cpu", torch.float64).flatten() for tensor in (got, expected))
    difference = a - b
    return Agreement(
        error=float(difference.norm() / b.norm()),
        cosine=float(a @ b / (a.norm() * b.norm())),
        largest=float(difference.abs().max() / b.abs().max()),
    )


def _worst(values: list[float]) -> float:
    """Return the largest; NaN where one of them is NaN, which `max` may overlook."""
    return math.nan if any(map(math.isnan, values)) else max(values)
