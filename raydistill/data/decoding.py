"""Decoding: image files of any kind become arrays of bytes.

Eight bits a channel are taken as they are. More bits are scaled by their full range, floats of 0..1 by 255; what is
transparent shows the background; what a camera stored on its side is turned.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from raydistill.data.images import resize_images
from raydistill.system.errors import UserError

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
WIDE_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")  # Pillow's modes of more than eight bits.
TOGETHER = 64  # Images of one size that are resized in one call: each call of torchvision takes a millisecond.
ORIENTATION, BITS, SAMPLE_FORMAT, SIGNED = 274, 258, 339, 2  # Numbers of EXIF and TIFF tags, and a value of the last.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Wanted:
    """The form in which images are wanted.

    Args:
        size: resize the shorter side to this many pixels and crop the centre square; None takes them as they are.
        channels: C, 1 or 3; None for 1 if all are grey, else 3.
        background: the colour behind what is transparent.
    """

    size: int | None = None
    channels: int | None = None
    background: str = "white"


def decode_images(encoded: Sequence[bytes | Path], names: Sequence[str], wanted: Wanted) -> tuple[np.ndarray, str]:
    """Decode files of any format that Pillow knows to uint8 [M, C, H, W], one after the other.

    Args:
        encoded: the files, or their contents.
        names: the name of each file, for errors.
        wanted: their size, channels and background.

    Returns:
        the images, and a sha256 over the files' contents.

    Raises:
        UserError: names the first file that is not an image or, without a size, not of the first one's size.
    """
    channels = wanted.channels or (1 if _all_grey(encoded, names) else 3)
    images = np.zeros((len(encoded), channels, 1, 1), np.uint8)
    digest = hashlib.sha256()
    for start in range(0, len(encoded), TOGETHER):
        rows = range(start, min(start + TOGETHER, len(encoded)))
        contents = [_content(encoded[row], names[row]) for row in rows]
        for content in contents:
            digest.update(len(content).to_bytes(8, "big"))
            digest.update(content)
        decoded = [
            _decoded(content, names[row], channels, wanted.background)
            for content, row in zip(contents, rows, strict=True)
        ]
        alike = all(image.shape == decoded[0].shape for image in decoded)
        size = wanted.size
        resized = resize_images(np.stack(decoded), size) if alike else [resize_images(image, size) for image in decoded]
        for row, image in zip(rows, resized, strict=True):
            if row == 0:
                images = np.empty((len(encoded), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                first, other = ("x".join(str(n) for n in shape[1:]) for shape in (images.shape[1:], image.shape))
                raise UserError(
                    f"{names[row]}: is {other} pixels and {names[0]} {first}; set data.image_size to bring them "
                    "together"
                )
            images[row] = image
    return images, digest.hexdigest()


def to_bytes(values: np.ndarray, name: str, bits: int | None = None) -> np.ndarray:
    """Convert pixels to uint8: whole numbers by the full range of their type, or of `bits`; floats from 0..1.

    Raises:
        UserError: there are negative values, or floats outside 0..1.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise UserError(f"{name}: pixels are numbers, not {values.dtype}")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if values.dtype.kind == "f":
        if not (low >= 0 and high <= 1):  # The condition is also true for NaN.
            raise UserError(f"{name}: its pixels are {low:g} to {high:g}; floats should be 0 (black) to 1 (white)")
        scaled: np.ndarray = np.round(values * 255).astype(np.uint8)
        return scaled
    if low < 0:
        raise UserError(f"{name}: its pixels are {low:g} to {high:g}; whole numbers should be 0 (black) or more")
    bits = bits or 8 * values.dtype.itemsize - (values.dtype.kind == "i")
    shifted: np.ndarray = (values.astype(np.uint64) >> np.uint64(max(0, bits - 8))).clip(max=255).astype(np.uint8)
    return shifted


def is_image_file(path: Path) -> bool:
    """Return whether Pillow reads files of this name, and the file is not hidden."""
    form = Image.registered_extensions().get(path.suffix.lower())
    return form in Image.OPEN and not path.name.startswith(".")


def _content(data: bytes | Path, name: str) -> bytes:
    try:
        return data if isinstance(data, bytes) else data.read_bytes()
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror or error})") from error


def _all_grey(encoded: Sequence[bytes | Path], names: Sequence[str]) -> bool:
    """Return whether all images are grey, by their headers."""
    for data, name in zip(encoded, names, strict=True):
        try:
            with Image.open(
                io.BytesIO(data) if isinstance(data, bytes) else data
            ) as image:  # One file is open at a time.
                if image.mode not in GREY_MODES:
                    return False
        except Exception as error:
            raise _unreadable(name, error) from error
    return True


def _decoded(data: bytes, name: str, channels: int, background: str) -> np.ndarray:
    """Decode one image to uint8 [C, H, W]."""
    mode = "L" if channels == 1 else "RGB"
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            image = _upright(opened)
            if image.mode in WIDE_MODES:
                image = _of_eight_bits(image, opened, name)
            if image.mode in ALPHA_MODES or "transparency" in image.info:
                image = _on_background(image, background)
            pixels = np.asarray(image.convert(mode))
    except UserError:
        raise
    except Exception as error:  # Each decoder has its own errors: SyntaxError (PNG), RuntimeError (AVIF).
        raise _unreadable(name, error) from error
    return np.atleast_3d(pixels).transpose(2, 0, 1)


def _unreadable(name: str, error: Exception) -> UserError:
    return UserError(f"{name}: not an image that can be read ({' '.join(str(error).split()) or type(error).__name__})")


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image as its camera was held."""
    if image.format == "TIFF":  # Pillow turns these when it loads them; some versions keep the tag.
        return image
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Damaged metadata do not make the pixels wrong.
        return image
    return image if turn is None else image.transpose(turn)


def _on_background(image: Image.Image, background: str) -> Image.Image:
    """Return the image without transparency, in front of the background."""
    premultiplied = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    layers = (image.convert(premultiplied) if premultiplied else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, ImageColor.getrgb(background)), layers).convert("RGB")


def _of_eight_bits(image: Image.Image, opened: Image.Image, name: str) -> Image.Image:
    """Return a grey image of more bits with eight, with alpha where the file names a transparent level."""
    values = _values(image, opened)
    grey = Image.fromarray(to_bytes(values, name, _bits(opened)))
    clear = opened.info.get("transparency")
    if not isinstance(clear, int):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))))


def _values(image: Image.Image, opened: Image.Image) -> np.ndarray:
    """Return the values [H, W] of an image of more than eight bits."""
    values = np.asarray(image)
    unsigned = opened.format == "TIFF" and _tag(opened, SAMPLE_FORMAT, 1) != SIGNED
    return values.view(np.uint32) if image.mode == "I" and unsigned else values


def _bits(image: Image.Image) -> int | None:
    """Return the bits of the image's whole numbers, without the sign; None for all bits of their type."""
    if image.format == "TIFF":
        return _tag(image, BITS, 32) - (_tag(image, SAMPLE_FORMAT, 1) == SIGNED)
    return 16 if image.format in ("PNG", "PPM") else None  # Pillow may give these in a type of 32 bits.


def _tag(image: Image.Image, number: int, otherwise: int) -> int:
    value = image.tag_v2.get(number, otherwise)  # type: ignore[attr-defined]
    return int(value[0] if isinstance(value, tuple) else value)
