"""Joining the Ray cluster of the user, or starting one on this machine."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from raydistill.cluster.private_ray import auth_mode, start_private_ray, use_any_token, use_token
from raydistill.config.sweep_sections import Resources
from raydistill.private_api.ray import answers_as_ray, bootstrap_address, cluster_file
from raydistill.system.errors import UserError
from raydistill.system.output import in_a_line

CONNECTION_SECONDS = 5.0  # Seconds to wait for a connection.
ANSWER_SECONDS = 15.0  # Seconds to wait for Ray's answer on a connection.


@contextmanager
def ray_running(need: Resources, workers: int = 1) -> Iterator[None]:
    """Connect Ray: to the running cluster, else to one on this machine alone that ends with this context.

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


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM, which `ray.init` replaces: a library leaves signals to the program."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@handlers_kept()
def connect() -> None:
    """Join the cluster of RAY_ADDRESS or of `ray start`, else start one of our own, on loopback and without dashboard.

    `ray.init(address="auto")` would also join the private cluster of another sweep on this machine, and end with it.

    Raises:
        UserError: nobody answers where the cluster should be, or Ray cannot keep its files where it is told to.
    """
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not _users_cluster():
        start_private_ray(**quiet)
        return
    try:
        address = cluster_address() or ""
    except (OSError, ValueError) as error:
        raise UserError(f"{source()}: no cluster that can be joined: {in_a_line(error)}; {remedy()}") from error
    if silence := silence_at(address):
        raise UserError(f"{silence}; {remedy()}")
    use_token()
    use_any_token()
    try:
        ray.init(**quiet)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{source()}: cannot be joined: {in_a_line(error)}; {token_remedy()}, or {remedy()}") from error


def cluster_address() -> str | None:
    """Return the address of the user's cluster, as Ray reads it; None where `connect` starts one.

    Ray takes this host's outward address for 127.0.0.1.

    Raises:
        ValueError, OSError: RAY_ADDRESS is no address, or there is no cluster.
    """
    if not _users_cluster():
        return None
    address = os.environ.get("RAY_ADDRESS", "")
    return address if "://" in address else bootstrap_address()  # The port is that of Ray's client or its dashboard.


def source() -> str:
    """Return what named the cluster."""
    address = os.environ.get("RAY_ADDRESS")
    return f"RAY_ADDRESS={address}" if address else "`ray start` on this machine"


def remedy() -> str:
    """Return what to do where no cluster is there."""
    if os.environ.get("RAY_ADDRESS"):
        return "unset it, or name the head of a cluster that runs (HOST:6379)"
    return "`ray stop` forgets it, `ray start` begins anew"


def token_remedy() -> str:
    """Return what to do where a cluster refuses this process, which has another token than the cluster or none."""
    unset = "" if auth_mode() == "token" else " and export RAY_AUTH_MODE=token"
    return f"bring the cluster's token here (~/.ray/auth_token, mode 600){unset}"


def silence_at(address: str) -> str:
    """Return why no Ray answers at HOST:PORT or ray://HOST:PORT; an empty text where one does.

    Ray itself would try for minutes.
    """
    if not (reason := _refused(address)):
        return ""
    at = "" if address == os.environ.get("RAY_ADDRESS") else f" at {address}, where Ray looks for it"
    return f"{source()}: nobody answers{at} ({reason})"


def _refused(address: str) -> str:
    """Return the reason of `silence_at`."""
    if address.startswith("http"):
        return "it is a dashboard's, which only `ray job` takes"
    host, _, port = address.rpartition("://")[2].rpartition("/")[2].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECTION_SECONDS).close()
    except (OSError, ValueError) as error:
        return str(error)
    client = address.startswith("ray://")  # The port of Ray's client has another service.
    encrypted = os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")  # It cannot be asked without keys.
    answers = client or encrypted or answers_as_ray(f"{host}:{port}", ANSWER_SECONDS)
    return "" if answers else "what listens there is no Ray"


def _users_cluster() -> bool:
    """Return whether the user has named a cluster, or started one on this machine."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local") or cluster_file().exists()


def _check_resources(need: Resources, workers: int) -> None:
    """Raise UserError where the cluster is one node that is too small, to which no larger one can be added.

    One without cores is the head of a cluster, whose workers may still join.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if len(nodes) != 1 or os.environ.get("RAY_ADDRESS") or not nodes[0].get("CPU"):
        return
    for name, wanted in (("CPU", need.cpu), ("GPU", need.gpu)):
        there = nodes[0].get(name, 0)
        if wanted == "auto":  # It is a share of one.
            wanted = 1 / 1024
        if wanted * workers > there:
            each = f" for each of {workers} workers" if workers > 1 else ""
            raise UserError(f"resources.{name.lower()}={wanted:g}{each}: this machine has {there:g}")
