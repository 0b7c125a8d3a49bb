"""The Ray cluster a sweep runs on."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from raydistill.cluster.private_ray import is_ray, named_address, ray_folder, start_private_ray
from raydistill.config.sweep_sections import Resources
from raydistill.system.errors import UserError
from raydistill.system.output import in_a_line

CONNECTED = 5.0  # seconds for a connection
SPEAKS = 15.0  # and for what is there to say that it is Ray
TOKEN = "bring the cluster's token here (~/.ray/auth_token, mode 600) and export RAY_AUTH_MODE=token"


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

    Raises:
        UserError: nobody answers where the cluster should be, or Ray cannot keep its files where it is told to.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not _somebody_elses():
        start_private_ray(**quiet)
        return
    try:
        address = cluster_address() or ""
    except (OSError, ValueError) as error:
        raise UserError(f"{source()}: no cluster that can be joined: {in_a_line(error)}; {mend()}") from error
    if silence := silence_at(address):
        raise UserError(f"{silence}; {mend()}")
    try:
        ray.init(**quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{source()}: cannot be joined: {in_a_line(error)}; {TOKEN}, or {mend()}") from error


def cluster_address() -> str | None:
    """Where `connect` finds the cluster, as Ray reads it; None where it starts its own.

    Ray takes this host's outward address for 127.0.0.1.

    Raises:
        ValueError, OSError: what was told is no address, or there is no cluster.
    """
    return named_address() if _somebody_elses() else None


def source() -> str:
    """Who said where the cluster is."""
    told = os.environ.get("RAY_ADDRESS")
    return f"RAY_ADDRESS={told}" if told else "`ray start` on this machine"


def mend() -> str:
    """What to do where no cluster is there."""
    if os.environ.get("RAY_ADDRESS"):
        return "unset it, or name the head of a cluster that runs (HOST:6379)"
    return "`ray stop` forgets it, `ray start` begins anew"


def silence_at(address: str) -> str:
    """That no Ray answers at HOST:PORT or ray://HOST:PORT, and why; empty where one does. Ray would try for minutes."""
    if not (reason := _refused(address)):
        return ""
    at = "" if address == os.environ.get("RAY_ADDRESS") else f" at {address}, where Ray looks for it"
    return f"{source()}: nobody answers{at} ({reason})"


def _refused(address: str) -> str:
    if address.startswith("http"):
        return "it is a dashboard's, which only `ray job` takes"
    host, _, port = address.rpartition("://")[2].rpartition("/")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECTED).close()
    except (OSError, ValueError) as error:
        return str(error)
    client = address.startswith("ray://")  # which has another service
    return "" if client or is_ray(f"{host}:{port}", SPEAKS) else "what listens there is no Ray"


def _somebody_elses() -> bool:
    started = Path(ray_folder()[1], "ray_current_cluster")  # written by `ray start`
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local") or started.exists()


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
