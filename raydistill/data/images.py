"""Images as arrays: resizing, and conversion to grey or three channels."""

from collections.abc import Iterator

import numpy as np
import torch

from raydistill.system.errors import UserError

PART_BYTES = 2**24  # Bytes of images that are converted at a time.


def fit_images(images: np.ndarray, size: int | None, channels: int | None) -> np.ndarray:
    """Return uint8 images [M, C, H, W] at size x size with `channels` channels; None keeps what they have.

    Raises:
        UserError: images that are neither grey nor in colours.
    """
    return with_channels(resize_images(images, size), channels)


def resize_images(images: np.ndarray, size: int | None) -> np.ndarray:
    """Resize uint8 images [..., C, H, W]: scale the shorter side (bilinear, antialiased), crop the centre square."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    from torchvision.transforms.v2.functional import (
        center_crop,
        resize,
    )  # Importing takes seconds; most data need none.

    def resized(part: np.ndarray) -> np.ndarray:
        scaled = resize(torch.from_numpy(part.copy()), [size], antialias=True)  # Pillow's memory is read-only.
        return np.asarray(center_crop(scaled, [size]))

    return resized(images) if images.ndim < 4 else np.concatenate([resized(part) for part in in_parts(images)])


def with_channels(images: np.ndarray, channels: int | None) -> np.ndarray:
    """Return uint8 images [M, C, H, W] with one channel, the luminance of ITU-R 601, or three; None keeps theirs.

    Raises:
        UserError: images that are neither grey nor in colours.
    """
    if channels is None or images.shape[1] == channels:
        return images
    if images.shape[1] not in (1, 3):
        raise UserError(
            f"data.channels={channels}: the images have {images.shape[1]} channels; only 1 or 3 can be converted"
        )
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    return np.concatenate([_luminance(part) for part in in_parts(images)])


def _luminance(colours: np.ndarray) -> np.ndarray:
    """Return 0.299 red + 0.587 green + 0.114 blue [M, 1, H, W], rounded as Pillow's convert("L") does."""
    red, green, blue = colours.astype(np.uint32).transpose(1, 0, 2, 3)
    grey: np.ndarray = (red * 19595 + green * 38470 + blue * 7471 + 2**15) >> 16
    return grey.astype(np.uint8)[:, None]


def in_parts(images: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the images [M, ...] a part [m, ...] at a time, for work that takes several times a part's memory."""
    each = max(1, PART_BYTES // max(1, images[:1].nbytes))
    for start in range(0, max(1, len(images)), each):
        yield images[start : start + each]
