"""Splitting by class."""

import numpy as np


def stratified(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `labels` [M] in two random parts, in order: the rest, and `share` of each class.

    As scikit-learn's `train_test_split(stratify=...)`, which takes two seconds to import.

    Raises:
        ValueError: a class is too small to be in both parts.
    """
    generator = np.random.default_rng(seed)
    drawn = np.zeros(len(labels), dtype=bool)
    classes, sizes = np.unique(labels, return_counts=True)
    counts = np.floor(share * sizes).astype(int)
    largest_rests = np.argsort(counts - share * sizes, kind="stable")
    counts[largest_rests[: round(share * len(labels)) - counts.sum()]] += 1
    for label, count in zip(classes, counts, strict=True):
        members = np.flatnonzero(labels == label)
        if not 0 < count < len(members):
            raise ValueError(f"{count} of the {len(members)} images of class {label} would be in the smaller part")
        drawn[generator.permutation(members)[:count]] = True
    return np.flatnonzero(~drawn), np.flatnonzero(drawn)
