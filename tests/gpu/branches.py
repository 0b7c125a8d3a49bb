"""Which way each ReLU and max pool goes, to tell a rounding error from a wrong kernel.

A hypergradient has jumps: where a ReLU's argument lies within rounding errors of 0, or two values of a pooling window
within rounding errors of each other, float32 and float64 may go different ways, and then even a right kernel is off by
a whole unit's share. So float64 is computed a second time along float32's ways. What is left of the difference are
rounding errors, 1e-6, if the kernels are right, and as much as before if they are not.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from raydistill.kernels import codegen
from raydistill.kernels.conv_relu_pool import autograd

aten = torch.ops.aten
Way = tuple[str, Tensor]  # the kind of operation, and for each number that comes out which way it came


class Branches(TorchDispatchMode):
    """Within it, the ways of a recorded computation are noted in `taken`; the computation must be recorded already.

    Args:
        follow: ways to be gone, as another computation of the same kind took them, with another dtype or device.
    """

    def __init__(self, follow: Iterable[Way] | None = None) -> None:
        super().__init__()
        self.taken: list[Way] = []
        self.follow = None if follow is None else iter(follow)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is aten.relu.default:
            return self._relu(result)
        if function is aten.max_pool2d_with_indices.default:
            return self._pool(args[0], *result)
        if function is torch.ops.raydistill.conv_relu_pool.default:
            return self._kernel(args, *result)
        return result

    def _relu(self, result: Tensor) -> Tensor:
        on = self._way("relu", result > 0)
        smallest = torch.finfo(result.dtype).tiny  # of those that go on, though they would not: derivatives look at it
        return torch.where(on, result.clamp_min(smallest), 0.0) if self.follow else result

    def _pool(self, images: Tensor, values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Of windows without a positive value nothing gets through a ReLU, before it or behind."""
        way = self._way("pool", torch.where(values > 0, indices, -1))
        if self.follow:
            indices = torch.where(way >= 0, way, indices)
            values = images.flatten(-2).gather(-1, indices.flatten(-2)).view_as(indices)
        return values, indices

    def _kernel(self, args: Any, values: Tensor, winner: Tensor) -> tuple[Tensor, Tensor]:
        """Our own kernels' winner of each window, which says too whether it was positive."""
        winner = self._way("conv_relu_pool", winner)
        if self.follow:
            images, weight, bias, *layout = args
            values = torch.ops.raydistill.gather(images, weight, bias, winner, *layout)
        return values, winner

    def _way(self, kind: str, own: Tensor) -> Tensor:
        if self.follow:
            theirs, way = next(self.follow)
            assert (theirs, way.shape) == (kind, own.shape), "the two computations are not of the same kind"
            own = way.to(own.device)
        self.taken.append((kind, own))
        return own


def switches(some: list[Way], others: list[Way]) -> int:
    """How many ways differ between two computations of the same kind."""
    assert [kind for kind, _ in some] == [kind for kind, _ in others], "they are not of the same kind"
    return sum(int((a.cpu() != b.cpu()).sum()) for (_, a), (_, b) in zip(some, others, strict=True))


def seen_by_modes(patch: Any) -> None:
    """Has recorded programs call our kernels by their names, where Branches sees them."""
    patch.setattr(codegen, "IMPLEMENTATIONS", {})


def use_kernels(patch: Any, wanted: bool) -> None:
    """Whether networks that have kernels of our own use them."""
    if not wanted:
        patch.setattr(autograd, "can_do", lambda *args: False)
