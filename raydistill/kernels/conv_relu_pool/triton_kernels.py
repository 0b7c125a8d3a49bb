"""The kernels of operations.py in Triton's language, for GPUs; triton_launch.py launches them.

A program computes some of the results of one network: at some windows (`cell`s) or pixels, for some outputs. A filter's
25 numbers are the first of a vector of 32, which is summed at the end. Each sum is taken by one program, or in parts
that are added in the same order each time: so the same numbers come out each time. Sums are of float32, not of TF32.
"""

import triton
import triton.language as tl


@triton.jit
def _top_left(cell, size, broad, PAD: tl.constexpr):
    """Return the image of a pooling window, the window's place in it, and its upper left pixel."""
    place = cell % size
    return cell // size, place, 2 * (place // broad) - PAD, 2 * (place % broad) - PAD


@triton.jit
def _pixel(x, image, row, column, channel, H, W, C: tl.constexpr, ok):
    """Return a number of an image; 0 beyond its borders."""
    ok = ok & (row >= 0) & (row < H) & (column >= 0) & (column < W)
    return tl.load(x + ((image * H + row) * W + column) * C + channel, mask=ok, other=0.0)


@triton.jit
def _better(best, which, value, position: tl.constexpr):
    """Return the larger of two numbers, and its position; NaN counts as larger."""
    better = (value > best) | (value != value)
    return tl.where(better, value, best), tl.where(better, position, which)


