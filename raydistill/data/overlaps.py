"""Images that are in two splits: accuracy on images of the training split is too high."""

import logging
import zlib
from collections.abc import Mapping
from itertools import combinations

import numpy as np

from raydistill.data.raw import Part

logger = logging.getLogger("raydistill")


def tell_overlaps(parts: Mapping[str, Part], origin: str) -> None:
    """Log a line for each two splits that share images pixel for pixel, with the name of the first such image."""
    sums = {name: _sums(part.images) for name, part in parts.items()}
    for (one, first), (other, second) in combinations(parts.items(), 2):
        twins = _twins(first.images, sums[one], second.images, sums[other])
        if twins:
            match, row = twins[0]
            logger.warning(
                "%s: %d of the %d %s images are %s images too, pixel for pixel; the first is %s, as %s",
                *(origin, len(twins), len(second), other, one, second.name(row), first.name(match)),
            )


def _twins(first: np.ndarray, sums: np.ndarray, second: np.ndarray, others: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs (in the first, in the second) of the same image, one for each of the second that has one."""
    if not len(np.intersect1d(sums, others)):
        return []
    order = np.argsort(sums, kind="stable")
    places = order[np.searchsorted(sums, others, sorter=order).clip(max=len(sums) - 1)]
    return [(int(i), j) for j, i in enumerate(places) if sums[i] == others[j] and np.array_equal(first[i], second[j])]


def _sums(images: np.ndarray) -> np.ndarray:
    """Return a checksum [M] of each image's pixels [M, ...]."""
    return np.array([zlib.crc32(image) for image in np.ascontiguousarray(images)], dtype=np.uint32)
