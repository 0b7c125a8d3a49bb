"""Hosts where namespaces are allowed; elsewhere the tests that want them are skipped, and the reason is said."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hosts import why_not


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips where no hosts can be made."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
