"""Small pictures of two or more classes that can be told apart, for tests of how data are read."""

import io

import numpy as np
import pyarrow as pa
from PIL import Image

RNG = np.random.default_rng(0)


def bars(horizontal, size=12):
    """Dark noise [H, W] in 0..239 with a bright bar on top, or on the left."""
    pixels = RNG.integers(0, 40, (size, size))
    pixels[(slice(4), slice(None)) if horizontal else (slice(None), slice(4))] += 200
    return pixels.astype(np.uint8)


def encoded(image, form="PNG", **options):
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, form, **options)
    return stream.getvalue()


def write_classes(root, classes, count=10, split=""):
    """PATH/split/CLASS/NN.png; returns the pictures by path."""
    written = {}
    for number, name in enumerate(classes):
        folder = root / split / name
        folder.mkdir(parents=True)
        for i in range(count):
            written[folder / f"{i:02}.png"] = pixels = bars(number % 2 == 0)
            Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return written


def table(labels, **columns):
    """A table of pictures, one for each label."""
    images = [{"bytes": encoded(bars(i % 2 == 0)), "path": None} for i in range(len(labels))]
    return pa.table({"image": images, "label": labels} | columns)
