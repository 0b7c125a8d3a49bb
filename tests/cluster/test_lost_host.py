"""A sweep of which a host is lost; it stands apart from the other kills, so that the two run beside each other."""

import pytest
from sweeping import Sweep, check, sweep_values

pytestmark = pytest.mark.usefixtures("namespaces")


def test_a_lost_host(ray_hosts, tmp_path):
    """Its trials go on elsewhere from their last checkpoints, and end as if it had lived."""
    sweep = Sweep(ray_hosts, sweep_values(trials=3, iterations=300, concurrent="auto") | {"name": "lost"})
    sweep.start()
    assert sweep.wait(200)
    host = next(worker for worker in ray_hosts.workers if worker.processes("ray::ResourceTrainable"))
    ray_hosts.lose_worker(host)
    assert not sweep.wait(float("inf"))
    check(sweep, tmp_path)
    ray_hosts.add_worker()