@triton.jit
def forward_kernel(
    x, w, bias, z, winner, cells, size, broad, H, W, outputs, z_output, z_cell, x_group, w_group, b_group, z_group,
    C: tl.constexpr, PAD: tl.constexpr, CELLS: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Write max_pool(relu(conv)), and the winning positions: 0 to 3, or 4 for none."""
    group = tl.program_id(2)
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    tap = tl.arange(0, 32)  # A filter has 25.
    inside, some = cell < cells, output < outputs
    image, place, top, left = _top_left(cell, size, broad, PAD)
    x += group * x_group
    row, column = top[:, None] + (tap // 5)[None, :], left[:, None] + (tap % 5)[None, :]
    seen = inside[:, None] & (tap < 25)[None, :]
    filters = w + group * w_group + (output * (C * 25))[:, None] + tap[None, :]
    real = some[:, None] & (tap < 25)[None, :]
    first = tl.zeros([CELLS, OUTPUTS, 32], x.dtype.element_ty)
    second, third, fourth = first, first, first
    for channel in tl.static_range(C):
        weight = tl.load(filters + channel * 25, mask=real, other=0.0)[None, :, :]
        first += _pixel(x, image[:, None], row, column, channel, H, W, C, seen)[:, None, :] * weight
        second += _pixel(x, image[:, None], row, column + 1, channel, H, W, C, seen)[:, None, :] * weight
        third += _pixel(x, image[:, None], row + 1, column, channel, H, W, C, seen)[:, None, :] * weight
        fourth += _pixel(x, image[:, None], row + 1, column + 1, channel, H, W, C, seen)[:, None, :] * weight
    which = tl.zeros([CELLS, OUTPUTS], tl.int32)
    best, which = _better(tl.sum(first, 2), which, tl.sum(second, 2), 1)
    best, which = _better(best, which, tl.sum(third, 2), 2)
    best, which = _better(best, which, tl.sum(fourth, 2), 3)
    _store_pooled(
        best, which, bias + group * b_group + output, z, winner, inside[:, None] & some[None, :], some,
        group * z_group + (image * size * outputs + place * z_cell)[:, None] + (output * z_output)[None, :],
    )  # fmt: skip


@triton.jit
def forward_dot_kernel(
    x, w, bias, z, winner, cells, size, broad, H, W, outputs, z_output, z_cell, x_group, w_group, b_group, z_group,
    C: tl.constexpr, PAD: tl.constexpr, CELLS: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Write what forward_kernel writes, for many windows, by matrix products of their pixels with the filters."""
    group = tl.program_id(2)
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    tap = tl.arange(0, 32)
    inside, some = cell < cells, output < outputs
    image, place, top, left = _top_left(cell, size, broad, PAD)
    x += group * x_group
    row, column = top[:, None] + (tap // 5)[None, :], left[:, None] + (tap % 5)[None, :]
    seen = inside[:, None] & (tap < 25)[None, :]
    filters = w + group * w_group + (output * (C * 25))[None, :] + tap[:, None]
    real = (tap < 25)[:, None] & some[None, :]
    first = tl.zeros([CELLS, OUTPUTS], tl.float32)
    second, third, fourth = first, first, first
    for channel in range(C):
        weight = tl.load(filters + channel * 25, mask=real, other=0.0)
        pixel = _pixel(x, image[:, None], row, column, channel, H, W, C, seen)
        first = tl.dot(pixel, weight, first, input_precision="ieee")
        pixel = _pixel(x, image[:, None], row, column + 1, channel, H, W, C, seen)
        second = tl.dot(pixel, weight, second, input_precision="ieee")
        pixel = _pixel(x, image[:, None], row + 1, column, channel, H, W, C, seen)
        third = tl.dot(pixel, weight, third, input_precision="ieee")
        pixel = _pixel(x, image[:, None], row + 1, column + 1, channel, H, W, C, seen)
        fourth = tl.dot(pixel, weight, fourth, input_precision="ieee")
    which = tl.zeros([CELLS, OUTPUTS], tl.int32)
    best, which = _better(first, which, second, 1)
    best, which = _better(best, which, third, 2)
    best, which = _better(best, which, fourth, 3)
    _store_pooled(
        best, which, bias + group * b_group + output, z, winner, inside[:, None] & some[None, :], some,
        group * z_group + (image * size * outputs + place * z_cell)[:, None] + (output * z_output)[None, :],
    )  # fmt: skip


@triton.jit
def _store_pooled(best, which, bias, z, winner, wanted, some, at):
    """Add biases, and write the positive numbers, 0 for the others."""
    best += tl.load(bias, mask=some, other=0.0)[None, :]
    which = tl.where(best <= 0, 4, which)
    tl.store(z + at, tl.where(best <= 0, 0.0, best), mask=wanted)
    tl.store(winner + at, which.to(tl.uint8), mask=wanted)


@triton.jit
def gather_kernel(
    x, w, bias, winner, z, cells, size, broad, H, W, outputs, z_output, z_cell, x_group, w_group, b_group, z_group,
    C: tl.constexpr, PAD: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """Write the convolution at the winners, 0 where there is none."""
    output, group = tl.program_id(1), tl.program_id(2)
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)
    tap = tl.arange(0, 32)
    inside = cell < cells
    image, place, top, left = _top_left(cell, size, broad, PAD)
    at = group * z_group + image * size * outputs + place * z_cell + output * z_output
    which = tl.load(winner + at, mask=inside, other=4).to(tl.int32)
    won = which < 4
    row = (top + which // 2)[:, None] + (tap // 5)[None, :]
    column = (left + which % 2)[:, None] + (tap % 5)[None, :]
    seen = won[:, None] & (tap < 25)[None, :]
    x += group * x_group
    filters = w + group * w_group + output * (C * 25) + tap
    total = tl.zeros([CELLS, 32], x.dtype.element_ty)
    for channel in tl.static_range(C):
        weight = tl.load(filters + channel * 25, mask=tap < 25, other=0.0)
        total += _pixel(x, image[:, None], row, column, channel, H, W, C, seen) * weight[None, :]
    value = tl.sum(total, 1) + tl.load(bias + group * b_group + output)
    tl.store(z + at, tl.where(won, value, 0.0), mask=inside)


@triton.jit
def scatter_x_kernel(
    g, w, winner, x, pixels, size, broad, H, W, outputs, z_output, z_cell, w_group, z_group, x_group,
    C: tl.constexpr, CHANNELS: tl.constexpr, PAD: tl.constexpr, PIXELS: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Write the gradient for the images, given g for the outputs."""
    group = tl.program_id(1)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    output, channel = tl.arange(0, OUTPUTS), tl.arange(0, CHANNELS)
    inside, some = pixel < pixels, channel < C
    image, place = pixel // (H * W), pixel % (H * W)
    row, column = place // W + PAD, place % W + PAD
    tall = size // broad
    g += group * z_group
    winner += group * z_group
    filters = w + group * w_group + (output * (C * 25))[:, None] + channel[None, :] * 25
    total = tl.zeros([PIXELS, OUTPUTS, CHANNELS], g.dtype.element_ty)
    for i in tl.static_range(3):  # Three rows of three windows see a pixel.
        for j in tl.static_range(3):
            down, across = row // 2 - i, column // 2 - j
            sees = inside & (down >= 0) & (down < tall) & (across >= 0) & (across < broad)
            cell = image * size * outputs + (down * broad + across) * z_cell
            at = cell[:, None] + (output * z_output)[None, :]
            sees = sees[:, None] & (output < outputs)[None, :]
            which = tl.load(winner + at, mask=sees, other=4).to(tl.int32)
            value = tl.load(g + at, mask=sees, other=0.0)
            y, z = (row - 2 * down)[:, None] - which // 2, (column - 2 * across)[:, None] - which % 2
            hit = sees & (which < 4) & (y >= 0) & (y < 5) & (z >= 0) & (z < 5)
            weight = tl.load(
                filters[None, :, :] + (y * 5 + z)[:, :, None], mask=hit[:, :, None] & some[None, None, :], other=0.0
            )
            total += value[:, :, None] * weight
    at = group * x_group + pixel[:, None] * C + channel[None, :]
    tl.store(x + at, tl.sum(total, 1), mask=inside[:, None] & some[None, :])


@triton.jit
def scatter_w_kernel(
    g, x, winner, w, bias, cells, size, broad, H, W, outputs, z_output, z_cell, x_group, z_group, part_size, w_part,
    b_part, C: tl.constexpr, PAD: tl.constexpr, CELLS: tl.constexpr,
):  # fmt: skip
    """Write the gradients for filters and biases, given g for the outputs, from a part of the windows."""
    output, channel = tl.program_id(0) // C, tl.program_id(0) % C
    part, group = tl.program_id(1), tl.program_id(2)
    tap = tl.arange(0, 32)
    g += group * z_group + output * z_output
    winner += group * z_group + output * z_output
    x += group * x_group
    total = tl.zeros([CELLS, 32], g.dtype.element_ty)
    sum_of_g = tl.zeros([CELLS], g.dtype.element_ty)
    end = tl.minimum(cells, (part + 1) * part_size)
    for start in range(part * part_size, end, CELLS):
        cell = start + tl.arange(0, CELLS)
        inside = cell < end
        image, place, top, left = _top_left(cell, size, broad, PAD)
        at = image * size * outputs + place * z_cell
        which = tl.load(winner + at, mask=inside, other=4).to(tl.int32)
        won = which < 4
        value = tl.load(g + at, mask=won, other=0.0)
        sum_of_g += value
        row = (top + which // 2)[:, None] + (tap // 5)[None, :]
        column = (left + which % 2)[:, None] + (tap % 5)[None, :]
        seen = _pixel(x, image[:, None], row, column, channel, H, W, C, won[:, None] & (tap < 25)[None, :])
        total += value[:, None] * seen
    at = w + part * w_part + ((group * outputs + output) * C + channel) * 25 + tap
    tl.store(at, tl.sum(total, 0), mask=tap < 25)
    if channel == 0:
        tl.store(bias + part * b_part + group * outputs + output, tl.sum(sum_of_g, 0))


@triton.jit
def sum_kernel(parts_w, parts_bias, w, bias, parts, w_size, b_size, NUMBERS: tl.constexpr):
    """Write the sums over all parts."""
    at = tl.program_id(0) * NUMBERS + tl.arange(0, NUMBERS)
    behind = at - w_size
    is_w, is_bias = at < w_size, (behind >= 0) & (behind < b_size)
    sum_of_w = tl.zeros([NUMBERS], w.dtype.element_ty)
    sum_of_bias = sum_of_w
    for part in range(parts):
        sum_of_w += tl.load(parts_w + part * w_size + at, mask=is_w, other=0.0)
        sum_of_bias += tl.load(parts_bias + part * b_size + behind, mask=is_bias, other=0.0)
    tl.store(w + at, sum_of_w, mask=is_w)
    tl.store(bias + behind, sum_of_bias, mask=is_bias)
