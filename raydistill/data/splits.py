"""Splits: the names of files and folders that mean one, and random splits by class."""

import logging
import re
from typing import TypeVar

import numpy as np

from raydistill.system.errors import UserError

logger = logging.getLogger("raydistill")
Item = TypeVar("Item")

LETTER = r"[^\W\d_]"
SPLITS = {
    split: re.compile(rf"(?<!{LETTER})(?:{words})(?!{LETTER})", re.IGNORECASE)
    for split, words in {
        "train": r"train(?:ing)?(?:set)?",
        "test": r"test(?:ing)?(?:set)?|eval(?:uation)?",
        "val": r"val(?:id|idation)?(?:set)?|dev(?:set)?",
    }.items()
}


def split_of(*names: str) -> str | None:
    """Return train, test or val: the word in the first of the names that contains one; None where no name does.

    >>> split_of("Training-00000.parquet"), split_of("contest.parquet", "latest"), split_of("0.parquet", "x_test")
    ('train', None, 'test')

    Raises:
        UserError: some names contain several of the words, and no name contains exactly one.
    """
    several = None
    for name in names:
        found = [split for split, pattern in SPLITS.items() if pattern.search(name)]
        if len(found) == 1:
            return found[0]
        if found:
            several = several or f"{name}: its name says {' and '.join(found)}; rename it, so that it says one"
    if several:
        raise UserError(several)
    return None


def train_and_test(found: dict[str | None, list[Item]], origin: str) -> list[list[Item]]:
    """Return what was found for training and for testing, or all as one; the key None means no split.

    Log lines say which split is used for another purpose than its name says, and which is not used.
    """
    train, test, val, rest = (found.get(split, []) for split in ("train", "test", "val", None))
    if not train and not (rest and (test or val)):
        return [[*test, *val, *rest]]
    if not train:
        train, rest = rest, []
        logger.warning("%s: what has no split in its name is taken to be the training set", origin)
    if not test and val:
        test, val = val, []
        logger.warning("%s: the validation set is taken for the test set, as there is no other", origin)
    for unused, what in ((val, "the validation set (one is split off the training set)"), (rest, "what has no split")):
        if unused:
            logger.warning("%s: %s is not used", origin, what)
    return [train, test] if test else [train]


def stratified(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split indices of `labels` [M] into two random parts, in order: the rest, and `share` of each class.

    It does what scikit-learn's `train_test_split(stratify=...)` does, whose import takes two seconds.

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
