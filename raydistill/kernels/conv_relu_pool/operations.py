"""The kernels of conv_relu_pool.c, and on a GPU of triton_kernels.py, as torch operations.

They support neither autograd nor vmap. x [B, H, W, C], w [O, C, 5, 5], bias [O], z and g [B, PH, PW, O] or
[B, O, PH, PW]. For several networks x, w and bias, z and g have one more dimension in front, except for
x, or w and bias, where all networks share it.
"""

import functools
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from raydistill.kernels.conv_relu_pool.c import c_kernels
from raydistill.kernels.native import DTYPES, forbidden
from raydistill.kernels.operation import define

KERNEL = 5
MAX_ROW = 8 * 32  # The kernels support so many bytes in a row of a filter.


Kernels = Any  # Kernels are the functions forward, gather, scatter_x and scatter_w, as in c.py.


def can_do(images: Tensor) -> bool:
    """Return whether there are kernels for these images."""
    few_channels = KERNEL * images.shape[-1] * images.element_size() <= MAX_ROW
    return few_channels and _kernels(images.device, images.dtype) is not None


@functools.cache
def _kernels(device: torch.device, dtype: torch.dtype) -> Kernels | None:
    """Return the kernels for a device and a dtype; None where there are none."""
    if dtype not in DTYPES:
        return None
    if device.type == "cuda":
        return _of_gpu(device)
    if device.type == "meta":  # Torch's compiler calls operations to learn the shapes of their results.
        return _Nothing()
    return c_kernels(dtype) if device.type == "cpu" else None


def _kernels_for(tensor: Tensor) -> Kernels:
    """Return the kernels for a tensor for which `can_do` returned true."""
    kernels = _kernels(tensor.device, tensor.dtype)
    assert kernels is not None
    return kernels


def _of_gpu(device: torch.device) -> Kernels | None:
    """Return the Triton kernels, tried once; None where they cannot be compiled, or RAYDISTILL_NATIVE=0 forbids it."""
    if forbidden():
        return None

    def tried() -> Kernels:
        from raydistill.kernels.conv_relu_pool import triton_launch as kernels

        x, w, bias = (torch.zeros(shape, device=device) for shape in ((1, 6, 6, 1), (1, 1, 5, 5), (1,)))
        z = torch.zeros(1, 1, 1, 1, device=device)
        kernels.forward(x, w, bias, z, z.byte(), 0, True)
        return kernels

    try:
        with ThreadPoolExecutor(1) as thread:  # A trace in this thread would contain the call.
            return thread.submit(tried).result()
    except Exception as error:  # Triton or its compiler may be missing, or the GPU too old.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log = logging.getLogger("raydistill")
        log.warning("the GPU kernels cannot be compiled (%s); torch's slower operations serve instead", reason)
        return None


class _Nothing:
    """Kernels that compute nothing, for tensors that have a shape and no numbers."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args: None


def _alike(w: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return contiguous filters and biases, both for each network or both shared."""
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
    z = torch.empty(shape, dtype=x.dtype, device=x.device)
    winner = torch.empty(shape, dtype=torch.uint8, device=x.device)
    _kernels_for(x).forward(x, w, bias, z, winner, padding, outputs_last)
    return z, winner


def _gather(x: Tensor, w: Tensor, bias: Tensor, winner: Tensor, padding: int, outputs_last: bool) -> Tensor:
    x, (w, bias), winner = x.contiguous(), _alike(w, bias), winner.contiguous()
    z = torch.empty(winner.shape, dtype=x.dtype, device=x.device)
    _kernels_for(x).gather(x, w, bias, winner, z, padding, outputs_last)
    return z


def _scatter_x(
    g: Tensor, w: Tensor, winner: Tensor, height: int, width: int, padding: int, outputs_last: bool
) -> Tensor:
    g, w, winner = g.contiguous(), w.contiguous(), winner.contiguous()
    x = torch.empty((*winner.shape[:-3], height, width, w.shape[-3]), dtype=g.dtype, device=g.device)
    _kernels_for(g).scatter_x(g, w, winner, x, padding, outputs_last)
    return x


def _scatter_w(g: Tensor, x: Tensor, winner: Tensor, padding: int, outputs_last: bool) -> tuple[Tensor, Tensor]:
    g, x, winner = g.contiguous(), x.contiguous(), winner.contiguous()
    groups, outputs = winner.shape[:-4], winner.shape[-1 if outputs_last else -3]
    w = torch.empty((*groups, outputs, x.shape[-1], KERNEL, KERNEL), dtype=g.dtype, device=g.device)
    bias = torch.empty((*groups, outputs), dtype=g.dtype, device=g.device)
    _kernels_for(g).scatter_w(g, x, winner, w, bias, padding, outputs_last)
    return w, bias


_schemas: dict[str, Any] = {
    "conv_relu_pool(Tensor x, Tensor w, Tensor bias, int padding, bool outputs_last) -> (Tensor, Tensor)": _forward,
    "gather(Tensor x, Tensor w, Tensor bias, Tensor winner, int padding, bool outputs_last) -> Tensor": _gather,
    "scatter_x(Tensor g, Tensor w, Tensor winner, int height, int width, int padding, bool outputs_last) -> Tensor": (
        _scatter_x
    ),
    "scatter_w(Tensor g, Tensor x, Tensor winner, int padding, bool outputs_last) -> (Tensor, Tensor)": _scatter_w,
}
for _schema, _implementation in _schemas.items():
    define(_schema, _implementation, ("CPU", "CUDA", "Meta"))
