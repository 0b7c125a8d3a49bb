"""The Ray cluster a sweep runs on."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from raydistill.cluster.private import named_address, start_private_ray
from raydistill.errors import UserError
from raydistill.sweep_config import Resources


@contextmanager
def ray_running(need: Resources, workers: int = 1) -> Iterator[None]:
    """Within it Ray is connected: to the running cluster, else to one on this machine alone that ends with it.

    Raises:
        UserError: the cluster is one node that cannot hold so many workers with these resources, and cannot grow.
    """
    begun = not ray.is_initialized()
    if begun:
        connect()
    try:
        _check_resources(need, workers)
        yield
    finally:
        if begun:
            ray.shutdown()


def connect() -> None:
    """To the cluster of RAY_ADDRESS or of `ray start`, else to one of our own, on loopback and without dashboard.

    Not `address="auto"`: that would also join the private one of another sweep on this machine, and end with it.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if _somebody_elses():
        ray.init(**quiet)
    else:
        start_private_ray(**quiet)


def cluster_address() -> str | None:
    """Where `connect` finds the cluster, as Ray reads it; None where it starts its own.

    Ray takes this host's outward address for 127.0.0.1.
    """
    return named_address() if _somebody_elses() else None


def _somebody_elses() -> bool:
    started = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # written by `ray start`
    return bool(os.environ.get("RAY_ADDRESS")) or started.exists()


def _check_resources(need: Resources, workers: int) -> None:
    """On one node there is no hope that a larger one joins, unless it is the head of a cluster, without cores."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) != 1 or os.environ.get("RAY_ADDRESS") or not nodes[0].get("CPU"):
        return
    for name, wanted in (("CPU", need.cpu), ("GPU", need.gpu)):
        there = nodes[0].get(name, 0)
        if wanted == "auto":  # some share of one
            wanted = 1 / 1024
        if wanted * workers > there:
            each = f" for each of {workers} workers" if workers > 1 else ""
            raise UserError(f"resources.{name.lower()}={wanted:g}{each}: this machine has {there:g}")
