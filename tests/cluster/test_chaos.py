"""A sweep goes on whatever is killed, and ends with the same bytes."""

import os
from collections import Counter

import pytest
from chaos import Chaos
from sweeping import Sweep, check, sweep_values

pytestmark = pytest.mark.usefixtures("namespaces")


def test_chaos(ray_hosts, tmp_path):
    """Six kills; RAYDISTILL_CHAOS=21 makes them 21, in a longer sweep."""
    kills = int(os.environ.get("RAYDISTILL_CHAOS", 6))
    sweep = Sweep(ray_hosts, sweep_values(trials=4, iterations=300) if kills <= 6 else sweep_values(6, 300))
    chaos = Chaos(sweep, kills, seed=1)
    chaos.run()
    assert len(chaos.log) == kills
    assert min(Counter(kill["kind"] for kill in chaos.log).values()) >= kills // 3
    assert len(check(sweep, tmp_path)) == sweep.values["budget"]["trials"]
