"""The holder of a sweep, read from the file that its driver renews, and whether that driver lives.

Whether a process of this machine lives is known at once; for others the renewals alone show it.
"""

import json
import os
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.fs

from raydistill.system.lock import signature
from raydistill.system.storage import join, names, open_place, read_file

FOLDER = "driver"
HEARTBEAT = 5.0  # Seconds between two renewals.
LEASE = 30.0  # Seconds for which a renewal is valid; others wait a heartbeat longer.

State = Literal["alive", "stopped", "dead", "unknown"]


@dataclass(frozen=True)
class Holder:
    """The holder of a sweep, as its file says; the defaults stand for a file that is not written to its end yet.

    name: shown to those who are refused. token: this holder's alone. machine, pid, started: of its process. beat: when
    the lease was last renewed, in seconds since 1970. ended: whether it gave the sweep back.
    """

    name: str = "another process"
    token: str = ""
    machine: str = ""
    pid: int = 0
    started: str = ""
    beat: float = 0.0
    ended: bool = False

    @classmethod
    def this_process(cls) -> "Holder":
        """Return a holder for this process, which renews its lease now."""
        return cls(signature(), secrets.token_hex(8), this_machine(), os.getpid(), started(os.getpid()), time.time())

    @classmethod
    def read(cls, data: bytes) -> "Holder":
        """Return the holder that a file's bytes describe."""
        try:
            values = json.loads(data)
            return cls(**values | {"beat": float(values["beat"]), "pid": int(values["pid"])})
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return cls()

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        return json.dumps(asdict(self)).encode()

    @property
    def state(self) -> State:
        """The state of its process; `unknown` for one of another machine."""
        here = bool(self.machine) and self.machine == this_machine()
        return state_of(self.pid, self.started) if here else "unknown"

    @property
    def free(self) -> bool:
        """Whether the holder has ended for certain."""
        return self.ended or self.state == "dead"

    @property
    def lives(self) -> bool:
        """Whether the holder lives for certain."""
        return self.state == "alive" and time.time() - self.beat < 2 * HEARTBEAT

    @property
    def lapses(self) -> float:
        """The seconds until the lease lapses unless it is renewed; two heartbeats at least, as clocks differ."""
        age = max(0.0, time.time() - self.beat)
        return max(LEASE + HEARTBEAT - age, 2 * HEARTBEAT)


def newest(filesystem: pa.fs.FileSystem, folder: str) -> tuple[int, Holder]:
    """Return the highest number among the leases in a folder, and its holder; 0 where there is none."""
    number = max((int(name) for name in names(filesystem, folder) if name.isdecimal()), default=0)
    if not number:
        return 0, Holder("nobody", ended=True)
    with suppress(FileNotFoundError):  # The holder of a higher one deleted it.
        return number, Holder.read(read_file(filesystem, f"{folder}/{file_name(number)}"))
    return number, Holder()


def sign_of_life(place: str) -> float:
    """Return when the driver of a sweep last renewed its lease, in seconds since 1970; 0 where there is none."""
    filesystem, inside = open_place(join(place, FOLDER))
    try:
        return newest(filesystem, inside)[1].beat
    except OSError:
        return 0.0


def file_name(number: int) -> str:
    """Return the name of a lease's file."""
    return f"{number:06d}"


def this_machine() -> str:
    """Return the id of this boot of this machine and of its list of processes; empty where they are not known.

    Each container has a list of processes of its own.
    """
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def started(pid: int) -> str:
    """Return when a process was started, in clock ticks since the boot: numbers of processes are used again."""
    return _stat(pid)[1]


def state_of(pid: int, start: str) -> State:
    """Return the state of the process that has this number and was started at this time."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "dead"
    except OSError:  # It is another user's process.
        pass
    letter, begun = _stat(pid)
    if letter in ("Z", "X") or (start and begun and start != begun):
        return "dead"
    return "stopped" if letter in ("T", "t") else "alive"


def _stat(pid: int) -> tuple[str, str]:
    """Return the letter of a process's state and its start; empty where the system hides them.

    The letter is Z for a process that has ended and whose parent has not asked for its exit code.
    """
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # A name may contain spaces.
        return fields[0], fields[19]
    return "", ""
