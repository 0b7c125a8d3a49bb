"""What the tests of a GPU share: the device, its precision, and a report of what was measured.

`pytest -m gpu` runs them. Where the variable OUT names a folder, what they measured is kept there in gpu-tests.md; with
`-s` it is on the screen too. RAYDISTILL_TEST_DEVICE=cpu runs on a CPU what does not need a GPU itself, to try a test.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.system.device import use_precision

Row = Sequence[Any]


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The first GPU."""
    found = torch.device(os.environ.get("RAYDISTILL_TEST_DEVICE", "cuda:0"))
    if found.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    return found


@pytest.fixture(scope="session")
def cuda(device: torch.device) -> torch.device:
    """The first GPU, for tests of what only a GPU has."""
    if device.type != "cuda":
        pytest.skip("needs a CUDA GPU")
    return device


@pytest.fixture(scope="session", autouse=True)
def _threads() -> Iterator[None]:
    """References on the CPU may take half of its cores; each trial of a sweep has one."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(before, len(os.sched_getaffinity(0)) // 2))
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _float32() -> Iterator[None]:
    """TF32 is off in each test, unless the test itself turns it on."""
    if torch.cuda.is_available():
        use_precision("float32", torch.device("cuda:0"))
    yield
    if torch.cuda.is_available():
        use_precision("float32", torch.device("cuda:0"))


@pytest.fixture(scope="session")
def report() -> Callable[[str, Row, list[Row]], None]:
    """Shows a table, and keeps it in $OUT."""

    def show(title: str, head: Row, rows: list[Row]) -> None:
        table = [head, ["---"] * len(head), *rows]
        text = f"\n## {title}\n\n" + "".join(f"| {' | '.join(map(_text, row))} |\n" for row in table)
        print(text)
        if os.environ.get("OUT"):
            with Path(os.environ["OUT"], "gpu-tests.md").open("a") as file:
                file.write(text)

    return show


def _text(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
