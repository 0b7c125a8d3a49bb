"""Hosts of `hosts.py` that one logs in to by ssh, each with a home of its own: what `ray up` wants of a provider."""

import getpass
import hashlib
import os
import pwd
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from hosts import Host, Hosts, wait_until

SSHD = """
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""

# The image of a host: it brings the environment that these tests run in, and says so to the setup commands.
BASHRC = f"""
export UV_PROJECT_ENVIRONMENT={sys.prefix} UV_NO_SYNC=1 UV_OFFLINE=1
export PATH={{uv}}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PYTHONPATH="$HOME/raydistill"
"""

# Runs once in each host: a home, ssh sockets and a run folder that the others do not see.
ROOM = """
set -e
mount --bind {folder}/passwd /etc/passwd
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd {sockets}
mount -t tmpfs tmpfs {sockets}
"""


SOCKETS = f"/tmp/ray_ssh_{hashlib.sha256(getpass.getuser().encode()).hexdigest()[:10]}"  # where Ray keeps those of ssh


def why_no_ssh() -> str:
    """Why `ray up` cannot be run here; empty where it can."""
    missing = [tool for tool in ("sshd", "ssh", "ssh-keygen", "rsync", "uv") if _tool(tool) is None]
    return f"{', '.join(missing)}: not installed (Debian: openssh-server, rsync; pip: uv)" if missing else ""


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


class SshHosts:
    """Hosts that share a key, which opens all of them.

    Args:
        folder: of all their files.
        names: of the hosts, the first of which only calls the others.
    """

    def __init__(self, folder: Path, *names: str) -> None:
        folder.mkdir(parents=True)
        self.key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        shutil.copy(self.key, folder / "host_key")
        (folder / "sshd").write_text(SSHD.format(folder=folder))
        self.hosts = Hosts(folder / "hosts")
        try:
            self.all = [self._furnished(self.hosts.add(name), folder) for name in names]
        except BaseException:
            self.close()
            raise

    def _furnished(self, host: Host, folder: Path) -> Host:
        home = host.folder / "home"
        home.mkdir()
        uv = Path(_tool("uv") or "").resolve().parent
        (home / ".bashrc").write_text(BASHRC.format(uv=uv))
        user = pwd.getpwuid(os.getuid())
        line = (
            f"{user.pw_name}:x:{user.pw_uid}:{user.pw_gid}::{home}:/bin/bash\nsshd:x:100:65534::/run/sshd:/bin/false\n"
        )
        (host.folder / "passwd").write_text(line)
        host.run("sh", "-c", ROOM.format(folder=host.folder, sockets=SOCKETS))
        kept = {name: os.environ[name] for name in ("LANG", "TERM") if name in os.environ}
        host.env = kept | {"HOME": str(home), "TMPDIR": str(host.folder), "PATH": os.environ["PATH"]}
        host.start(str(_tool("sshd")), "-D", "-e", "-f", folder / "sshd", stderr=subprocess.DEVNULL)
        wait_until(lambda: host.processes("sshd"), 10, f"{host.name}: sshd")
        return host

    def close(self) -> None:
        """Ends all of them."""
        self.hosts.close()
        with suppress(OSError):  # of another Ray here
            os.rmdir(SOCKETS)
