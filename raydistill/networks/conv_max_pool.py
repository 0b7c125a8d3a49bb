"""A 5x5 convolution with 2x2 max pooling, as one operation that is fast on a CPU and differentiable any number of times.

The maximum of a window comes from one of its four positions. So a gradient reaches one convolution output in four, and
derivatives of any order are sums over these winners: three products (`_gather`, `_scatter_x`, `_scatter_w`), each the
derivative of the others. In C (conv_max_pool.c) they take a fifth of the time of torch's convolutions and pools on
LeNet; elsewhere (GPU, no compiler, other dtypes) torch does the same arithmetic.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from raydistill.native import load_kernels

KERNEL = 5
SOURCE = Path(__file__).with_name("conv_max_pool.c")
DEFINES = {torch.float32: ("REAL=float", "INT=int32_t"), torch.float64: ("REAL=double", "INT=int64_t")}


def conv_max_pool(images: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """max_pool2d(conv2d(images, weight, bias, padding), 2), with channels last.

    Args:
        images: [B, H, W, C].
        weight: [O, C, 5, 5].
        bias: [O].
        padding: zeros around the images.

    Returns:
        [B, PH, PW, O].
    """
    if _has_kernel(images):
        pooled, _ = _ConvMaxPool.apply(images[None], weight.permute(0, 2, 3, 1).contiguous()[None], padding)
        return pooled[0] + bias
    pooled = F.max_pool2d(F.conv2d(images.permute(0, 3, 1, 2), weight, bias, padding=padding), 2)
    return pooled.permute(0, 2, 3, 1)


def _has_kernel(images: Tensor) -> bool:
    few_channels = KERNEL * images.shape[-1] * images.element_size() <= 8 * 32  # as many vectors as the kernels know
    usable = images.device.type == "cpu" and images.dtype in DEFINES and few_channels
    return usable and load_kernels(SOURCE, *DEFINES[images.dtype]) is not None


# The four operations, as torch sees them: x [G or 1, B, H, W, C], w [G or 1, O, 5, 5, C], z and g [G, B, PH, PW, O].
_library = torch.library.Library("raydistill", "DEF")
_library.define("conv_max_pool(Tensor x, Tensor w, int padding) -> (Tensor, Tensor)")
_library.define("gather(Tensor x, Tensor w, Tensor winner, int padding) -> Tensor")
_library.define("scatter_x(Tensor g, Tensor w, Tensor winner, int height, int width, int padding) -> Tensor")
_library.define("scatter_w(Tensor g, Tensor x, Tensor winner, int padding) -> Tensor")


def _call(name: str, size: list[int], *tensors: Tensor) -> None:
    kernels = load_kernels(SOURCE, *DEFINES[tensors[0].dtype])
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
    getattr(kernels, name)(*pointers, (ctypes.c_long * len(size))(*size))


def _size(groups: int, x: Any, w: Any, padding: int) -> list[int]:
    """The kernels' Size, from the shapes of x and w."""
    _, batch, height, width, channels = x
    strides = [batch * height * width * channels * (x[0] > 1), w[1] * KERNEL * KERNEL * channels * (w[0] > 1)]
    return [groups, batch, height, width, channels, w[1], padding, *strides]


