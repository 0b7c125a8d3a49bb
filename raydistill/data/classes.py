"""Classes: labels as files contain them become numbers from 0, with names."""

import logging
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from raydistill.system.errors import UserError
from raydistill.system.storage import readable

logger = logging.getLogger("raydistill")


def numbered(
    parts: Sequence[np.ndarray], where: str, names: Sequence[str] | None = None, of: Sequence[str] = ()
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Map the classes to numbers from 0, in order: names alphabetically, numbers by size.

    Each class needs training images; a log line names the classes that have none and are left out.

    Args:
        parts: for train, and test where there is one, the class of each image [M]: whole numbers or names.
        where: what the message of an error begins with.
        names: where the numbers count from 0 in these names.
        of: names of all classes, those without images too.

    Returns:
        for each part the classes [M], int64, and their names.

    Raises:
        UserError: a class is neither a number nor a name, or only to be tested.
    """
    parts = [_text_or_numbers(part, where) for part in parts]
    kinds = {part.dtype.kind for part in parts if len(part)}
    if len(kinds) > 1:
        raise UserError(f"{where}: classes are names in one split and numbers in the other")
    if names is not None and kinds <= {"i", "u"}:
        _check_range(parts, len(names), where)
    if "U" in kinds:
        names = None  # The labels are names already.

    def name(value: Any) -> str:
        return text(str(value if names is None else names[value]))

    known: np.ndarray = np.unique(parts[0])
    called = [name(value) for value in known]
    tested = {name(value) for value in np.unique(parts[-1])}
    _tell_left_out({text(str(each)) for each in names or of} - set(called) - tested, where)
    for part in parts[1:]:
        strange = np.setdiff1d(part, known)
        if len(strange):
            more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
            raise UserError(
                f"{where}: test images are of class {name(strange[0])}{more}, of which there are no training images"
            )
    return [np.searchsorted(known, part).astype(np.int64) for part in parts], tuple(called)


def text(name: str) -> str:
    """Return a name as text that can be written anywhere: composed (NFC), bytes that are not UTF-8 as \\xNN."""
    return unicodedata.normalize("NFC", readable(name))


def _text_or_numbers(values: np.ndarray, where: str) -> np.ndarray:
    """Convert labels to whole numbers where all of them are numbers, else to names."""
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind == "b":
        return np.array([str(value) for value in values], dtype=str)
    if values.dtype.kind == "f" and (np.isfinite(values) & (values == np.round(values))).all():
        return values.astype(np.int64)
    if all(isinstance(value, str) for value in values):
        return np.array([text(value) for value in values], dtype=str)
    if all(isinstance(value, int | np.integer) for value in values):
        return np.array(values.tolist())
    raise UserError(f"{where}: holds neither whole numbers nor names; set data.label_column to one that does")


def _check_range(parts: Sequence[np.ndarray], count: int, where: str) -> None:
    for part in parts:
        wrong = np.flatnonzero((part < 0) | (part >= count))
        if len(wrong):
            raise UserError(
                f"{where}, row {wrong[0]}: class {part[wrong[0]]} is none of the {count} with names, 0 to {count - 1}"
            )


def _tell_left_out(names: set[str], where: str) -> None:
    if names:
        few = sorted(names)[:5]
        rest = f" and {len(names) - len(few)} more" if len(names) > len(few) else ""
        logger.warning("%s: left out, as they have no training images: %s%s", where, ", ".join(few), rest)
