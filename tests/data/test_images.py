"""Sizes and channels, against Pillow."""

import io

import numpy as np
import pytest
from PIL import Image

from raydistill.config.distill_config import DistillConfig
from raydistill.config.settings import validated
from raydistill.data import images, load_dataset
from raydistill.data.decoding import Wanted, decode_images
from raydistill.data.images import fit_images, resize_images, with_channels
from raydistill.system.errors import UserError

RNG = np.random.default_rng(0)
SMOOTH = np.kron(RNG.integers(0, 256, (12, 3, 8, 8)), np.ones((4, 4))).astype(np.uint8)


def pillow(image):
    return Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))


def array(image):
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


@pytest.mark.parametrize(("old", "new"), [(16, 28), (28, 32), (32, 28), (32, 16), (8, 224)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resized_as_pillow_does(old, new, channels):
    small = RNG.integers(0, 256, (5, channels, old, old), dtype=np.uint8)
    ours = resize_images(small, new)
    theirs = np.stack([array(pillow(i).resize((new, new), Image.Resampling.BILINEAR)) for i in small])
    assert ours.dtype == np.uint8
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # Pillow rounds between the two directions


def test_grey_is_pillows_luminance():
    every_level = np.stack(np.meshgrid(*[np.arange(0, 256, 5)] * 3), axis=0).astype(np.uint8).reshape(1, 3, 52, -1)
    for colours in (SMOOTH, every_level):
        theirs = np.stack([array(pillow(image).convert("L")) for image in colours])
        assert np.array_equal(with_channels(colours, 1), theirs)


def test_three_channels_repeat_grey():
    grey = SMOOTH[:, :1]
    assert np.array_equal(with_channels(grey, 3), np.concatenate([grey, grey, grey], axis=1))
    assert np.array_equal(with_channels(with_channels(grey, 3), 1), grey)  # the weights add up to 1
    for same in (with_channels(SMOOTH, 3), with_channels(grey, 1), fit_images(SMOOTH, None, None)):
        assert same.base is SMOOTH or same is SMOOTH
    with pytest.raises(UserError, match=r"data\.channels=1: the images have 4 channels"):
        with_channels(np.zeros((2, 4, 5, 5), np.uint8), 1)


def test_in_parts_or_at_once_is_the_same(monkeypatch):
    whole = fit_images(SMOOTH, 20, 1)
    monkeypatch.setattr(images, "PART_BYTES", 5 * SMOOTH[0].nbytes)
    assert len(list(images.in_parts(SMOOTH))) == 3
    assert np.array_equal(fit_images(SMOOTH, 20, 1), whole)
    assert fit_images(SMOOTH[:0], 20, 1).shape == (0, 1, 20, 20)


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_decoded_with_the_wanted_channels(tmp_path, channels):
    """From bytes and from files, where the second image is grey."""
    pictures = [pillow(SMOOTH[0]), pillow(SMOOTH[1]).convert("L")]
    buffers, files = [io.BytesIO(), io.BytesIO()], [tmp_path / "0.png", tmp_path / "1.png"]
    for picture, buffer, file in zip(pictures, buffers, files, strict=True):
        picture.save(buffer, "PNG")
        picture.save(file)
    expected = np.stack([array(p.convert("L" if channels == 1 else "RGB")) for p in pictures])
    for encoded in ([b.getvalue() for b in buffers], files):
        assert np.array_equal(decode_images(encoded, ["0", "1"], Wanted(channels=channels))[0], expected)


def test_sizes_are_brought_together_in_order():
    """More images than are resized at once, first of one size, then of another."""
    buffers = [io.BytesIO() for _ in range(150)]
    for number, buffer in enumerate(buffers):
        Image.new("L", (20, 20) if number < 100 else (20 + number, 30), number).save(buffer, "PNG")
    decoded = decode_images([b.getvalue() for b in buffers], ["?"] * 150, Wanted(16))[0]
    assert decoded.shape == (150, 1, 16, 16)
    assert np.array_equal(decoded, np.arange(150, dtype=np.uint8)[:, None, None, None].repeat(16, 2).repeat(16, 3))


@pytest.mark.parametrize("content", [b"", b"hello", "cut short"])
@pytest.mark.parametrize("channels", [None, 3])
def test_a_file_that_is_no_image_is_named(tmp_path, content, channels):
    if content == "cut short":
        pillow(RNG.integers(0, 256, (3, 40, 40), dtype=np.uint8)).save(tmp_path / "whole.png")
        content = (tmp_path / "whole.png").read_bytes()[:2000]
    (tmp_path / "bad.png").write_bytes(content)
    for encoded in (content, tmp_path / "bad.png"):
        with pytest.raises(UserError, match="bad: not an image that can be read"):
            decode_images([encoded], ["bad"], Wanted(channels=channels))


def test_digits_for_a_network_of_svhn():
    data = load_dataset(validated(DistillConfig, {"data": {"image_size": 32, "channels": 3}}))
    assert data.image_shape == (3, 32, 32)
    first, *others = data.test.images[:].unbind(1)
    assert all(first.equal(other) for other in others)


def test_usps_for_a_network_of_mnist(real_data):
    usps = load_dataset(
        validated(DistillConfig, {"dataset": f"parquet:{real_data / 'usps'}", "data": {"image_size": 28}})
    )
    assert usps.image_shape == (1, 28, 28)
    assert usps.num_classes == 10


def test_cifar10_in_grey(real_data):
    """The first hundred, decoded in grey and turned grey afterwards."""
    import pyarrow.parquet as pq

    rows = next(pq.ParquetFile(real_data / "cifar10" / "test-00000-of-00001.parquet").iter_batches(batch_size=100))
    encoded = [row["bytes"] for row in rows["img"].to_pylist()]
    pictures = [Image.open(io.BytesIO(data)) for data in encoded]
    theirs = np.stack([array(picture.convert("L")) for picture in pictures])
    assert np.array_equal(decode_images(encoded, ["?"] * 100, Wanted(channels=1))[0], theirs)
    assert np.array_equal(with_channels(np.stack([array(picture) for picture in pictures]), 1), theirs)


def test_only_one_or_three_channels():
    with pytest.raises(UserError, match=r"^data\.channels: input should be 1 or 3, not 2$"):
        validated(DistillConfig, {"data.channels": 2})
