"""Encoded images to arrays."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from raydistill.errors import UserError

GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


def decode_images(encoded: Sequence[bytes], names: Sequence[str], size: int | None) -> np.ndarray:
    """Decodes files of any format that Pillow knows to uint8 [M, C, H, W]: C is 1 if all are grey, else 3.

    Args:
        encoded: the files' bytes.
        names: what to call each file in an error.
        size: resize the shorter side to this many pixels and crop the centre square; None takes them as they are.

    Raises:
        UserError: names the first file that is not an image or, without `size`, not of the first one's size.
    """
    opened = []
    for data, name in zip(encoded, names, strict=True):
        try:
            image = Image.open(io.BytesIO(data))
            image.load()
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise UserError(f"{name}: not an image that can be read ({error})") from error
        opened.append(image)
    mode = "L" if all(image.mode in GREY_MODES for image in opened) else "RGB"
    arrays = []
    for image, name in zip(opened, names, strict=True):
        pixels = np.atleast_3d(np.asarray(image.convert(mode))).transpose(2, 0, 1)
        arrays.append(resize_images(pixels, size))
        if arrays[-1].shape != arrays[0].shape:
            first, other = ("x".join(str(n) for n in a.shape[1:]) for a in (arrays[0], arrays[-1]))
            raise UserError(f"{name}: is {other} pixels and {names[0]} {first}; set image_size to bring them together")
    return np.stack(arrays) if arrays else np.zeros((0, 1, 1, 1), np.uint8)


def resize_images(images: np.ndarray, size: int | None) -> np.ndarray:
    """uint8 [..., C, H, W] at size x size: the shorter side scaled (bilinear, antialiased), the centre cropped."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    from torchvision.transforms.v2.functional import center_crop, resize  # seconds that most data do without

    scaled = resize(torch.from_numpy(np.ascontiguousarray(images)), [size], antialias=True)
    return np.asarray(center_crop(scaled, [size]))
