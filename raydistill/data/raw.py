"""Data as they were read, before splits and normalisation."""

from dataclasses import dataclass

import numpy as np

from raydistill.data.splits import stratified
from raydistill.errors import UserError

TEST_SHARE = 0.2  # of data that come without a test set of their own


@dataclass(frozen=True)
class RawData:
    """Images, uint8 [M, C, H, W], and their classes [M], int64, from 0."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]


def assembled(parts: list[tuple[np.ndarray, np.ndarray]], class_names: tuple[str, ...], origin: str) -> RawData:
    """RawData of (images, labels) of train and test; of train alone, a fifth of each class becomes the test set.

    That fifth is always the same: a test set must not change with a run's seed.

    Raises:
        UserError: train and test images differ in shape, or there are too few to split.
    """
    (train_images, train_labels), *rest = parts
    if len(train_labels) == 0 or (rest and len(rest[0][1]) == 0):
        raise UserError(f"{origin}: has no {'test' if len(train_labels) else 'training'} images")
    if not rest:
        try:
            train, test = stratified(train_labels, TEST_SHARE, seed=0)
        except ValueError as error:
            raise UserError(
                f"{origin}: no test set can be split off its {len(train_labels)} images: {error}"
            ) from error
        return RawData(train_images[train], train_labels[train], train_images[test], train_labels[test], class_names)
    if train_images.shape[1:] != rest[0][0].shape[1:]:
        shapes = " and ".join(str(images.shape[1:]) for images, _ in parts)
        needed = "image_size" if train_images.shape[2:] != rest[0][0].shape[2:] else "channels"
        raise UserError(f"{origin}: training and test images differ in shape (C, H, W): {shapes}; set {needed}")
    return RawData(train_images, train_labels, *rest[0], class_names)
