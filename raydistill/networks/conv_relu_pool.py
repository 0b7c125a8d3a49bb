"""A 5x5 convolution, ReLU and 2x2 max pooling as one operation: fast on a CPU, differentiable any number of times.

What comes out of a pooling window is the convolution at one of its four positions, or 0. So a gradient reaches fewer
than one convolution output in four, and derivatives of any order are sums over these winners: three products, each the
derivative of the others (conv_relu_pool.c). Where they do not serve (GPU, no C compiler, other dtypes), torch's own
convolution, pool and ReLU do.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from raydistill.native import load_kernels

KERNEL = 5
MAX_ROW = 8 * 32  # bytes in a row of a filter that the kernels can do
DEFINES = {torch.float32: ("REAL=float", "INT=int32_t"), torch.float64: ("REAL=double", "INT=int64_t")}


def conv_relu_pool(images: Tensor, weight: Tensor, bias: Tensor, padding: int, outputs_last: bool) -> Tensor:
    """max_pool2d(relu(conv2d(images, weight, bias, padding)), 2), channels last.

    Args:
        images: [B, H, W, C].
        weight: [O, C, 5, 5].
        bias: [O].
        padding: zeros around the images.
        outputs_last: whether the result has channels last too.

    Returns:
        [B, PH, PW, O], or [B, O, PH, PW].
    """
    few_channels = KERNEL * images.shape[-1] * images.element_size() <= MAX_ROW
    if images.device.type == "cpu" and few_channels and _kernels(images.dtype):
        pooled: Tensor = _ConvReluPool.apply(images, weight, bias, padding, outputs_last)[0]
        return pooled
    pooled = F.relu(F.max_pool2d(F.conv2d(images.permute(0, 3, 1, 2), weight, bias, padding=padding), 2))
    return pooled.permute(0, 2, 3, 1) if outputs_last else pooled


# The operations on memory. x [B, H, W, C], w [O, C, 5, 5], bias [O], z and g [B, PH, PW, O] or [B, O, PH, PW]; for
# several networks x, w and bias, z and g have one more dimension in front, but for x or w and bias that they share.


@functools.cache
def _kernels(dtype: torch.dtype) -> Any:
    """The C functions for a dtype; None where there are none."""
    if dtype not in DEFINES:
        return None
    kernels = load_kernels(Path(__file__).with_suffix(".c"), *DEFINES[dtype])
    for name, tensors in {"conv_relu_pool": 5, "gather": 5, "scatter_x": 4, "scatter_w": 5}.items() if kernels else ():
        getattr(kernels, name).argtypes = [ctypes.c_void_p] * (tensors + 1)
        getattr(kernels, name).restype = None
    return kernels


@functools.lru_cache(maxsize=256)
def _size(groups: int, x: tuple[int, ...], w: tuple[int, ...], padding: int, outputs_last: bool) -> Any:
    """Size in conv_relu_pool.c, for x and w of these shapes."""
    shared = int(len(x) == 4), int(len(w) == 4)
    return (ctypes.c_long * 10)(groups, *x[-4:], w[-4], padding, *shared, outputs_last)


def _alike(w: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Both for each network, or both shared."""
    if w.dim() - 4 < bias.dim() - 1:
        w = w.expand(len(bias), *w.shape)
    if bias.dim() - 1 < w.dim() - 4:
        bias = bias.expand(len(w), *bias.shape)
    return w.contiguous(), bias.contiguous()


def _pooled(side: int, padding: int) -> int:
    return (side + 2 * padding - KERNEL + 1) // 2


def _forward(x: Tensor, w: Tensor, bias: Tensor, padding: int, outputs_last: bool) -> tuple[Tensor, Tensor]:
    x, (w, bias) = x.contiguous(), _alike(w, bias)
    groups = x.shape[:-4] or w.shape[:-4]
    cells = [_pooled(side, padding) for side in x.shape[-3:-1]]
    shape = (*groups, x.shape[-4], *([*cells, w.shape[-4]] if outputs_last else [w.shape[-4], *cells]))
    z, winner = x.new_empty(shape), x.new_empty(shape, dtype=torch.uint8)
    size = _size(groups.numel(), x.shape, w.shape, padding, outputs_last)
    _kernels(x.dtype).conv_relu_pool(x.data_ptr(), w.data_ptr(), bias.data_ptr(), z.data_ptr(), winner.data_ptr(), size)
    return z, winner


def _gather(x: Tensor, w: Tensor, bias: Tensor, winner: Tensor, padding: int, outputs_last: bool) -> Tensor:
    x, (w, bias), winner = x.contiguous(), _alike(w, bias), winner.contiguous()
    z = x.new_empty(winner.shape)
    size = _size(winner.shape[:-4].numel(), x.shape, w.shape, padding, outputs_last)
    _kernels(x.dtype).gather(x.data_ptr(), w.data_ptr(), bias.data_ptr(), winner.data_ptr(), z.data_ptr(), size)
    return z


def _scatter_x(
    g: Tensor, w: Tensor, winner: Tensor, height: int, width: int, padding: int, outputs_last: bool
) -> Tensor:
    x = g.new_empty((*winner.shape[:-3], height, width, w.shape[-3]))
    size = _size(winner.shape[:-4].numel(), x.shape, w.shape, padding, outputs_last)
    g, w, winner = g.contiguous(), w.contiguous(), winner.contiguous()
    _kernels(g.dtype).scatter_x(g.data_ptr(), w.data_ptr(), winner.data_ptr(), x.data_ptr(), size)
    return x


