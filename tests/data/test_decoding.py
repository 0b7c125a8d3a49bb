"""What files mean by their pixels, against eight-bit pictures of the same."""

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import bars, encoded
from PIL import Image
from typer.testing import CliRunner

from raydistill.cli import app
from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.data.decoding import Wanted, decode_images, to_bytes
from raydistill.system.errors import UserError

GREY = bars(True)
GREY[-1, -1], GREY[0, 0] = 0, 239
COLOUR = np.stack([bars(True), bars(False), bars(True)], -1)


def decoded(data, **wanted):
    return decode_images([data], ["it"], Wanted(**wanted))[0][0]


def wide(factor, dtype, form, **options):
    return encoded(Image.fromarray(GREY.astype(dtype) * dtype(factor)), form, **options)


@pytest.mark.parametrize(
    "data",
    [
        wide(257, np.uint16, "PNG"),
        wide(256, np.uint16, "PNG"),
        wide(257, np.uint16, "TIFF"),
        b"P5 12 12 65535\n" + (GREY.astype(">u2") * np.uint16(257)).tobytes(),
        wide(2**23, np.int32, "TIFF"),
        encoded(Image.fromarray(GREY / np.float32(255)), "TIFF"),
        encoded(Image.fromarray(GREY), "TIFF"),
        encoded(Image.fromarray(GREY), "WEBP", lossless=True),
    ],
    ids=["png16", "png16 without low bits", "tiff16", "pgm16", "tiff32", "float", "tiff8", "webp"],
)
def test_more_bits_are_scaled_by_their_full_range(data):
    for channels in (None, 1, 3):
        image = decoded(data, channels=channels)
        assert image.shape == (channels or (3 if data[:4] == b"RIFF" else 1), *GREY.shape)
        assert all(np.array_equal(channel, GREY) for channel in image)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (GREY.astype(np.float32), ["it: ", "0 to 239", "0 (black) to 1 (white)"]),
        (GREY / np.float32(200) - 0.5, ["it: ", "-0.5"]),
        (np.full_like(GREY, np.nan, np.float32), ["it: ", "nan"]),
        (GREY.astype(np.int32) - 300, ["it: ", "-300", "0 (black) or more"]),
    ],
)
def test_numbers_without_a_range_are_refused(values, words):
    with pytest.raises(UserError) as error:
        decoded(encoded(Image.fromarray(values), "TIFF"))
    assert all(word in str(error.value) for word in words)


def test_full_ranges():
    for dtype, whole in ((np.uint16, 2**16 - 1), (np.uint32, 2**32 - 1), (np.int16, 2**15 - 1), (np.int32, 2**31 - 1)):
        assert to_bytes(np.array([0, whole // 2, whole], dtype), "it").tolist() == [0, 127, 255]
    assert to_bytes(np.array([0, 0.5, 1]), "it").tolist() == [0, 128, 255]
    assert to_bytes(np.array([False, True]), "it").tolist() == [0, 255]


def inked(mode):
    """Black ink: the picture is in the alpha channel alone."""
    ink = np.zeros((*GREY.shape, 4), np.uint8)
    ink[..., 3] = GREY
    return Image.fromarray(ink).convert(mode)


@pytest.mark.parametrize(
    "data",
    [
        encoded(inked("RGBA")),
        encoded(inked("LA")),
        encoded(inked("RGBA"), "WEBP", lossless=True),
        encoded(inked("LA"), "TIFF"),
    ],
    ids=["png", "grey png", "webp", "tiff"],
)
@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_what_is_transparent_shows_the_background(data, background, level):
    expected = np.round(level * (1 - GREY / 255))
    assert np.abs(decoded(data, channels=1, background=background) - expected).max() <= 1


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour(form):
    drawn = Image.fromarray((GREY > 100).astype(np.uint8))
    drawn.putpalette([10, 20, 30, 200, 100, 50] + 254 * [0, 0, 0])
    image = decoded(encoded(drawn, form, transparency=0), background="white")
    assert np.array_equal(image[:, 0, 0], [200, 100, 50])
    assert np.array_equal(image[:, -1, -1], [255, 255, 255])


def test_a_colour_that_png_says_is_transparent():
    drawn = Image.fromarray(COLOUR)
    drawn.putpixel((0, 0), (1, 2, 3))
    image = decoded(encoded(drawn, transparency=(1, 2, 3)))
    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(image[:, 1:], COLOUR.transpose(2, 0, 1)[:, 1:])


def test_a_grey_of_sixteen_bits_that_png_says_is_transparent():
    rows = b"".join(b"\0" + row.tobytes() for row in GREY.astype(">u2") * np.uint16(257))
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 12, 12, 16, 0, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", 239 * 257)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    image = decoded(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), background="black")[0]
    assert np.array_equal(image, np.where(GREY == 239, 0, GREY))


def test_alpha_of_the_whole_image_changes_nothing():
    opaque = np.concatenate([COLOUR, np.full((*GREY.shape, 1), 255, np.uint8)], -1)
    assert np.array_equal(decoded(encoded(opaque)), decoded(encoded(COLOUR)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_photo_is_turned_as_its_camera_was_held(orientation, form):
    upright = Image.fromarray(np.kron(COLOUR, np.ones((4, 6, 1), np.uint8)))
    stored = {  # what undoes each
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = upright.transpose(stored[orientation]) if orientation > 1 else upright
    image = decoded(encoded(lying, form, exif=exif, **({"lossless": True} if form == "WEBP" else {"quality": 95})))
    assert image.shape == (3, 48, 72)
    assert np.abs(image.astype(int) - np.asarray(upright).transpose(2, 0, 1)).mean() < 8


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_bad_exif_is_not_the_pixels_fault():
    good = encoded(COLOUR, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\xff")
    assert decoded(good).shape == (3, *GREY.shape)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM"])
def test_damage_is_one_line_in_every_format(form):
    if form == "AVIF" and "AVIF" not in Image.SAVE and not Image.init():
        pytest.skip("this Pillow has no AVIF")
    try:
        whole = encoded(np.kron(COLOUR, np.ones((8, 8, 1), np.uint8)), form)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {form}")
    lines = []
    for damaged in (whole[: len(whole) // 3], whole[:40] + bytes(len(whole) - 40)):
        try:
            decoded(damaged)
        except UserError as error:
            lines.append(str(error))
    assert lines or form in ("BMP", "PPM")  # where most bytes are pixels, zeros are black ones
    assert all(line.startswith("it: not an image that can be read (") and "\n" not in line for line in lines)


def test_eight_bits_are_what_pillow_reads():
    for pixels in (GREY, COLOUR):
        for form in ("PNG", "JPEG", "GIF", "BMP"):
            data = encoded(pixels, form)
            with Image.open(io.BytesIO(data)) as image:
                theirs = np.atleast_3d(np.asarray(image.convert("L" if image.mode == "L" else "RGB")))
            assert np.array_equal(decoded(data), theirs.transpose(2, 0, 1))


def test_a_background_is_a_colour():
    with pytest.raises(
        UserError, match=r"^data\.background: should be a colour, as white, black or #808080, not 'blank'$"
    ):
        validated(DistillConfig, {"data.background": "blank"})


def test_floats_are_refused_on_the_command_line(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.fromarray(GREY.astype(np.float32)).save(tmp_path / name / f"{i}.tiff")
    done = CliRunner().invoke(app, ["distill", "--set", f"dataset=folder:{tmp_path}", "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert str(tmp_path / "a" / "0.tiff") in done.output.replace("\n", "")
