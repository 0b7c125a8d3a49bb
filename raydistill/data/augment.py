"""Random crops and flips of real images, so that a distilled set does not learn where its training images stood."""

import torch
from torch import Tensor

SHIFT = 4  # The largest shift in pixels; Wang et al. 2018 augmented CIFAR-10 so, with reflection and flips.
KINDS = ("none", "crop", "crop_flip")


def augmented(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Return images [B, C, H, W], each with a crop and a flip of its own.

    Args:
        images: they are not changed.
        kind: none; crop: the images, grown by 4 reflected pixels on each side, are cropped to their size at a random
            place; crop_flip: and then mirrored, left to right, one in two.
        generator: on the images' device; not drawn from for none.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no augmentation {kind} (there are {', '.join(KINDS)})")
    if kind == "none":
        return images
    count, channels, height, width = images.shape
    device = images.device
    shifts = torch.randint(-SHIFT, SHIFT + 1, (2, count, 1), generator=generator, device=device)
    rows, columns = _reflected(shifts[0], height), _reflected(shifts[1], width)
    if kind == "crop_flip":
        flipped = torch.randint(2, (count, 1), generator=generator, device=device) == 1
        columns = torch.where(flipped, columns.flip(1), columns)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, height * width)
    return images.flatten(2).gather(2, pixels.expand(-1, channels, -1)).view_as(images)


def _reflected(shifts: Tensor, size: int) -> Tensor:
    """Return the source [B, size] of each pixel of a line of `size` pixels that is shifted by `shifts` [B, 1].

    Beyond its ends the line is reflected at its last pixel, so its period is 2 (size - 1).
    """
    period = max(1, 2 * (size - 1))
    places = (torch.arange(size, device=shifts.device) + shifts) % period
    return torch.minimum(places, period - places)
