"""Augmentation: random changes of images, as a pure function of the images and of random numbers drawn before.

It is differentiable for the images, so that a set can be learned through it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from raydistill.config.augment_settings import Transforms
from raydistill.system.errors import UserError

# An image's random numbers, each uniform in [0, 1), are in this order. With 0.5 all but the cutout change nothing.
SHIFT, FLIP, ROTATE, SCALE, COLOUR, CUTOUT = slice(0, 2), 2, 3, slice(4, 6), slice(6, 9), slice(9, 11)
NUMBERS = 11
LEAST_SIDE = 8  # Smaller images, in pixels, are not rotated or scaled.


def check_transforms(transforms: Transforms, image_shape: tuple[int, int, int], where: str) -> None:
    """Check that augmentation makes sense for images of a shape C, H, W.

    Args:
        transforms: the settings.
        image_shape: of the images.
        where: the section that the settings stand in, to name them by.

    Raises:
        UserError: the images are too small for a setting.
    """
    _, height, width = image_shape
    side, images = min(height, width), f"images of {height} x {width} pixels"
    if transforms.shift > side // 4:
        raise UserError(
            f"{where}.shift={transforms.shift}: is more than a quarter of a side, and of {images} not enough would be "
            f"left to know them by; at most {side // 4}"
        )
    if transforms.resample and side < LEAST_SIDE:
        setting = f"rotate={transforms.rotate:g}" if transforms.rotate else f"scale={transforms.scale:g}"
        raise UserError(
            f"{where}.{setting}: interpolating between the pixels of {images} leaves nothing of what they show; "
            f"it needs at least {LEAST_SIDE} x {LEAST_SIDE}"
        )


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Draw the random numbers [count, NUMBERS] of `count` images, on the generator's device.

    They are as many whatever is on, so that turning one transform on leaves the draws of the others as they are.
    """
    return torch.rand(count, NUMBERS, generator=generator, device=generator.device)


def augmented(images: Tensor, transforms: Transforms, draws: Tensor) -> Tensor:
    """Return images [B, C, H, W] changed as the draws say; the images themselves are not changed.

    First they are scaled, rotated, shifted and mirrored, then their colours change, then a square is cut out.

    Args:
        images: in normalised space.
        transforms: which changes, and how large.
        draws: as of `draw`, [B, NUMBERS], or [1, NUMBERS] for the same changes of all images.
    """
    draws = draws.to(images.dtype)
    if transforms.resample:
        images = _resampled(images, transforms, draws)
    elif transforms.shift or transforms.flip:
        images = _moved(images, transforms, draws)
    if transforms.colour:
        images = _coloured(images, transforms.colour, draws)
    if transforms.cutout:
        images = _cut(images, transforms.cutout, draws)
    return images


def _shifts(transforms: Transforms, draws: Tensor) -> Tensor:
    """Return shifts down and to the right [B, 2], in whole pixels."""
    most = transforms.shift
    return (draws[:, SHIFT] * (2 * most + 1)).floor().clamp(max=2 * most) - most


def _mirrored(transforms: Transforms, draws: Tensor) -> Tensor:
    """Return which images [B] are mirrored."""
    return draws[:, FLIP] < (0.5 if transforms.flip else 0.0)


def _moved(images: Tensor, transforms: Transforms, draws: Tensor) -> Tensor:
    """Shift and mirror images by whole pixels: without interpolation their values stay exact."""
    height, width = images.shape[2:]
    down, right = _shifts(transforms, draws).long()[:, :, None].unbind(1)
    rows = _reflected(torch.arange(height, device=images.device) - down, height)
    columns = _reflected(torch.arange(width, device=images.device) - right, width)
    columns = torch.where(_mirrored(transforms, draws)[:, None], columns.flip(1), columns)
    return _taken(images, rows[:, :, None] * width + columns[:, None, :])


