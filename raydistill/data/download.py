"""What is said when data cannot be had."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from raydistill.system.errors import UserError

ELSEWHERE = "name the folder that has it with --data-dir or RAYDISTILL_DATA"


@contextmanager
def downloading(dataset: str, data_dir: Path) -> Iterator[None]:
    """Around code of torchvision that checks the files of a data set in `data_dir` and downloads what is missing.

    Raises:
        UserError: it could not, in one line.
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
