"""Tensors and plain values in one of torch's files."""

from pathlib import Path
from typing import Any

import torch

from raydistill.system.storage import whole_file


def save_tensors(state: dict[str, Any], file: Path) -> None:
    """Writes a file; an older one stays until the new is whole.

    Raises:
        OSError: it cannot be written; names it.
    """
    try:
        with whole_file(file) as partial, open(partial, "wb") as stream:
            torch.save(state, stream)  # a stream of ours: of a path torch says that it failed, but not why
    except (OSError, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise OSError(reason.errno, reason.strerror, str(file)) from error


def _reason(error: BaseException | None) -> OSError | None:
    """The error of the operating system that led to an error."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
