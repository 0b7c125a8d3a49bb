"""The kernels of conv_relu_pool.c, called with tensors."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raydistill.kernels.native import kernels_for

TENSORS = {"conv_relu_pool": 5, "gather": 5, "scatter_x": 4, "scatter_w": 5}  # How many each function takes.


def c_kernels(dtype: torch.dtype) -> "CKernels | None":
    """Return the kernels for a dtype of `native.DTYPES`; None where there is no C compiler."""
    library = kernels_for(Path(__file__).with_name("conv_relu_pool.c"), dtype, TENSORS)
    return CKernels(library) if library is not None else None


class CKernels:
    """The functions of a compiled library, called with contiguous tensors."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def forward(
        self, x: Tensor, w: Tensor, bias: Tensor, z: Tensor, winner: Tensor, padding: int, outputs_last: bool
    ) -> None:
        """Write max_pool(relu(conv)) into z, and the winning positions into winner."""
        size = _size(z.shape[:-4].numel(), x.shape, w.shape, padding, outputs_last)
        self.library.conv_relu_pool(x.data_ptr(), w.data_ptr(), bias.data_ptr(), z.data_ptr(), winner.data_ptr(), size)

    def gather(
        self, x: Tensor, w: Tensor, bias: Tensor, winner: Tensor, z: Tensor, padding: int, outputs_last: bool
    ) -> None:
        """Write the convolution at the winners into z."""
        size = _size(winner.shape[:-4].numel(), x.shape, w.shape, padding, outputs_last)
        self.library.gather(x.data_ptr(), w.data_ptr(), bias.data_ptr(), winner.data_ptr(), z.data_ptr(), size)

    def scatter_x(self, g: Tensor, w: Tensor, winner: Tensor, x: Tensor, padding: int, outputs_last: bool) -> None:
        """Write the gradient for the images, given g for the outputs, into x."""
        size = _size(winner.shape[:-4].numel(), x.shape, w.shape, padding, outputs_last)
        self.library.scatter_x(g.data_ptr(), w.data_ptr(), winner.data_ptr(), x.data_ptr(), size)

    def scatter_w(
        self, g: Tensor, x: Tensor, winner: Tensor, w: Tensor, bias: Tensor, padding: int, outputs_last: bool
    ) -> None:
        """Write the gradients for filters and biases, given g for the outputs, into w and bias."""
        size = _size(winner.shape[:-4].numel(), x.shape, w.shape, padding, outputs_last)
        self.library.scatter_w(g.data_ptr(), x.data_ptr(), winner.data_ptr(), w.data_ptr(), bias.data_ptr(), size)


@functools.lru_cache(maxsize=256)
def _size(groups: int, x: tuple[int, ...], w: tuple[int, ...], padding: int, outputs_last: bool) -> Any:
    """Return the struct Size of conv_relu_pool.c for x and w of these shapes."""
    shared = int(len(x) == 4), int(len(w) == 4)
    return (ctypes.c_long * 10)(groups, *x[-4:], w[-4], padding, *shared, outputs_last)
