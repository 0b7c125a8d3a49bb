"""The kernels of triton_kernels.py, launched with tensors."""

import math
from typing import Any

import torch
import triton
from torch import Tensor

from raydistill.kernels.conv_relu_pool import triton_kernels as kernels

FEW = 2**16  # With no more results, each Triton program computes little, so that there are many programs.
# Each pair is how much a program computes, and its warps: for few results, and for many.
FORWARD = (kernels.forward_kernel, 8, 1, 2), (kernels.forward_dot_kernel, 32, 16, 2)  # windows, outputs
GATHER = (16, 2), (64, 4)  # windows
SCATTER_X = (8, 2), (16, 2)  # pixels
SCATTER_W = 128, 8  # windows at a time
PROGRAMS = 2048  # scatter_w starts no more, where it computes its sums in several parts.


class _Layout:
    """The sizes and strides of one call, for x and z of these shapes."""

    def __init__(self, x: tuple[int, ...], z: tuple[int, ...], padding: int, outputs_last: bool) -> None:
        *_, batch, self.height, self.width, self.channels = x
        *_, tall, broad = z[:-1] if outputs_last else z
        self.groups = math.prod(z[:-4])
        self.outputs = z[-1 if outputs_last else -3]
        self.broad, self.size = broad, tall * broad
        self.cells, self.pixels = batch * self.size, batch * self.height * self.width
        # Strides from output to output, and from cell to cell.
        self.strides = (1, self.outputs) if outputs_last else (self.size, 1)
        self.z_group = self.cells * self.outputs
        self.constants = {"C": self.channels, "PAD": padding}

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.size, self.broad, self.height, self.width, self.outputs, *self.strides


def _each(tensor: Tensor, rank: int) -> int:
    """Return the stride, in numbers, from one network's tensor to the next one's; 0 where they share it."""
    return tensor[0].numel() if tensor.dim() > rank else 0


def forward(x: Tensor, w: Tensor, bias: Tensor, z: Tensor, winner: Tensor, padding: int, outputs_last: bool) -> None:
    """Write max_pool(relu(conv)) into z, and the winning positions into winner; all tensors contiguous."""
    at = _Layout(x.shape, z.shape, padding, outputs_last)
    many = at.cells * at.outputs * at.groups >= FEW and x.dtype == torch.float32
    kernel, cells, some, warps = FORWARD[many]
    grid = triton.cdiv(at.cells, cells), triton.cdiv(at.outputs, some), at.groups
    apart = _each(x, 4), _each(w, 4), _each(bias, 1), at.z_group
    sizes = {"CELLS": cells, "OUTPUTS": some, "num_warps": warps}
    with torch.cuda.device_of(x):
        kernel[grid](x, w, bias, z, winner, at.cells, *at.sizes, *apart, **at.constants, **sizes)


def gather(x: Tensor, w: Tensor, bias: Tensor, winner: Tensor, z: Tensor, padding: int, outputs_last: bool) -> None:
    """Write the convolution at the winners into z."""
    at = _Layout(x.shape, z.shape, padding, outputs_last)
    cells, warps = GATHER[at.cells * at.outputs * at.groups >= FEW]
    grid = triton.cdiv(at.cells, cells), at.outputs, at.groups
    apart = _each(x, 4), _each(w, 4), _each(bias, 1), at.z_group
    with torch.cuda.device_of(x):
        kernels.gather_kernel[grid](
            x, w, bias, winner, z, at.cells, *at.sizes, *apart, **at.constants, CELLS=cells, num_warps=warps
        )


def scatter_x(g: Tensor, w: Tensor, winner: Tensor, x: Tensor, padding: int, outputs_last: bool) -> None:
    """Write the gradient for the images, given g for the outputs, into x."""
    at = _Layout(x.shape, g.shape, padding, outputs_last)
    pixels, warps = SCATTER_X[at.pixels * at.groups >= FEW]
    grid = triton.cdiv(at.pixels, pixels), at.groups
    apart = _each(w, 4), at.z_group, at.pixels * at.channels
    more = {"CHANNELS": triton.next_power_of_2(at.channels), "OUTPUTS": triton.next_power_of_2(at.outputs)}
    with torch.cuda.device_of(g):
        kernels.scatter_x_kernel[grid](
            g, w, winner, x, at.pixels, *at.sizes, *apart, **at.constants, **more, PIXELS=pixels, num_warps=warps
        )


def scatter_w(g: Tensor, x: Tensor, winner: Tensor, w: Tensor, bias: Tensor, padding: int, outputs_last: bool) -> None:
    """Write the gradients for filters and biases, given g for the outputs, into w and bias."""
    at = _Layout(x.shape, g.shape, padding, outputs_last)
    cells, warps = SCATTER_W
    parts = max(1, min(PROGRAMS // (at.outputs * at.channels * at.groups), at.cells // (2 * cells)))
    size = triton.cdiv(triton.cdiv(at.cells, parts), cells) * cells
    parts = triton.cdiv(at.cells, size)
    all_w, all_bias = (t if parts == 1 else t.new_empty(parts, *t.shape) for t in (w, bias))
    apart: Any = _each(x, 4), at.z_group, size, w.numel(), bias.numel()
    grid = at.outputs * at.channels, parts, at.groups
    with torch.cuda.device_of(g):
        kernels.scatter_w_kernel[grid](
            g, x, winner, all_w, all_bias, at.cells, *at.sizes, *apart, **at.constants, CELLS=cells, num_warps=warps
        )
        if parts > 1:
            total = (triton.cdiv(w.numel() + bias.numel(), 64),)
            sizes = parts, w.numel(), bias.numel()
            kernels.sum_kernel[total](all_w, all_bias, w, bias, *sizes, NUMBERS=64, num_warps=2)
