"""The vector-Jacobian product by autograd, without what torch imports for it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Pullback(torch.autograd.Function):
    """A scalar of which the gradient for `output` is `cotangent`."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, cotangent: Tensor) -> Tensor:
        ctx.save_for_backward(cotangent)
        return output.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0], None


def pullback(output: Tensor, leaves: Sequence[Tensor], cotangent: Tensor, again: bool = False) -> tuple[Tensor, ...]:
    """Return the gradients of `leaves`, given that of `output`.

    `torch.autograd.grad(output, leaves, cotangent)` computes the same, but at its first call it imports sympy.

    Args:
        output: what autograd computed from the leaves.
        leaves: tensors that require a gradient.
        cotangent: the gradient of `output`, of its shape.
        again: whether it is called once more for this output.
    """
    with torch.enable_grad():
        scalar = _Pullback.apply(output, cotangent)
    return torch.autograd.grad(scalar, leaves, retain_graph=again)
