"""Several workers for one distillation: this process leads, Ray actors follow."""

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayError
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raydistill.config.distill_config import DistillConfig
from raydistill.data import Dataset
from raydistill.method import Distiller
from raydistill.method.workers import Workers
from raydistill.runs.run import matched
from raydistill.store.bank import Bank
from raydistill.system.device import pick_device, use_precision, use_threads
from raydistill.system.errors import Lost, UserError

PATIENCE = 300.0  # seconds until the followers' places must be free and their data there


@contextmanager
def team(
    config: DistillConfig, data: Dataset, bank: Bank | None = None, cpus: float = 1, gpus: float = 0
) -> Iterator[Workers | None]:
    """Within it `config.workers` - 1 actors follow this process; None where it works alone. Ray must be running.

    In a trial of a sweep they have the trial's own places (the bundles of its placement group, the first of which is
    this process's), otherwise any in the cluster. There this process is none of Ray's; where it needs a GPU, one of
    this node is reserved for it, so that no follower is given the same.

    Args:
        config: the settings of the run.
        data: the real data, which each node gets once.
        bank: the pretrained networks, likewise.
        cpus, gpus: of each follower; gpus also of this process.

    Raises:
        UserError: there are no places for them, or they cannot begin.
    """
    if config.workers == 1:
        yield None
        return
    trial_group = get_current_placement_group()
    bundle = {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
    mine = [{"GPU": gpus, _this_node(): 0.001}] if gpus else []
    group = trial_group or placement_group([*mine, *[bundle] * (config.workers - 1)], strategy="SPREAD")
    own = 1 if trial_group or mine else 0  # bundles that are this process's
    followers: list[Any] = []
    try:
        if not group.wait(PATIENCE):
            free = ray.available_resources()
            raise UserError(f"workers={config.workers}: the cluster has no free places for them, only {free}")
        device = pick_device(config.device, gpus) if trial_group or not gpus else _reserved_gpu(group, gpus)
        shared = ray.put((data.to_numpy(), bank and bank.to_numpy()))
        for index in range(own, own + config.workers - 1):
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
            actor: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=place)(Follower)
            followers.append(actor.remote(config.model_dump(), shared, cpus, gpus))
        _wait_until_ready(followers)
        yield from _led(config, followers, device)
    finally:
        for follower in followers:
            ray.kill(follower)
        if trial_group is None:
            remove_placement_group(group)


def _this_node() -> str:
    """Ray's name for a resource that only this node has."""
    here = ray.get_runtime_context().get_node_id()
    [address] = [node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == here]
    return f"node:{address}"


def _reserved_gpu(group: PlacementGroup, gpus: float) -> torch.device:
    """The GPU of the first bundle, as this process knows it; the bundle keeps it from others.

    Raises:
        UserError: this process does not see it.
    """
    place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    ask: Any = ray.remote(num_cpus=0, num_gpus=gpus, scheduling_strategy=place)(gpu_given)
    given = ray.get(ask.remote())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if given not in names:
        raise UserError(f"workers: Ray gives this process GPU {given}, but it sees {visible or len(names)}")
    return pick_device(f"cuda:{names.index(given)}", gpus)


def gpu_given() -> str:
    """Ray's name for the GPU that it granted this process."""
    return str(ray.get_gpu_ids()[0])


def _wait_until_ready(followers: list[Any]) -> None:
    try:
        ray.get([follower.ready.remote() for follower in followers], timeout=PATIENCE)
    except RayError as error:
        reason = " ".join(str(error).split())[-300:]
        lost = isinstance(error, RayActorError) and not error.actor_init_failed
        raise (Lost if lost else UserError)(
            f"workers={len(followers) + 1}: the others could not begin: {reason}"
        ) from error


def _led(config: DistillConfig, followers: list[Any], device: torch.device) -> Iterator[Workers]:
    """The group that this process leads."""
    host = _stay_on_rays_network()
    listener = socket.create_server((host, 0))
    port = int(listener.getsockname()[1])
    for rank, follower in enumerate(followers, 1):
        follower.follow.remote(rank, host, port)
    workers = Workers(0, config.workers, host, port, device, listener)
    try:
        yield workers
    finally:
        if workers.complete:  # else the order might wait for hours for one that does not hear it
            with suppress(Lost):
                workers.order(Workers.END)
        workers.close()


def _stay_on_rays_network() -> str:
    """Ray's address of this node. Where that is loopback, torch's processes do not talk on another interface either."""
    address = str(ray.util.get_node_ip_address())
    if ipaddress.ip_address(address).is_loopback:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo0" if sys.platform == "darwin" else "lo")
    return address


class Follower:
    """A process with the same sets as the leader, that trains its share of the networks.

    Args:
        config: the settings, as a plain mapping.
        shared: the real data and the bank, as of their `to_numpy`.
        threads: for torch.
        gpus: that Ray granted it.
    """

    def __init__(self, config: dict[str, Any], shared: tuple[Any, Any], threads: float, gpus: float = 0) -> None:
        use_threads(threads)
        data, bank = shared
        self.config = DistillConfig(**config)
        self.device = pick_device(self.config.device, gpus)
        use_precision(self.config.precision, self.device, self.config.deterministic)
        self.data = Dataset.from_numpy(data).to(self.device)
        self.bank = Bank.from_numpy(bank) if bank else None

    def ready(self) -> bool:
        """Answers as soon as the data are there."""
        return True

    def follow(self, rank: int, host: str, port: int) -> None:
        """Joins the leader and obeys it."""
        _stay_on_rays_network()
        network, objective = matched(self.config, self.data, self.bank)
        workers = Workers(rank, self.config.workers, host, port, self.device)
        networks = self.bank.networks if self.bank is not None else None
        distiller = Distiller(
            self.config, network, self.data.train, self.data.num_classes, objective, networks, workers
        )
        workers.follow(distiller)
