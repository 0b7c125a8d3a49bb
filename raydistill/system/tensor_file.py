"""Tensors and plain values in a file of torch."""

from pathlib import Path
from typing import Any

import torch

from raydistill.system.storage import whole_file


def save_tensors(state: dict[str, Any], file: Path) -> None:
    """Write tensors and plain values to a file; an older file stays until the new one is whole.

    Raises:
        OSError: the file cannot be written; the error names it.
    """
    try:
        with whole_file(file) as stream:
            torch.save(state, stream)
    except RuntimeError as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise OSError(reason.errno, reason.strerror, str(file)) from error


def _reason(error: BaseException | None) -> OSError | None:
    """Find the error of the operating system that led to an error of torch, if one did."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
