"""Random crops and flips of real images, so that a distilled set does not learn where its training images stood."""

import torch
from torch import Tensor

SHIFT = 4  # pixels; with reflection and flips this is what Wang et al. 2018 did to CIFAR-10
KINDS = ("none", "crop", "crop_flip")


def augmented(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Images [B, C, H, W], each with a crop and a flip of its own.

    Args:
        images: left as they are.
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
    """Where each pixel of a shifted line of `size` pixels comes from, [B, size]; `shifts` [B, 1].

    Beyond its ends the line goes on as in a mirror that stands on its last pixel, so with a period of 2 (size - 1).
    """
    period = max(1, 2 * (size - 1))
    places = (torch.arange(size, device=shifts.device) + shifts) % period
    return torch.minimum(places, period - places)
