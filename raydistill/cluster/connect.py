"""The Ray cluster a sweep runs on."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from raydistill.cluster.private import start_private_ray
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
        _connect()
    try:
        _check_resources(need, workers)
        yield
    finally:
        if begun:
            ray.shutdown()


def _connect() -> None:
    """To the cluster of RAY_ADDRESS or of `ray start`, else to one of our own, on loopback and without dashboard.

    Not `address="auto"`: that would also join the private one of another sweep on this machine, and end with it.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    started = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # written by `ray start`
    if os.environ.get("RAY_ADDRESS") or started.exists():
        ray.init(**quiet)
    else:
        start_private_ray(**quiet)


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
