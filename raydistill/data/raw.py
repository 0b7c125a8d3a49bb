"""Data as they were read, before splits and normalisation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raydistill.data.splits import stratified
from raydistill.system.errors import UserError

TEST_SHARE = 0.2  # The test set's share of data that have no test set of their own.


@dataclass(frozen=True)
class Part:
    """Images, uint8 [M, C, H, W], and their classes [M], int64, from 0.

    `names` has a name for each image (without it, an image is called by its number). `encoded` is a sha256 over the
    image files, where there are some.
    """

    images: np.ndarray
    labels: np.ndarray
    names: Sequence[str] | None = None
    encoded: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: np.ndarray) -> "Part":
        """Return the images of these rows."""
        names = None if self.names is None else [self.names[row] for row in rows]
        return Part(self.images[rows], self.labels[rows], names)

    def name(self, row: int) -> str:
        """Return the name of an image."""
        return f"image {row}" if self.names is None else self.names[row]


@dataclass(frozen=True)
class RawData:
    """Training and test images, with the names of the classes.

    `encoded` is a sha256 over the files and classes, where images were decoded: another version of a decoder changes
    pixels, but not this.
    """

    train: Part
    test: Part
    class_names: tuple[str, ...]
    encoded: str | None = None


def assembled(parts: Sequence[Part], class_names: tuple[str, ...], origin: str) -> RawData:
    """Combine train and test to RawData; of train alone, a fifth of each class becomes the test set.

    That fifth is always the same: a test set must not change with a run's seed.

    Raises:
        UserError: train and test images differ in shape, or there are too few to split.
    """
    train, *rest = parts
    if len(train) == 0 or (rest and len(rest[0]) == 0):
        raise UserError(f"{origin}: has no {'test' if len(train) else 'training'} images")
    encoded = _encoded(parts, class_names)
    if not rest:
        try:
            learned, tested = stratified(train.labels, TEST_SHARE, seed=0)
        except ValueError as error:
            raise UserError(f"{origin}: no test set can be split off its {len(train)} images: {error}") from error
        return RawData(train.at(learned), train.at(tested), class_names, encoded)
    (test,) = rest
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = " and ".join(str(part.images.shape[1:]) for part in parts)
        needed = "data.image_size" if train.images.shape[2:] != test.images.shape[2:] else "data.channels"
        raise UserError(f"{origin}: training and test images differ in shape (C, H, W): {shapes}; set {needed}")
    return RawData(train, test, class_names, encoded)


def _encoded(parts: Sequence[Part], class_names: tuple[str, ...]) -> str | None:
    """Return a sha256 over files and classes; None where images were not decoded from files."""
    digest = hashlib.sha256("\0".join(class_names).encode())
    for part in parts:
        if part.encoded is None:
            return None
        digest.update(f"{len(part)} {part.encoded}".encode())
        digest.update(np.ascontiguousarray(part.labels, np.int64).data)
    return digest.hexdigest()
