"""Errors of downloads: one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from raydistill.system.errors import UserError

ELSEWHERE = "name the folder that has it with --data-dir or RAYDISTILL_DATA"


@contextmanager
def downloading(dataset: str, data_dir: Path) -> Iterator[None]:
    """Turn errors of torchvision's downloads and checks of files in `data_dir` into one line.

    Raises:
        UserError: the files could not be checked or downloaded.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"dataset={dataset}: {data_dir} does not hold it undamaged, and it cannot be downloaded "
            f"({reason}); {ELSEWHERE}"
        ) from error
