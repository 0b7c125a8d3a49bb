"""One local Ray for the tests of a file."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    from raydistill.cluster.connect import ray_running
    from raydistill.sweep_config import Resources

    with ray_running(Resources()):
        yield
