"""A convolution whose derivatives, of any order, are a convolution's own three products.

torch derives a gradient of a convolution as another convolution, with images for filters, for which cuDNN's kernels
are slow. Here each of the three (the outputs, the gradient for images, the gradient for filters) is the derivative of
the others, and has a kernel of its own. On a CPU torch's own derivatives are used.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

aten = torch.ops.aten
Pair = tuple[int, int]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Return torch.nn.functional.conv2d of the same arguments."""
    if not x.is_cuda or isinstance(padding, str):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return convolution(x, weight, bias, _pair(stride), _pair(padding), _pair(dilation), groups)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """Return the convolution of images x [B, C, H, W] with filters [O, C / groups, h, w], plus a bias [O] if given."""
    outputs: Tensor = _Outputs.apply(x, weight, stride, padding, dilation, groups)
    return outputs if bias is None else outputs + bias[:, None, None]


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else tuple(value)


class _Product(Function):
    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        one, other, *ctx.layout = inputs
        ctx.save_for_backward(one, other)


class _Outputs(_Product):
    """The outputs of a convolution of images x with filters w."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Any:
        return aten.convolution(x, w, None, stride, padding, dilation, False, (0, 0), groups)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        dx = _OfImages.apply(g, w, x.detach(), *ctx.layout) if ctx.needs_input_grad[0] else None
        dw = _OfFilters.apply(g, x, w.detach(), *ctx.layout) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None, None, None


class _OfImages(_Product):
    """The gradient for images like x, from filters w and the gradient g for the outputs."""

    @staticmethod
    def forward(g: Tensor, w: Tensor, x: Tensor, *layout: Any) -> Any:
        return _gradient(g, x, w, layout, (True, False, False))[0]

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> Any:
        g, w = ctx.saved_tensors
        _, *layout = ctx.layout
        dg = _Outputs.apply(dx, w, *layout) if ctx.needs_input_grad[0] else None
        dw = _OfFilters.apply(g, dx, w.detach(), *layout) if ctx.needs_input_grad[1] else None
        return dg, dw, None, None, None, None, None


class _OfFilters(_Product):
    """The gradient for filters like w, from images x and the gradient g for the outputs."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, w: Tensor, *layout: Any) -> Any:
        return _gradient(g, x, w, layout, (False, True, False))[1]

    @staticmethod
    def backward(ctx: Any, dw: Tensor) -> Any:
        g, x = ctx.saved_tensors
        _, *layout = ctx.layout
        dg = _Outputs.apply(x, dw, *layout) if ctx.needs_input_grad[0] else None
        dx = _OfImages.apply(g, dw, x.detach(), *layout) if ctx.needs_input_grad[1] else None
        return dg, dx, None, None, None, None, None


def _gradient(g: Tensor, x: Tensor, w: Tensor, layout: Any, wanted: tuple[bool, bool, bool]) -> Any:
    stride, padding, dilation, groups = layout
    return aten.convolution_backward(g, x, w, None, stride, padding, dilation, False, (0, 0), groups, wanted)
