"""A Ray of our own on this machine, that nobody else can reach or read."""

import os
import secrets
import stat
import tempfile
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services

from raydistill.system.errors import UserError
from raydistill.system.storage import home

MOST_OF_A_SOCKET = 107  # bytes of its path


def start_private_ray(**options: Any) -> None:
    """Starts Ray on this machine alone: every port on loopback, calls only with the token of this user.

    Ray takes the host's outward address for its own, whatever `ray.init` is told, and then listens on all of them;
    except where it never builds clusters (macOS, Windows). So it is told for a moment that this is such a place.

    Its processes are no part of this one's group: a SIGTERM for the group (`timeout`, batch systems) would end them,
    and the sweep could not keep what it has. They end with this process all the same.

    Args:
        **options: for `ray.init`.

    Raises:
        UserError: where Ray keeps its files, the names of its sockets would be too long.
        OSError: the token cannot be kept in the home folder.
    """
    _check_sockets()
    _keep_token_secret()
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    popen: Any = services.ConsolePopen
    services.ConsolePopen = partial(popen, process_group=0) if os.name == "posix" else popen
    try:
        ray.init(address="local", include_dashboard=False, **options)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters
        services.ConsolePopen = popen


def ray_folder() -> tuple[str, str]:
    """Where Ray keeps its files, and the variable that says so."""
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "")
    return name, os.path.join(os.environ.get(name, "/tmp"), "ray")


def _check_sockets() -> None:
    """Raises UserError where the paths of Ray's sockets would be longer than the system takes."""
    name, folder = ray_folder()
    path = os.path.join(folder, f"session_{datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}", "sockets/plasma_store")
    much = len(os.fsencode(path)) - MOST_OF_A_SOCKET
    if much > 0:
        raise UserError(
            f"{name}={os.environ[name]}: is {much} letters too long for Ray's sockets, which it keeps there; set "
            "RAY_TMPDIR to a shorter folder, as /tmp"
        )


def is_ray(address: str, patience: float) -> bool:
    """Whether it is the head of a cluster that listens at HOST:PORT. Behind TLS it is believed.

    Anything that it says but that it knows no such question is good enough: it may want a token first.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return True
    import grpc

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=patience)
        except grpc.RpcError as error:
            nobody = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
            return error.code() not in nobody
    return True


def named_address() -> str | None:
    """HOST:PORT that Ray makes of RAY_ADDRESS or of what `ray start` wrote; None where it would start one.

    Raises:
        ValueError: it is no address.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if "://" in address:  # of Ray's client or its dashboard
        return address
    found: str | None = services.canonicalize_bootstrap_address(None)
    return found


def token_file() -> Path | None:
    """Where Ray looks for its token; None where it is told the token itself, or this user has no home folder."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    folder = home()
    return Path(named) if named else folder / ".ray" / "auth_token" if folder is not None else None


def readable_by_others(file: Path) -> bool:
    """Whether another user of this machine may open the file."""
    return bool(stat.S_IMODE(file.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO))


def _keep_token_secret() -> None:
    """Ray would write its token for all to read; so it is there before Ray looks, and for this user alone."""
    file = token_file()
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if file is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # which processes of this user alone can read
        return
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # with that, a missing file is an error that Ray names
        _make_token(file)
    if file.exists() and readable_by_others(file):
        file.chmod(0o600)


def _make_token(file: Path) -> None:
    """Writes a new token unless there is one; several sweeps may start at once."""
    if file.exists() and file.stat().st_size:
        return
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=file.parent)  # mode 600
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(32))
        if file.exists():  # empty, so of no use to anybody
            file.unlink()
        os.link(draft, file)
    except FileExistsError:
        pass  # another sweep was quicker
    finally:
        os.unlink(draft)
