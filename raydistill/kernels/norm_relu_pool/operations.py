"""The kernels of norm_relu_pool.c as torch operations, for CPUs; they support neither autograd nor vmap.

Shapes: y, dy and u [B, H, W, C], z, g and dg [B, H / 2, W / 2, C], gain, bias and their gradients [C], mean and rstd
[B, C]. For several networks every tensor has one more dimension in front.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raydistill.kernels.native import DTYPES, kernels_for
from raydistill.kernels.operation import define

TENSORS = {"forward": 6, "backward": 9, "second": 12}  # How many each function of the C file takes.


class Size(ctypes.Structure):
    """The struct Size of norm_relu_pool.c."""

    _fields_ = (*((name, ctypes.c_long) for name in ("groups", "batch", "height", "width", "channels")),
                ("epsilon", ctypes.c_double))  # fmt: skip


def can_do(images: Tensor) -> bool:
    """Return whether there are kernels for these images."""
    return images.device.type == "cpu" and images.dtype in DTYPES and _library(images.dtype) is not None


@functools.cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the compiled functions for a dtype of `DTYPES`; None where there is no C compiler."""
    return kernels_for(Path(__file__).with_name("norm_relu_pool.c"), dtype, TENSORS)


def _call(name: str, y: Tensor, *tensors: Tensor, epsilon: float = 0.0) -> None:
    """Call a function of the C file with contiguous tensors, for images like y."""
    if y.is_meta:  # Torch's compiler calls operations to learn the shapes of their results.
        return
    size = Size(y.shape[:-4].numel(), *y.shape[-4:], epsilon)
    getattr(_library(y.dtype), name)(*(tensor.data_ptr() for tensor in tensors), ctypes.addressof(size))


def _contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)


def _forward(y: Tensor, gain: Tensor, bias: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    y, gain, bias = _contiguous(y, gain, bias)
    height, width, channels = y.shape[-3:]
    z = y.new_empty((*y.shape[:-3], height // 2, width // 2, channels))
    mean, rstd = (y.new_empty((*y.shape[:-3], channels)) for _ in range(2))
    _call("forward", y, y, gain, bias, z, mean, rstd, epsilon=epsilon)
    return z, mean, rstd


def _backward(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    g, y, *statistics = _contiguous(*tensors)
    dy, d_gain, d_bias = torch.empty_like(y), torch.empty_like(statistics[-1]), torch.empty_like(statistics[-1])
    _call("backward", y, g, y, *statistics, dy, d_gain, d_bias)
    return dy, d_gain.sum(-2), d_bias.sum(-2)


def _second(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, to_gain, to_bias, g, y, *statistics = _contiguous(*tensors)
    dg, dy, d_gain = torch.empty_like(g), torch.empty_like(y), torch.empty_like(statistics[-1])
    _call("second", y, u, to_gain, to_bias, g, y, *statistics, dg, dy, d_gain)
    return dg, dy, d_gain.sum(-2)


_STATISTICS = "Tensor gain, Tensor bias, Tensor mean, Tensor rstd"
_schemas: dict[str, Any] = {
    "norm_relu_pool(Tensor y, Tensor gain, Tensor bias, float epsilon) -> (Tensor, Tensor, Tensor)": _forward,
    f"norm_relu_pool_backward(Tensor g, Tensor y, {_STATISTICS}) -> (Tensor, Tensor, Tensor)": _backward,
    "norm_relu_pool_second(Tensor u, Tensor to_gain, Tensor to_bias, Tensor g, Tensor y, "
    f"{_STATISTICS}) -> (Tensor, Tensor, Tensor)": _second,
}
for _schema, _implementation in _schemas.items():
    define(_schema, _implementation, ("CPU", "Meta"))
