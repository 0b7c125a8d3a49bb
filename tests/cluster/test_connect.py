"""Which clusters are refused before a sweep begins."""

import pytest
import ray

from raydistill.cluster.connect import _check_resources
from raydistill.config.sweep_sections import Resources
from raydistill.system.errors import UserError


@pytest.fixture
def nodes(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    there = []
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in there])
    return there


def test_one_machine_must_hold_a_trial(nodes):
    nodes.append({"CPU": 2.0})
    _check_resources(Resources(cpu=2), 1)
    with pytest.raises(UserError, match=r"resources\.gpu=0\.5: this machine has 0"):
        _check_resources(Resources(gpu=0.5), 1)
    with pytest.raises(UserError, match=r"resources\.cpu=1 for each of 3 workers: this machine has 2"):
        _check_resources(Resources(), 3)


def test_a_head_without_cores_waits_for_workers(nodes):
    nodes.append({"memory": 1e9})
    _check_resources(Resources(gpu=1), 4)


def test_others_may_join_a_cluster_of_several(nodes):
    nodes.extend([{"CPU": 1.0}, {"CPU": 1.0}])
    _check_resources(Resources(gpu=1), 1)