def _resampled(images: Tensor, transforms: Transforms, draws: Tensor) -> Tensor:
    """Scale, rotate, shift and mirror images at once, so that they are interpolated (bilinearly) only once."""
    height, width = images.shape[2:]
    middle = (height - 1) / 2, (width - 1) / 2
    # Walk backwards from each pixel, relative to the middle, to where its value comes from.
    right = torch.where(_mirrored(transforms, draws), -1.0, 1.0)[:, None, None] * _places(width, images)
    shifts = _shifts(transforms, draws)[:, :, None, None]
    down, right = _places(height, images)[:, None] - shifts[:, 0], right - shifts[:, 1]
    angle = math.radians(transforms.rotate) * (2 * draws[:, ROTATE, None, None] - 1)
    cos, sin = angle.cos(), angle.sin()
    factors = transforms.scale ** (2 * draws[:, SCALE, None, None] - 1)
    rows = middle[0] + (cos * down - sin * right) / factors[:, 0]
    columns = middle[1] + (sin * down + cos * right) / factors[:, 1]
    if images.is_cuda and images.requires_grad:
        return _interpolated(images, rows, columns)
    # grid_sample is eight times as fast as a gather of four neighbours on a CPU, in both directions: 17 and 167 ms for
    # 512 x 1 x 28 x 28. Its backward pass on CUDA, however, adds in any order, so that no two runs agree.
    grid = torch.stack([columns / max(middle[1], 0.5), rows / max(middle[0], 0.5)], -1) - 1
    grid = grid.expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)


def _interpolated(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the values of images [B, C, H, W] at places [B, H, W] in between their pixels, as grid_sample does."""
    height, width = images.shape[2:]
    rows, columns = _reflected(rows, height), _reflected(columns, width)
    top, left = rows.floor(), columns.floor()
    result = torch.zeros_like(images)
    for row, row_share in ((top, top + 1 - rows), ((top + 1).clamp(max=height - 1), rows - top)):
        for column, column_share in ((left, left + 1 - columns), ((left + 1).clamp(max=width - 1), columns - left)):
            taken = _taken(images, (row * width + column).long())
            result = result + taken * (row_share * column_share)[:, None]
    return result


def _places(size: int, images: Tensor) -> Tensor:
    """Return the places [size] of a line's pixels, relative to its middle."""
    return torch.arange(size, device=images.device, dtype=images.dtype) - (size - 1) / 2


def _reflected(places: Tensor, size: int) -> Tensor:
    """Return the places in a line of `size` pixels that stand for any places; beyond its ends the line is mirrored.

    It is mirrored at its last pixel, so its period is 2 (size - 1). The border of digits is of one colour, and so is
    its mirror image; a border of zeros would draw a frame around them.
    """
    period = max(1, 2 * (size - 1))
    places = places % period
    return torch.minimum(places, period - places)


def _taken(images: Tensor, pixels: Tensor) -> Tensor:
    """Return the pixels [B, H, W], numbered row by row, of images [B, C, H, W]; or the same [1, H, W] of all."""
    count, channels = images.shape[:2]
    flat, pixels = images.flatten(2), pixels.flatten(1)[:, None]
    if images.is_cuda and images.requires_grad:
        # The backward pass of an index sorts before it adds, so its sums are the same each time; that of gather is not.
        first = torch.arange(count, device=images.device)[:, None, None]
        second = torch.arange(channels, device=images.device)[None, :, None]
        return flat[first, second, pixels].view_as(images)
    return flat.gather(2, pixels.expand(count, channels, -1)).view_as(images)


def _coloured(images: Tensor, strength: float, draws: Tensor) -> Tensor:
    """Change brightness, saturation and contrast, in the order and within the ranges of Zhao & Bilen 2021."""
    brightness, saturation, contrast = (strength * (draws[:, COLOUR, None, None, None] - 0.5)).unbind(1)
    images = images + brightness
    if images.shape[1] == 3:
        grey = images.mean(1, keepdim=True)
        images = grey + (images - grey) * (1 + 2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 + contrast)


def _cut(images: Tensor, share: float, draws: Tensor) -> Tensor:
    """Set a square around a random pixel to 0; the part of it that is beyond the border is lost."""
    height, width = images.shape[2:]
    side = max(1, round(share * min(height, width)))

    def inside(size: int, draws: Tensor) -> Tensor:
        first = (draws * size).floor() - side // 2
        places = torch.arange(size, device=draws.device)
        return (places >= first[:, None]) & (places < first[:, None] + side)

    top, left = draws[:, CUTOUT].unbind(1)
    square = inside(height, top)[:, :, None] & inside(width, left)[:, None, :]
    return images.masked_fill(square[:, None], 0.0)
