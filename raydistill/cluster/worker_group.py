"""Several processes of one run on a Ray cluster: this one, and Ray actors beside it, each on places of its own."""

import ipaddress
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

from raydistill.system.device import pick_device
from raydistill.system.errors import Lost, UserError

PATIENCE = 300.0  # Seconds until the actors' places must be free, and the actors ready.


@dataclass(frozen=True)
class WorkerGroup:
    """The actors beside this process, and the device on which this process computes."""

    actors: list[Any]
    device: torch.device


@contextmanager
def worker_group(
    kind: type, arguments: tuple[Any, ...], workers: int, device: str = "auto", cpus: float = 1, gpus: float = 0
) -> Iterator[WorkerGroup]:
    """Start `workers` - 1 actors and wait until they are ready; afterwards they are killed. Ray must be running.

    In a trial of a sweep they have the trial's own places (the bundles of its placement group, the first of which is
    this process's), otherwise any in the cluster. There this process is none of Ray's; where it needs a GPU, one of
    this node is reserved for it, so that no actor is given the same.

    Args:
        kind: the class of the actors, made from `arguments`, `cpus` and `gpus`; its method `ready` returns when it is.
        arguments: what each of them is made from; each node gets it once.
        workers: how many processes there are, with this one.
        device: the setting of that name.
        cpus: cores of each actor.
        gpus: GPUs of each actor, and of this process.

    Raises:
        UserError: there are no places for them, or they cannot begin.
        Lost: one of them was lost before it was ready.
    """
    trial_group = get_current_placement_group()
    bundle = {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
    mine = [{"GPU": gpus, _this_node(): 0.001}] if gpus else []
    group = trial_group or placement_group([*mine, *[bundle] * (workers - 1)], strategy="SPREAD")
    own = 1 if trial_group or mine else 0  # How many of the bundles are this process's.
    actors: list[Any] = []
    try:
        if not group.wait(PATIENCE):
            free = ray.available_resources()
            raise UserError(f"workers={workers}: the cluster has no free places for them, only {free}")
        here = pick_device(device, gpus) if trial_group or not gpus else _reserved_gpu(group, gpus)
        shared = [ray.put(argument) for argument in arguments]
        for index in range(own, own + workers - 1):
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
            actor: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=place)(kind)
            actors.append(actor.remote(*shared, cpus, gpus))
        _wait_until_ready(actors)
        yield WorkerGroup(actors, here)
    finally:
        for actor in actors:
            ray.kill(actor)
        if trial_group is None:
            remove_placement_group(group)


def _this_node() -> str:
    """Return Ray's name for a resource that only this node has."""
    here = ray.get_runtime_context().get_node_id()
    [address] = [node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == here]
    return f"node:{address}"


def _reserved_gpu(group: PlacementGroup, gpus: float) -> torch.device:
    """Return the GPU of the first bundle, as this process knows it; the bundle keeps it from others.

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
    """Return Ray's name for the GPU that it granted this process."""
    return str(ray.get_gpu_ids()[0])


def _wait_until_ready(actors: list[Any]) -> None:
    try:
        ray.get([actor.ready.remote() for actor in actors], timeout=PATIENCE)
    except RayError as error:
        reason = " ".join(str(error).split())[-300:]
        lost = isinstance(error, RayActorError) and not error.actor_init_failed
        raise (Lost if lost else UserError)(
            f"workers={len(actors) + 1}: the others could not begin: {reason}"
        ) from error


def stay_on_rays_network() -> str:
    """Return Ray's address of this node; where it is loopback, keep torch's processes from any other interface."""
    address = str(ray.util.get_node_ip_address())
    if ipaddress.ip_address(address).is_loopback:
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo0" if sys.platform == "darwin" else "lo")
    return address
