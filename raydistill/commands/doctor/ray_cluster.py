"""Checks of Ray: its token, and the cluster that a sweep would join or start."""

import os
import shutil
from collections.abc import Iterator

import ray

from raydistill.cluster.connect import cluster_address, connect, remedy, silence_at, source
from raydistill.cluster.private_ray import auth_mode, readable_by_others, token_file
from raydistill.commands.doctor.finding import Finding, Options
from raydistill.system.shell import command

GIB = 2**30
SHARED = "/dev/shm"  # Ray keeps the real data of all trials of a node there.
LITTLE = 1.0  # GiB that should be free in `SHARED`.


def look_at_token(options: Options) -> Iterator[Finding]:
    """Check that only this user can read Ray's token: whoever has it can run anything on the cluster."""
    file = token_file()
    if (mode := auth_mode()) != "token":
        todo = "whoever reaches Ray's ports may run anything; unset it, or export RAY_AUTH_MODE=token"
        yield Finding("token", True, f"RAY_AUTH_MODE={mode}", todo)
    elif file is None:
        found, todo = "of RAY_AUTH_TOKEN", "processes of this user can read it there; a file is better"
        if not os.environ.get("RAY_AUTH_TOKEN"):
            found, todo = "a new one each time, as this user has no home folder", ""
        yield Finding("token", True, found, todo)
    elif not file.exists():
        named = "RAY_AUTH_TOKEN_PATH" in os.environ
        todo = "RAY_AUTH_TOKEN_PATH names it: bring the cluster's token there, or unset it" if named else ""
        yield Finding("token", not named, f"{file}: none yet" + ("" if named else "; a Ray of our own makes one"), todo)
    elif readable_by_others(file):
        yield Finding("token", False, f"{file}: others can read it", command("chmod", "600", file))
    elif not file.read_text().strip():
        yield Finding("token", False, f"{file}: is empty", "delete it, or bring the cluster's token there")
    else:
        yield Finding("token", True, f"{file}, for this user alone")


def look_at_ray(options: Options) -> Iterator[Finding]:
    """Check that the cluster that a sweep would join answers, or that a Ray of our own can be started."""
    address = cluster_address()
    if address and (silence := silence_at(address)):
        yield Finding("ray", False, silence, remedy())
        return
    connect()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    amounts = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    holds = f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}, {amounts['CPU']:g} CPU, {amounts['GPU']:g} GPU"
    ray.shutdown()
    if address:
        yield Finding("ray", True, f"{source()} answers: {holds}")
        return
    size = shutil.disk_usage(SHARED).total / GIB if os.path.isdir(SHARED) else 0.0
    small = f"{SHARED} has {size:.1f} GiB, so Ray is slow with data; docker run --shm-size=4g" if size < LITTLE else ""
    yield Finding("ray", True, f"one is started, on this machine alone: {holds}", small)
