"""The kernels of conv_relu_pool.c as torch operations, without autograd and vmap.

x [B, H, W, C], w [O, C, 5, 5], bias [O], z and g [B, PH, PW, O] or [B, O, PH, PW]. For several networks x, w and bias,
z and g have one more dimension in front, but for x or w and bias that they share.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raydistill.native import load_kernels

KERNEL = 5
MAX_ROW = 8 * 32  # bytes in a row of a filter that the kernels can do
DEFINES = {torch.float32: ("REAL=float", "INT=int32_t"), torch.float64: ("REAL=double", "INT=int64_t")}


def can_do(images: Tensor) -> bool:
    """Whether there are kernels for these images."""
    few_channels = KERNEL * images.shape[-1] * images.element_size() <= MAX_ROW
    return images.device.type == "cpu" and few_channels and _kernels(images.dtype) is not None


@functools.cache
def _kernels(dtype: torch.dtype) -> Any:
    """The C functions for a dtype; None where there are none."""
    if dtype not in DEFINES:
        return None
    kernels = load_kernels(Path(__file__).with_name("conv_relu_pool.c"), *DEFINES[dtype])
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
    if w.dim() == bias.dim() + 3:
        return w.contiguous(), bias.contiguous()
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
    z, winner = torch.empty(shape, dtype=x.dtype), torch.empty(shape, dtype=torch.uint8)
    size = _size(groups.numel(), x.shape, w.shape, padding, outputs_last)
    _kernels(x.dtype).conv_relu_pool(x.data_ptr(), w.data_ptr(), bias.data_ptr(), z.data_ptr(), winner.data_ptr(), size)
    return z, winner


def _gather(x: Tensor, w: Tensor, bias: Tensor, winner: Tensor, padding: int, outputs_last: bool) -> Tensor:
    x, (w, bias), winner = x.contiguous(), _alike(w, bias), winner.contiguous()
    z = torch.empty(winner.shape, dtype=x.dtype)
    size = _size(winner.shape[:-4].numel(), x.shape, w.shape, padding, outputs_last)
    _kernels(x.dtype).gather(x.data_ptr(), w.data_ptr(), bias.data_ptr(), winner.data_ptr(), z.data_ptr(), size)
    return z


def _scatter_x(
    g: Tensor, w: Tensor, winner: Tensor, height: int, width: int, padding: int, outputs_last: bool
) -> Tensor:
    x = torch.empty((*winner.shape[:-3], height, width, w.shape[-3]), dtype=g.dtype)
    size = _size(winner.shape[:-4].numel(), x.shape, w.shape, padding, outputs_last)
    g, w, winner = g.contiguous(), w.contiguous(), winner.contiguous()
    _kernels(g.dtype).scatter_x(g.data_ptr(), w.data_ptr(), winner.data_ptr(), x.data_ptr(), size)
    return x


def _scatter_w(g: Tensor, x: Tensor, winner: Tensor, padding: int, outputs_last: bool) -> tuple[Tensor, Tensor]:
    groups, outputs = winner.shape[:-4], winner.shape[-1 if outputs_last else -3]
    w = torch.empty((*groups, outputs, x.shape[-1], KERNEL, KERNEL), dtype=g.dtype)
    bias = torch.empty((*groups, outputs), dtype=g.dtype)
    size = _size(groups.numel(), x.shape, w.shape, padding, outputs_last)
    g, x, winner = g.contiguous(), x.contiguous(), winner.contiguous()
    _kernels(g.dtype).scatter_w(g.data_ptr(), x.data_ptr(), winner.data_ptr(), w.data_ptr(), bias.data_ptr(), size)
    return w, bias


_library = torch.library.Library("raydistill", "DEF")
ops = torch.ops.raydistill
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
    DIRECT[getattr(ops, _name).default] = _implementation
