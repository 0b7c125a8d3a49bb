"""Private names of Ray's core and of its cluster launcher."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import ray
from ray._private import ray_constants, services

QUESTION = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""The gRPC method of a cluster's head that says whether nodes are alive."""


@contextmanager
def on_loopback() -> Iterator[None]:
    """Have a Ray that starts within this context listen on the loopback address only.

    Ray does so where it never builds clusters (macOS, Windows); the context makes it believe that this is such a place.

    Why: Ray takes the host's outward address for its own, whatever `ray.init` is told, and listens on all addresses.
    Tested: Ray 2.52 and 2.60 (`ray._private.ray_constants.ENABLE_RAY_CLUSTER`).
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def in_own_process_groups() -> Iterator[list["Popen[bytes]"]]:
    """Give each of the processes of a Ray that starts within this context a process group of its own, and list them.

    A SIGTERM for the group of this process (from `timeout` or a batch system) does not reach them then, and the sweep
    can still keep what it has. They end with this process all the same, as Ray watches it.

    Why: `ray.init` has no option for the way in which it starts its processes, and leaves those of a start that fails.
    Tested: Ray 2.52 and 2.60 (`ray._private.services.ConsolePopen`).
    """
    before: Any = services.ConsolePopen
    group = {"process_group": 0} if os.name == "posix" else {}
    started: list[Popen[bytes]] = []

    def start(*arguments: Any, **options: Any) -> "Popen[bytes]":
        started.append(before(*arguments, **options, **group))
        return started[-1]

    services.ConsolePopen = start
    try:
        yield started
    finally:
        services.ConsolePopen = before


def too_slow_to_start(error: Exception) -> bool:
    """Return whether `ray.init` failed as a process of Ray took longer to start than Ray waits for it.

    Why: on a busy machine Ray's own 15 and 30 seconds are not enough, no setting makes them more, and the error has no
    class of its own (ray-project/ray issue 65983).
    Tested: Ray 2.60 (`tests/cluster/test_slow_start.py`); the source of Ray 2.52 has the same words.
    """
    return "timed out during startup" in str(error)


def read_environment_again() -> None:
    """Have Ray read its RAY_... variables again, RAY_AUTH_MODE among them.

    Why: Ray reads them once, when it is imported, which may have been before raydistill set one.
    Tested: Ray 2.52 and 2.60 (`ray._raylet.Config.initialize`).
    """
    ray._raylet.Config.initialize("")


def bootstrap_address() -> str | None:
    """Return HOST:PORT that Ray makes of RAY_ADDRESS or of what `ray start` wrote; None where it would start a cluster.

    Why: `ray.init` tries such an address for minutes, and it is to be known before whether anybody answers there.
    Tested: Ray 2.52 and 2.60 (`ray._private.services.canonicalize_bootstrap_address`).

    Raises:
        ValueError: RAY_ADDRESS is no address.
    """
    found: str | None = services.canonicalize_bootstrap_address(None)
    return found


def answers_as_ray(address: str, timeout: float) -> bool:
    """Return whether the head of a Ray cluster answers at HOST:PORT within `timeout` seconds.

    Any answer is good enough, except that the question is unknown: a head may ask for a token first.

    Why: `ray.init` waits for minutes for an answer of whatever listens there.
    Tested: Ray 2.52 and 2.60 (the gRPC method `QUESTION`).
    """
    import grpc

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(QUESTION)(b"", timeout=timeout)
        except grpc.RpcError as error:
            nobody = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
            return error.code() not in nobody
    return True


def ray_folder() -> tuple[str, Path]:
    """Return the folder in which Ray keeps its files, after the variable that names it (empty if none does).

    Why: Ray says where it is only once it runs.
    Tested: Ray 2.52 and 2.60 (RAY_TMPDIR, TMPDIR, /tmp/ray).
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")
    return name, Path(os.environ.get(name, "/tmp"), "ray")


def cluster_file() -> Path:
    """Return the file in which `ray start` writes the address of the cluster that it started on this machine.

    Why: no function of Ray says whether there is such a cluster, and `address="auto"` also joins that of another sweep.
    Tested: Ray 2.52 and 2.60 (`ray_current_cluster`).
    """
    return ray_folder()[1] / "ray_current_cluster"


def longest_socket(session: str) -> str:
    """Return the longest path of a socket that Ray makes.

    Why: where it is too long for the system, Ray fails with an error that does not name the folder.
    Tested: Ray 2.52 and 2.60 (`SESSION/sockets/plasma_store`).

    Args:
        session: the name of a session's folder, for example session_2026-01-31_12-30-59_123456_789.
    """
    return str(ray_folder()[1] / session / "sockets" / "plasma_store")


def started_here() -> bool:
    """Return whether this process started its Ray, for itself alone.

    Why: the public context of Ray knows nodes and jobs, and not who started the cluster.
    Tested: Ray 2.52 and 2.60 (`ray._private.worker._global_node`).
    """
    node: Any = ray._private.worker._global_node
    return node is None or node.head


def autoscaler_config() -> Any:
    """Return the configuration that an autoscaler gave the running Ray; None where there is none.

    Its `node_group_configs` have the `resources` and the `max_count` of each kind of node.

    Why: the public state API lists the nodes that are there, and not those that may be started.
    Tested: Ray 2.52 and 2.60 (`ray._private.state.state.get_cluster_config`).
    """
    return ray._private.state.state.get_cluster_config()


def quiet_launcher() -> None:
    """Silence the warnings of the cluster launcher, for example of files in file_mounts, which matter with Docker only.

    Why: the launcher has no option for that.
    Tested: Ray 2.52 and 2.60 (the logger `ray.autoscaler`).
    """
    logging.getLogger("ray.autoscaler").setLevel(logging.ERROR)


def check_cluster_schema(config: dict[str, Any]) -> None:
    """Check the content of a cluster.yaml as `ray up` does at its start.

    Why: `ray up` has no dry run.
    Tested: Ray 2.52 and 2.60 (`ray.autoscaler._private.util.validate_config`).

    Raises:
        jsonschema.ValidationError: it does not follow Ray's schema; for all else Ray raises errors of many kinds.
    """
    from ray.autoscaler._private.util import validate_config

    validate_config(config)


def with_cluster_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a cluster.yaml with the defaults that `ray up` fills in.

    Why: `ray up` has no dry run.
    Tested: Ray 2.52 and 2.60 (`ray.autoscaler._private.util.prepare_config`).
    """
    from ray.autoscaler._private.util import prepare_config

    completed: dict[str, Any] = prepare_config(config)
    return completed
