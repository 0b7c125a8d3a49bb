"""Encoded images to arrays, and arrays to the wanted size and channels."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from raydistill.errors import UserError

GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")
TOGETHER = 64  # images that are resized at once, where they are of one size: a call of torchvision takes a millisecond
PART_BYTES = 2**24  # of images that are converted at a time


def decode_images(
    encoded: Sequence[bytes | Path], names: Sequence[str], size: int | None, channels: int | None = None
) -> np.ndarray:
    """Decodes files of any format that Pillow knows to uint8 [M, C, H, W], one after the other.

    Args:
        encoded: the files, or what is in them.
        names: what to call each file in an error.
        size: resize the shorter side to this many pixels and crop the centre square; None takes them as they are.
        channels: C, 1 or 3; None for 1 if all are grey, else 3.

    Raises:
        UserError: names the first file that is not an image or, without `size`, not of the first one's size.
    """
    if channels is None:
        grey = all(_opened(data, name).mode in GREY_MODES for data, name in zip(encoded, names, strict=True))
        channels = 1 if grey else 3
    images = np.zeros((len(encoded), channels, 1, 1), np.uint8)
    for start in range(0, len(encoded), TOGETHER):
        rows = range(start, min(start + TOGETHER, len(encoded)))
        decoded = [_decoded(encoded[row], names[row], channels) for row in rows]
        alike = all(image.shape == decoded[0].shape for image in decoded)
        resized = resize_images(np.stack(decoded), size) if alike else [resize_images(image, size) for image in decoded]
        for row, image in zip(rows, resized, strict=True):
            if row == 0:
                images = np.empty((len(encoded), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                first, other = ("x".join(str(n) for n in shape[1:]) for shape in (images.shape[1:], image.shape))
                raise UserError(
                    f"{names[row]}: is {other} pixels and {names[0]} {first}; set image_size to bring them together"
                )
            images[row] = image
    return images


def _opened(data: bytes | Path, name: str) -> Image.Image:
    """The image with its header read."""
    try:
        if isinstance(data, bytes):
            return Image.open(io.BytesIO(data))
        with Image.open(data) as image:  # closes the file: there may be more of them than can be open at a time
            return image
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: not an image that can be read ({error})") from error


def _decoded(data: bytes | Path, name: str, channels: int) -> np.ndarray:
    """uint8 [C, H, W]."""
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: a bad PNG
        raise UserError(f"{name}: not an image that can be read ({error})") from error
    return np.atleast_3d(pixels).transpose(2, 0, 1)


def fit_images(images: np.ndarray, size: int | None, channels: int | None) -> np.ndarray:
    """uint8 [M, C, H, W] at size x size with that many channels; None leaves as it is.

    Raises:
        UserError: images that are neither grey nor in colours.
    """
    return with_channels(resize_images(images, size), channels)


def resize_images(images: np.ndarray, size: int | None) -> np.ndarray:
    """uint8 [..., C, H, W] at size x size: the shorter side scaled (bilinear, antialiased), the centre cropped."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    from torchvision.transforms.v2.functional import center_crop, resize  # seconds that most data do without

    def resized(part: np.ndarray) -> np.ndarray:
        scaled = resize(torch.from_numpy(part.copy()), [size], antialias=True)  # Pillow's memory is read-only
        return np.asarray(center_crop(scaled, [size]))

    return resized(images) if images.ndim < 4 else np.concatenate([resized(part) for part in in_parts(images)])


def with_channels(images: np.ndarray, channels: int | None) -> np.ndarray:
    """uint8 [M, C, H, W] with one channel, the luminance of ITU-R 601, or three, grey repeated; None as they are.

    Raises:
        UserError: images that are neither grey nor in colours.
    """
    if channels is None or images.shape[1] == channels:
        return images
    if images.shape[1] not in (1, 3):
        raise UserError(
            f"channels={channels}: the images have {images.shape[1]} channels; only 1 or 3 can be converted"
        )
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    return np.concatenate([_luminance(part) for part in in_parts(images)])


def _luminance(colours: np.ndarray) -> np.ndarray:
    """0.299 red + 0.587 green + 0.114 blue [M, 1, H, W], rounded as Pillow's convert("L") does."""
    red, green, blue = colours.astype(np.uint32).transpose(1, 0, 2, 3)
    grey: np.ndarray = (red * 19595 + green * 38470 + blue * 7471 + 2**15) >> 16
    return grey.astype(np.uint8)[:, None]


def in_parts(images: np.ndarray) -> Iterator[np.ndarray]:
    """The images [M, ...] a part [m, ...] at a time, for work that takes several times a part's memory."""
    each = max(1, PART_BYTES // max(1, images[:1].nbytes))
    for start in range(0, max(1, len(images)), each):
        yield images[start : start + each]
