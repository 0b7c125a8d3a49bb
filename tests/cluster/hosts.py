"""Several hosts on this machine: each a process with network, pid, mount, uts and ipc namespaces of its own.

    with Hosts(folder) as hosts:
        first, second = hosts.add(), hosts.add()
        first.run("ping", "-c1", second.address)
        second.kill()

Nothing has a name outside: a namespace lasts as long as its first process, and that one is killed by the kernel when
the process that made it ends, however it ends. Files are the machine's own, but for /tmp/ray, /dev/shm and /etc/hosts.
"""

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

MOST = 32  # hosts of a network, dead ones included
LIFETIME = 7200  # seconds until a host ends by itself
NETWORK = "10.77.0"
TOOLS = ("ip", "unshare", "nsenter", "setpriv", "mount")
MORTAL = ("setpriv", "--pdeathsig", "KILL")  # what follows ends when this process does

# The first process of a host. A shell that waits reaps what its children leave behind; `exit` keeps it waiting.
INIT = f"""
set -e
mkdir -p /tmp/ray
mount --bind "$1/ray" /tmp/ray
mount --bind "$1/../hosts" /etc/hosts
mount -t tmpfs -o size=2g,mode=1777 tmpfs /dev/shm
hostname "$2" || true
ip link set lo up
echo ready
sleep {LIFETIME}
exit
"""


def why_not() -> str:
    """Why no hosts can be made here; empty where they can."""
    if not sys.platform.startswith("linux"):
        return "hosts are Linux namespaces"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)}: not installed (Debian: iproute2, util-linux)"
    probe = "ip link add br0 type bridge && ip link add veth1 type veth peer name veth2 && mount -t tmpfs none /mnt"
    command = ["unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--mount-proc", "sh", "-c", probe]
    done = subprocess.run(command, capture_output=True, text=True)
    return f"namespaces are not allowed here: {done.stderr.strip()}" if done.returncode else ""


class Host:
    """One host: commands run in it, and it can be lost. Made by `Hosts.add`.

    Args:
        name: its host name, which the others know too.
        address: on the network of all hosts.
        folder: files of its own; /tmp/ray of the host is `folder`/ray.
        env: the environment of what runs in it.
    """

    def __init__(self, name: str, address: str, folder: Path, env: Mapping[str, str]) -> None:
        self.name, self.address, self.folder, self.env = name, address, folder, dict(env)
        (folder / "ray").mkdir(parents=True)
        spaces = ("--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
        self._outer = subprocess.Popen(
            [*MORTAL, "unshare", *spaces, "sh", "-c", INIT, "init", str(folder), name],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        _wait_for_line(self._outer, name)
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        self.pid = int(children.read_text())
        """Of its first process, as this process sees it."""

    def command(self, *words: str | Path, cwd: str | Path | None = None) -> list[str]:
        """What runs `words` in the host from outside; killing it kills them."""
        into = ("nsenter", "--target", str(self.pid), "--net", "--pid", "--mount", "--uts", "--ipc")
        return [*MORTAL, *into, "env", "-C", str(cwd or Path.cwd()), *MORTAL, *map(str, words)]

    def start(self, *words: str | Path, cwd: str | Path | None = None, **options: Any) -> "subprocess.Popen[str]":
        """Starts a command; `options` are those of Popen."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "env": self.env} | options
        return subprocess.Popen(self.command(*words, cwd=cwd), text=True, **given)

    def run(
        self, *words: str | Path, cwd: str | Path | None = None, timeout: float = 120, check: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command to its end; with `check` a failed one raises AssertionError with all that it said."""
        process = self.start(*words, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{self.name}: {words} took more than {timeout} s\n{out}\n{err}") from None
        if check and process.returncode:
            raise AssertionError(f"{self.name}: {words} ended with {process.returncode}\n{out}\n{err}")
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def processes(self, words: str) -> list[int]:
        """The pids, as this process sees them, of the host's processes with these words in their command line."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for entry in Path("/proc").iterdir():
            try:
                here = entry.name.isdigit() and os.readlink(entry / "ns/pid") == space
                if here and words in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                    found.append(int(entry.name))
            except OSError:  # it ended meanwhile
                continue
        return sorted(found)

    @property
    def alive(self) -> bool:
        """Whether its first process runs."""
        return self._outer.poll() is None

    def kill(self) -> None:
        """Loses the host: everything in it ends at once, unasked, and its address is gone."""
        self._outer.kill()
        self._outer.wait()
        if self._outer.stdout:
            self._outer.stdout.close()


class Hosts:
    """A network of hosts, whose bridge is in a network namespace of its own. Nobody outside can reach them.

    Args:
        folder: where each host has a folder of its own.
        env: the environment of what runs in the hosts; that of this process if not given.
    """

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder, self.env = folder, dict(os.environ if env is None else env)
        self.all: list[Host] = []
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        make = f"ip link add br0 type bridge && ip link set br0 up && echo ready && sleep {LIFETIME}; exit"
        self._switch = subprocess.Popen(
            [*MORTAL, "unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", make],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        _wait_for_line(self._switch, "the switch")

    def add(self, name: str | None = None) -> Host:
        """Makes another host and joins it to the network."""
        number = len(self.all) + 1
        assert number <= MOST, f"more than {MOST} hosts"
        name = name or f"host{number}"
        address = f"{NETWORK}.{number}"
        with open(self.folder / "hosts", "a") as file:
            file.write(f"{address} {name}\n")
        host = Host(name, address, self.folder / name, self.env)
        self.all.append(host)
        port, switch = f"port{number}", ("nsenter", "--target", str(self._switch.pid), "--net")
        _do(*switch, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        _do(*switch, "ip", "link", "set", port, "master", "br0", "up")
        host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        return host

    def close(self) -> None:
        """Ends all hosts and the network."""
        for host in self.all:
            host.kill()
        self._switch.kill()
        self._switch.wait()
        if self._switch.stdout:
            self._switch.stdout.close()

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def wait_until(condition: Callable[[], object], seconds: float, what: str, pause: float = 0.2) -> None:
    """Returns when `condition()` is true; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(pause)


def _wait_for_line(process: "subprocess.Popen[str]", what: str) -> None:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 20)
    if not ready or process.stdout.readline() != "ready\n":
        process.kill()
        raise AssertionError(f"{what} did not begin (exit code {process.wait()})")


def _do(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