def _scatter_w(g: Tensor, x: Tensor, winner: Tensor, padding: int, outputs_last: bool) -> tuple[Tensor, Tensor]:
    groups, outputs = winner.shape[:-4], winner.shape[-1 if outputs_last else -3]
    w = g.new_empty((*groups, outputs, x.shape[-1], KERNEL, KERNEL))
    bias = g.new_empty((*groups, outputs))
    size = _size(groups.numel(), x.shape, w.shape, padding, outputs_last)
    g, x, winner = g.contiguous(), x.contiguous(), winner.contiguous()
    _kernels(g.dtype).scatter_w(g.data_ptr(), x.data_ptr(), winner.data_ptr(), w.data_ptr(), bias.data_ptr(), size)
    return w, bias


_library = torch.library.Library("raydistill", "DEF")
_ops = torch.ops.raydistill
DIRECT: dict[Any, Any] = {}  # the functions behind the operations, for callers that need neither autograd nor vmap
for _schema, _implementation in {
    "conv_relu_pool(Tensor x, Tensor w, Tensor bias, int padding, bool outputs_last) -> (Tensor, Tensor)": _forward,
    "gather(Tensor x, Tensor w, Tensor bias, Tensor winner, int padding, bool outputs_last) -> Tensor": _gather,
    "scatter_x(Tensor g, Tensor w, Tensor winner, int height, int width, int padding, bool outputs_last) -> Tensor": (
        _scatter_x
    ),
    "scatter_w(Tensor g, Tensor x, Tensor winner, int padding, bool outputs_last) -> (Tensor, Tensor)": _scatter_w,
}.items():
    _name = _schema.partition("(")[0]
    _library.define(_schema)
    _library.impl(_name, _implementation, "CPU")
    DIRECT[getattr(_ops, _name).default] = _implementation


# The same as autograd and vmap see them.


class _Operation(Function):
    """An operation that takes several networks at once, so that vmap only gives it more of them."""

    ranks: tuple[int, ...]  # of the tensors for one network

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, *args: Any) -> Any:
        """Runs V calls, of one network or of N each, as one call of V or V * N."""
        several = [a.dim() - (d is not None) - r for a, d, r in zip(args, in_dims, cls.ranks, strict=False)]
        networks = [a.shape[1 if d == 0 else 0] for a, d, n in zip(args, in_dims, several, strict=False) if n]
        shape = (info.batch_size, *networks[:1])

        def merged(arg: Tensor, dim: int | None, rank: int) -> Tensor:
            if dim is None and arg.dim() == rank:
                return arg  # all share it
            if dim is None or dim != 0:
                arg = arg[None] if dim is None else arg.movedim(dim, 0)
            if networks and arg.dim() == rank + 1:  # a tensor for each call, shared by its networks
                arg = arg.unsqueeze(1)
            return arg.expand(*shape, *arg.shape[len(shape) :]).flatten(0, len(shape) - 1)

        tensors = [merged(*each) for each in zip(args, in_dims, cls.ranks, strict=False)]
        result = cls.apply(*tensors, *args[len(tensors) :])
        if isinstance(result, tuple):
            return tuple(part.unflatten(0, shape) for part in result), (0,) * len(result)
        return result.unflatten(0, shape), 0


def _shared(rank: int, gradient: Tensor) -> Tensor:
    """The gradient for what the networks share, which has a lower rank: the sum of theirs."""
    return gradient.sum(0) if rank < gradient.dim() else gradient


class _ConvReluPool(_Operation):
    ranks = (4, 4, 1)

    @staticmethod
    def forward(x: Tensor, w: Tensor, bias: Tensor, *layout: Any) -> Any:
        return _ops.conv_relu_pool(x, w, bias, *layout)

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


class _Gather(_Operation):
    ranks = (4, 4, 1, 4)

    @staticmethod
    def forward(x: Tensor, w: Tensor, bias: Tensor, winner: Tensor, *layout: Any) -> Any:
        return _ops.gather(x, w, bias, winner, *layout)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, w, bias, winner, *ctx.layout = inputs
        ctx.save_for_backward(x, w, winner)
        ctx.bias_rank = bias.dim()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return *_gather_gradients(ctx, g), None, None, None


def _gather_gradients(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients for x, w and bias of the convolution where the winners are."""
    x, w, winner = ctx.saved_tensors
    dx = dw = dbias = None
    if ctx.needs_input_grad[0]:
        dx = _shared(x.dim(), _ScatterX.apply(g, w, winner, *x.shape[-3:-1], *ctx.layout))
    if ctx.needs_input_grad[1]:
        dw, dbias = _ScatterW.apply(g, x, winner, *ctx.layout)
        dw, dbias = _shared(w.dim(), dw), _shared(ctx.bias_rank, dbias)
    return dx, dw, dbias


class _ScatterX(_Operation):
    ranks = (4, 4, 4)

    @staticmethod
    def forward(g: Tensor, w: Tensor, winner: Tensor, height: int, width: int, *layout: Any) -> Any:
        return _ops.scatter_x(g, w, winner, height, width, *layout)

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
            dw = _shared(w.dim(), _ScatterW.apply(g, dx, winner, *ctx.layout)[0])
        return dg, dw, None, None, None, None, None


class _ScatterW(_Operation):
    ranks = (4, 4, 4)

    @staticmethod
    def forward(g: Tensor, x: Tensor, winner: Tensor, *layout: Any) -> Any:
        return _ops.scatter_w(g, x, winner, *layout)

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
            dx = _shared(x.dim(), _ScatterX.apply(g, dw, winner, *x.shape[-3:-1], *ctx.layout))
        return dg, dx, None, None, None
