"""A 5x5 convolution, ReLU and 2x2 max pooling as one operation: fast on a CPU, differentiable any number of times.

The result for a pooling window is the convolution at one of its four positions, the winner, or 0. So a gradient reaches
fewer than one convolution output in four, and derivatives of any order are sums over the winners: three products, each
the derivative of the others. Where there are no kernels (no compiler, other number types), torch's own convolution,
pool and ReLU are used.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from raydistill.kernels.conv_relu_pool.operations import can_do
from raydistill.kernels.operation import Operation, ops, sum_over_sharing


def conv_relu_pool(images: Tensor, weight: Tensor, bias: Tensor, padding: int, outputs_last: bool) -> Tensor:
    """Return max_pool2d(relu(conv2d(images, weight, bias, padding)), 2) of images with channels last.

    Args:
        images: [B, H, W, C].
        weight: [O, C, 5, 5].
        bias: [O].
        padding: zeros around the images.
        outputs_last: whether the result has channels last too.

    Returns:
        [B, PH, PW, O], or [B, O, PH, PW].
    """
    if can_do(images):
        pooled: Tensor = _ConvReluPool.apply(images, weight, bias, padding, outputs_last)[0]
        return pooled
    pooled = F.relu(F.max_pool2d(F.conv2d(images.permute(0, 3, 1, 2), weight, bias, padding=padding), 2))
    return pooled.permute(0, 2, 3, 1) if outputs_last else pooled


class _ConvReluPool(Operation):
    ranks = (4, 4, 1)

    @staticmethod
    def forward(x: Tensor, w: Tensor, bias: Tensor, *layout: Any) -> Any:
        return ops.conv_relu_pool(x, w, bias, *layout)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, w, bias, *ctx.layout = inputs
        ctx.save_for_backward(x, w, output[1])
        ctx.bias_rank = bias.dim()
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> Any:
        return *_gather_gradients(ctx, g), None, None


class _Gather(Operation):
    ranks = (4, 4, 1, 4)

    @staticmethod
    def forward(x: Tensor, w: Tensor, bias: Tensor, winner: Tensor, *layout: Any) -> Any:
        return ops.gather(x, w, bias, winner, *layout)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, w, bias, winner, *ctx.layout = inputs
        ctx.save_for_backward(x, w, winner)
        ctx.bias_rank = bias.dim()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return *_gather_gradients(ctx, g), None, None, None


def _gather_gradients(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients for x, w and bias of the convolution at the winners."""
    x, w, winner = ctx.saved_tensors
    dx = dw = dbias = None
    if ctx.needs_input_grad[0]:
        dx = sum_over_sharing(x.dim(), _ScatterX.apply(g, w, winner, *x.shape[-3:-1], *ctx.layout))
    if ctx.needs_input_grad[1]:
        dw, dbias = _ScatterW.apply(g, x, winner, *ctx.layout)
        dw, dbias = sum_over_sharing(w.dim(), dw), sum_over_sharing(ctx.bias_rank, dbias)
    return dx, dw, dbias


class _ScatterX(Operation):
    ranks = (4, 4, 4)

    @staticmethod
    def forward(g: Tensor, w: Tensor, winner: Tensor, height: int, width: int, *layout: Any) -> Any:
        return ops.scatter_x(g, w, winner, height, width, *layout)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, _, _, padding, outputs_last = inputs
        ctx.save_for_backward(*tensors)
        ctx.layout = padding, outputs_last

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> Any:
        g, w, winner = ctx.saved_tensors
        dg = dw = None
        if ctx.needs_input_grad[0]:
            dg = _Gather.apply(dx, w, w.new_zeros(w.shape[:-3]), winner, *ctx.layout)
        if ctx.needs_input_grad[1]:
            dw = sum_over_sharing(w.dim(), _ScatterW.apply(g, dx, winner, *ctx.layout)[0])
        return dg, dw, None, None, None, None, None


class _ScatterW(Operation):
    ranks = (4, 4, 4)

    @staticmethod
    def forward(g: Tensor, x: Tensor, winner: Tensor, *layout: Any) -> Any:
        return ops.scatter_w(g, x, winner, *layout)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, padding, outputs_last = inputs
        ctx.save_for_backward(*tensors)
        ctx.layout = padding, outputs_last

    @staticmethod
    def backward(ctx: Any, dw: Tensor, dbias: Tensor) -> Any:
        g, x, winner = ctx.saved_tensors
        dg = dx = None
        if ctx.needs_input_grad[0]:
            dg = _Gather.apply(x, dw, dbias, winner, *ctx.layout)
        if ctx.needs_input_grad[1]:
            dx = sum_over_sharing(x.dim(), _ScatterX.apply(g, dw, winner, *x.shape[-3:-1], *ctx.layout))
        return dg, dx, None, None, None
