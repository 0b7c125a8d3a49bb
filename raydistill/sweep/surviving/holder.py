"""Who holds a sweep, by the file that its driver renews, and whether that driver lives.

Of a process of this machine that is known at once, of others by their renewals alone.
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
HEARTBEAT = 5.0  # seconds between two renewals
LEASE = 30.0  # that a renewal holds for; others wait a heartbeat longer

State = Literal["alive", "stopped", "dead", "unknown"]


@dataclass(frozen=True)
class Holder:
    """Who holds a sweep, as its file says; by default of a file that is only half made.

    name: for those who are refused. token: this holder's alone. machine, pid, started: of its process. beat: when the
    lease was last renewed, in seconds since 1970. ended: whether it gave the sweep back.
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
        """This one, from now on."""
        return cls(signature(), secrets.token_hex(8), this_machine(), os.getpid(), started(os.getpid()), time.time())

    @classmethod
    def read(cls, data: bytes) -> "Holder":
        """From the file's bytes."""
        try:
            values = json.loads(data)
            return cls(**values | {"beat": float(values["beat"]), "pid": int(values["pid"])})
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return cls()

    def to_bytes(self) -> bytes:
        """The file's bytes."""
        return json.dumps(asdict(self)).encode()

    @property
    def state(self) -> State:
        """What its process does, where that is one of this machine."""
        here = bool(self.machine) and self.machine == this_machine()
        return state_of(self.pid, self.started) if here else "unknown"

    @property
    def free(self) -> bool:
        """Whether it has ended for certain."""
        return self.ended or self.state == "dead"

    @property
    def lives(self) -> bool:
        """Whether it lives for certain."""
        return self.state == "alive" and time.time() - self.beat < 2 * HEARTBEAT

    @property
    def lapses(self) -> float:
        """Seconds until the lease has lapsed if it is not renewed; two heartbeats at least, as clocks differ."""
        age = max(0.0, time.time() - self.beat)
        return max(LEASE + HEARTBEAT - age, 2 * HEARTBEAT)


def newest(filesystem: pa.fs.FileSystem, folder: str) -> tuple[int, Holder]:
    """The highest number among leases, and whose it is; 0 where there is none."""
    number = max((int(name) for name in names(filesystem, folder) if name.isdecimal()), default=0)
    if not number:
        return 0, Holder("nobody", ended=True)
    with suppress(FileNotFoundError):  # deleted by the holder of a higher one
        return number, Holder.read(read_file(filesystem, f"{folder}/{file_name(number)}"))
    return number, Holder()


def sign_of_life(place: str) -> float:
    """When the driver of a sweep last renewed its lease, in seconds since 1970; 0 where there is none."""
    filesystem, inside = open_place(join(place, FOLDER))
    try:
        return newest(filesystem, inside)[1].beat
    except OSError:
        return 0.0


def file_name(number: int) -> str:
    """Of a lease."""
    return f"{number:06d}"


def this_machine() -> str:
    """This boot of this machine, and its list of processes (containers have one each); empty where it is not known."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def started(pid: int) -> str:
    """When a process was started, in a clock of the machine's own: numbers of processes are used again."""
    return _stat(pid)[1]


def state_of(pid: int, start: str) -> State:
    """What the process of this number does that was started then."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "dead"
    except OSError:  # another user's
        pass
    letter, begun = _stat(pid)
    if letter in ("Z", "X") or (start and begun and start != begun):
        return "dead"
    return "stopped" if letter in ("T", "t") else "alive"


def _stat(pid: int) -> tuple[str, str]:
    """The letter of a process's state (of one that ended and nobody asked how: Z) and its start; empty where hidden."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # a name may hold spaces
        return fields[0], fields[19]
    return "", ""