def _forward(x: Tensor, w: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    groups, (batch, height, width) = max(len(x), len(w)), x.shape[1:4]
    tall, broad = ((side + 2 * padding - KERNEL + 1) // 2 for side in (height, width))
    z = x.new_empty(groups, batch, tall, broad, w.shape[1])
    winner = torch.empty_like(z, dtype=torch.uint8)
    _call("conv_max_pool", _size(groups, x.shape, w.shape, padding), x.contiguous(), w.contiguous(), z, winner)
    return z, winner


def _gather(x: Tensor, w: Tensor, winner: Tensor, padding: int) -> Tensor:
    z = x.new_empty(winner.shape)
    size = _size(len(winner), x.shape, w.shape, padding)
    _call("gather", size, x.contiguous(), w.contiguous(), winner, z)
    return z


def _scatter_x(g: Tensor, w: Tensor, winner: Tensor, height: int, width: int, padding: int) -> Tensor:
    x = g.new_empty(len(winner), winner.shape[1], height, width, w.shape[-1])
    size = _size(len(winner), x.shape, w.shape, padding)
    _call("scatter_x", size, g.contiguous(), w.contiguous(), winner, x)
    return x


def _scatter_w(g: Tensor, x: Tensor, winner: Tensor, padding: int) -> Tensor:
    w = g.new_empty(len(winner), winner.shape[-1], KERNEL, KERNEL, x.shape[-1])
    size = _size(len(winner), x.shape, w.shape, padding)
    _call("scatter_w", size, g.contiguous(), x.contiguous(), winner, w)
    return w


for _name, _implementation in {
    "conv_max_pool": _forward, "gather": _gather, "scatter_x": _scatter_x, "scatter_w": _scatter_w
}.items():
    _library.impl(_name, _implementation, "CPU")
_ops = torch.ops.raydistill


# And as autograd and vmap see them.


class _Operation(Function):
    """An operation whose first dimension counts networks, so that vmap only makes it longer."""

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, *args: Any) -> Any:
        """Runs V calls of G networks each as one call of V * G."""
        pairs = list(zip(args, in_dims, strict=True))
        groups = max(arg.movedim(dim or 0, 0).shape[dim is not None] for arg, dim in pairs if isinstance(arg, Tensor))
        outputs = cls.apply(*(_merged(arg, dim, info.batch_size, groups) for arg, dim in pairs))
        several = isinstance(outputs, tuple)
        split = tuple(t.unflatten(0, (info.batch_size, groups)) for t in (outputs if several else (outputs,)))
        return (split, (0,) * len(split)) if several else (split[0], 0)


def _merged(arg: Any, dim: int | None, calls: int, groups: int) -> Any:
    """[V, G or 1, ...] (V at `dim`) as [V * G, ...]; what all V * G share stays [1, ...]."""
    if not isinstance(arg, Tensor) or (dim is None and len(arg) == 1):
        return arg
    arg = arg[None] if dim is None else arg.movedim(dim, 0)
    return arg.expand(calls, groups, *arg.shape[2:]).flatten(0, 1)


def _for(like: Tensor, gradient: Tensor) -> Tensor:
    """The gradient for what networks may have shared."""
    return gradient.sum(0, keepdim=True) if len(like) < len(gradient) else gradient


class _ConvMaxPool(_Operation):
    @staticmethod
    def forward(x: Tensor, w: Tensor, padding: int) -> Any:
        return _ops.conv_max_pool(x, w, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, w, ctx.padding = inputs
        ctx.save_for_backward(x, w, output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> Any:
        x, w, winner = ctx.saved_tensors
        dx = _for(x, _ScatterX.apply(g, w, winner, *x.shape[2:4], ctx.padding)) if ctx.needs_input_grad[0] else None
        dw = _for(w, _ScatterW.apply(g, x, winner, ctx.padding)) if ctx.needs_input_grad[1] else None
        return dx, dw, None


class _Gather(_Operation):
    @staticmethod
    def forward(x: Tensor, w: Tensor, winner: Tensor, padding: int) -> Any:
        return _ops.gather(x, w, winner, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.padding = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w, winner = ctx.saved_tensors
        dx = _for(x, _ScatterX.apply(g, w, winner, *x.shape[2:4], ctx.padding)) if ctx.needs_input_grad[0] else None
        dw = _for(w, _ScatterW.apply(g, x, winner, ctx.padding)) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None


class _ScatterX(_Operation):
    @staticmethod
    def forward(g: Tensor, w: Tensor, winner: Tensor, height: int, width: int, padding: int) -> Any:
        return _ops.scatter_x(g, w, winner, height, width, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, _, _, ctx.padding = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> Any:
        g, w, winner = ctx.saved_tensors
        dg = _for(g, _Gather.apply(dx, w, winner, ctx.padding)) if ctx.needs_input_grad[0] else None
        dw = _for(w, _ScatterW.apply(g, dx, winner, ctx.padding)) if ctx.needs_input_grad[1] else None
        return dg, dw, None, None, None, None


class _ScatterW(_Operation):
    @staticmethod
    def forward(g: Tensor, x: Tensor, winner: Tensor, padding: int) -> Any:
        return _ops.scatter_w(g, x, winner, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.padding = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, dw: Tensor) -> Any:
        g, x, winner = ctx.saved_tensors
        dg = _for(g, _Gather.apply(x, dw, winner, ctx.padding)) if ctx.needs_input_grad[0] else None
        dx = _for(x, _ScatterX.apply(g, dw, winner, *x.shape[2:4], ctx.padding)) if ctx.needs_input_grad[1] else None
        return dg, dx, None, None
