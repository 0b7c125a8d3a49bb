"""One local Ray for all tests of sweeps."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    from raydistill.cluster.connect import ray_running
    from raydistill.sweep_config import Resources

    with ray_running(Resources()):
        yield
