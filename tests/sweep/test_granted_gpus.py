"""GPUs that Ray grants on this machine, which has none: Ray counts whatever it is told.

So its bookkeeping is real, and torch says that it cannot use them.
"""

import logging
import os

import pytest
import ray
import torch
from pretended_gpu import in_a_process
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from rich.console import Console
from small_sweep import BASE, sweep_config

from raydistill.cluster.private_ray import start_private_ray
from raydistill.cluster.worker_group import _this_node, gpu_given
from raydistill.sweep.driver import run_sweep
from raydistill.sweep.searching import memory_need
from raydistill.system.errors import UserError

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
AUTO = BASE | {"device": "auto"}
ONE = {"trials": 1, "iterations": 2, "concurrent": 1}


@pytest.fixture(scope="module", autouse=True)
def two_gpus():
    os.environ.pop("RAY_ADDRESS", None)
    start_private_ray(num_cpus=3, num_gpus=2, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_trial_that_cannot_use_its_gpu_does_not_turn_to_the_cpu(digits, tmp_path, caplog):
    config = sweep_config(tmp_path, base=AUTO, budget=ONE, scheduler="none", resources={"gpu": 0.25})
    with caplog.at_level(logging.WARNING, "raydistill"):
        assert run_sweep(config, data=digits).trials == []
    assert "failed: device=auto: Ray granted 0.25 GPU on" in caplog.text


def test_the_largest_trial_that_cannot_use_its_gpu_ends_the_sweep(digits, tmp_path):
    config = sweep_config(tmp_path, base=AUTO, resources={"gpu": "auto"})
    with pytest.raises(UserError, match=r"search: a trial with \{'steps': 2.*: device=auto: Ray granted 1 GPU on"):
        run_sweep(config, data=digits)


def test_a_sweep_that_asks_for_none_says_that_they_stay_idle(digits, tmp_path):
    console = Console(record=True, width=200)
    config = sweep_config(tmp_path, base=AUTO, budget=ONE, scheduler="none")
    assert len(run_sweep(config, data=digits, console=console).trials) == 1
    assert (
        "resources.gpu=0: trials compute on CPUs, and 2 GPUs of the cluster stay idle; --set" in console.export_text()
    )


def test_each_bundle_has_a_gpu_of_its_own():
    """The first is the leader's, on this node, which is no actor; a follower in the other has another GPU."""
    group = placement_group([{"GPU": 1, _this_node(): 0.001}, {"GPU": 1}], strategy="SPREAD")
    assert group.wait(30)
    places = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index) for index in (0, 1)]
    asks = [ray.remote(num_cpus=0, num_gpus=1, scheduling_strategy=place)(gpu_given) for place in places]
    given = ray.get([ask.remote() for ask in asks] + [ask.remote() for ask in asks])
    remove_placement_group(group)
    assert given[:2] == given[2:]
    assert sorted(given[:2]) == ["0", "1"]


def test_the_leader_of_several_workers_has_the_gpu_that_ray_keeps_for_it():
    """Its followers see theirs alone, which here torch cannot use."""
    said = in_a_process(
        """
from pretended_gpu import pretend
pretend(count=2)
import raydistill.cluster.worker_group as group
from raydistill.cluster.private_ray import start_private_ray
from raydistill.config.distill_config import DistillConfig
from raydistill.data import load_dataset
from raydistill.runs.follower import team
from raydistill.system.errors import UserError
start_private_ray(num_cpus=2, num_gpus=2, log_to_driver=False)
config = DistillConfig(weights="random", train_nets=2, workers=2)
reserved = group._reserved_gpu
def told(places, gpus):
    device = reserved(places, gpus)
    print(device)
    return device
group._reserved_gpu = told
try:
    with team(config, load_dataset(config), gpus=1):
        pass
except UserError as error:
    print(error)
"""
    ).splitlines()
    leader, follower = said[0], said[-1]
    assert leader in ("cuda:0", "cuda:1")
    assert follower.startswith("workers=2: the others could not begin")
    assert f"CUDA_VISIBLE_DEVICES={1 - int(leader[-1])}" in follower


@ray.remote(num_cpus=0, num_gpus=0.6)
class Other:
    def ready(self):
        return True


def test_waiting_for_a_free_gpu_has_a_limit(digits, tmp_path, monkeypatch):
    """As long as other sweeps have a part of each."""
    monkeypatch.setattr(memory_need, "LIMIT", 1.0)
    others = [Other.remote() for _ in range(2)]  # type: ignore[attr-defined]
    ray.get([other.ready.remote() for other in others])
    with pytest.raises(UserError, match=r"resources\.gpu=auto: .* within 0\.0166667 minutes \(is there a free place"):
        run_sweep(sweep_config(tmp_path, base=AUTO, resources={"gpu": "auto"}), data=digits)
    for other in others:
        ray.kill(other)
