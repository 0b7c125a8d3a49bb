"""A Ray of our own on this machine, which nobody else can reach or read, and the token that keeps others out."""

import logging
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import ray

from raydistill.private_api.ray import (
    in_own_process_groups,
    longest_socket,
    on_loopback,
    ray_folder,
    read_environment_again,
    too_slow_to_start,
)
from raydistill.system.errors import UserError
from raydistill.system.storage import home

logger = logging.getLogger("raydistill")
TRIES = 3  # Of a start of Ray, each of which lasts up to half a minute.
LONGEST_SOCKET = 107  # Bytes that the system allows in the path of a socket.


def start_private_ray(**options: Any) -> None:
    """Start Ray on this machine alone: every port on loopback, calls only with the token of this user.

    Args:
        **options: for `ray.init`.

    Raises:
        UserError: where Ray keeps its files, the paths of its sockets would be too long; or Ray does not start.
        OSError: the token cannot be kept in the home folder.
    """
    _check_sockets()
    use_token()
    _keep_token_secret()
    for number in range(1, TRIES + 1):
        with on_loopback(), in_own_process_groups() as processes:
            try:
                ray.init(address="local", include_dashboard=False, **options)
                return
            except Exception as error:  # Ray has no class for this one.
                if not too_slow_to_start(error):
                    raise
                for process in processes:
                    process.kill()
                    process.wait()
                logger.warning("Ray was too slow to start on this machine (try %d of %d): is it busy?", number, TRIES)
    logs = ray_folder()[1] / "session_latest" / "logs"
    raise UserError(
        f"Ray did not start on this machine, which may be too busy (tries: {TRIES}); its logs are in {logs}"
    )


def use_token() -> None:
    """Have Ray use its token in every call, unless the user has set RAY_AUTH_MODE.

    Ray 2.52 starts a cluster without one, and no Ray uses its token with a cluster that RAY_ADDRESS names.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    read_environment_again()


def auth_mode() -> str:
    """Return the mode of authentication with which raydistill uses Ray: `token` unless the user has set another."""
    return os.environ.get("RAY_AUTH_MODE", "token").lower()


def use_any_token() -> None:
    """Make up a token for this process where there is none, for a cluster that asks for none.

    Ray does not join any cluster with RAY_AUTH_MODE=token and no token. A cluster that has one refuses this one.
    """
    file = token_file()
    if (
        auth_mode() == "token"
        and "RAY_AUTH_TOKEN_PATH" not in os.environ
        and not (file and file.exists() and file.stat().st_size)
    ):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def token_file() -> Path | None:
    """Return where Ray looks for its token; None where the user set it itself, or has no home folder."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    folder = home()
    return Path(named) if named else folder / ".ray" / "auth_token" if folder is not None else None


def readable_by_others(file: Path) -> bool:
    """Return whether another user of this machine may open the file."""
    return bool(stat.S_IMODE(file.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO))


def _check_sockets() -> None:
    """Raise UserError where the paths of Ray's sockets would be longer than the system allows."""
    path = longest_socket(f"session_{datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}")
    excess = len(os.fsencode(path)) - LONGEST_SOCKET
    if excess > 0:
        name, _ = ray_folder()
        raise UserError(
            f"{name}={os.environ[name]}: is {excess} letters too long for Ray's sockets, which it keeps there; set "
            "RAY_TMPDIR to a shorter folder, as /tmp"
        )


def _keep_token_secret() -> None:
    """Write the token for this user alone before Ray looks for one; Ray itself would write it for all to read."""
    file = token_file()
    if auth_mode() != "token":
        return
    if file is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Only processes of this user can read it.
        return
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:  # With it set, Ray itself reports a missing file.
        _make_token(file)
    if file.exists() and readable_by_others(file):
        file.chmod(0o600)


def _make_token(file: Path) -> None:
    """Write a new token unless there is one; several sweeps may start at once."""
    if file.exists() and file.stat().st_size:
        return
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=file.parent)  # The file gets mode 600.
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(32))
        if file.exists():  # It is empty, so of no use to anybody.
            file.unlink()
        with suppress(FileExistsError):  # Another sweep made it first.
            os.link(draft, file)
    finally:
        os.unlink(draft)
