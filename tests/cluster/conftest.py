"""Hosts where namespaces are allowed; elsewhere the tests that want them are skipped, and the reason is said."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hosts import why_not

if TYPE_CHECKING:
    from ray_hosts import RayHosts


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skips where no hosts can be made."""
    reason = why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def ray_hosts(namespaces: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator["RayHosts"]:
    """A Ray cluster on three hosts: a head without cores and two workers with one each."""
    from ray_hosts import RayHosts

    with RayHosts(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
