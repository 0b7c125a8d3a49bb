"""A Ray of our own on this machine, that nobody else can reach or read."""

import os
import secrets
import stat
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants, services


def start_private_ray(**options: Any) -> None:
    """Starts Ray on this machine alone: every port on loopback, calls only with the token of this user.

    Ray takes the host's outward address for its own, whatever `ray.init` is told, and then listens on all of them;
    except where it never builds clusters (macOS, Windows). So it is told for a moment that this is such a place.

    Its processes are no part of this one's group: a SIGTERM for the group (`timeout`, batch systems) would end them,
    and the sweep could not keep what it has. They end with this process all the same.

    Args:
        **options: for `ray.init`.

    Raises:
        OSError: the token cannot be kept in the home folder.
    """
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
    """Where Ray looks for its token; None where it is told the token itself."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def readable_by_others(file: Path) -> bool:
    """Whether another user of this machine may open the file."""
    return bool(stat.S_IMODE(file.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO))


def _keep_token_secret() -> None:
    """Ray would write its token for all to read; so it is there before Ray looks, and for this user alone."""
    file = token_file()
    if file is None or os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
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
