"""Limits of this process on cores and memory, which a container or a batch system may have set (cgroups)."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def core_limit(root: Path = ROOT, own: Path = OWN) -> float:
    """Return the cores' worth of time that this process may take, inf for no limit. Affinity does not show it."""
    limit = math.inf
    for folder in _groups("cpu", root, own):
        quota = _numbers(folder / "cpu.max") or (
            *_numbers(folder / "cpu.cfs_quota_us"),  # The file of version 1.
            *_numbers(folder / "cpu.cfs_period_us"),
        )
        if len(quota) == 2 and quota[0] > 0:
            limit = min(limit, quota[0] / quota[1])
    return limit


def memory(root: Path = ROOT, own: Path = OWN) -> tuple[float, float]:
    """Return main memory in bytes: free for this process, and its total."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    about = {words[0]: float(words[1]) * 1024 for words in lines if len(words) > 1}
    free, total = about["MemAvailable:"], about["MemTotal:"]
    for folder in _groups("memory", root, own):
        limit = _numbers(folder / "memory.max") or _numbers(folder / "memory.limit_in_bytes")
        used = _numbers(folder / "memory.current") or _numbers(folder / "memory.usage_in_bytes")
        if limit and used and limit[0] < total:
            total = limit[0]
            free = min(free, max(0.0, total - used[0] + _cached(folder)))
    return free, total


def free_memory(device: "torch.device") -> float:
    """Return the bytes that this process may still take on a device."""
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory()[0]


def _groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """Return the folders of this process's groups and of all above them, of either version of cgroups."""
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        inside = top / path.lstrip("/")
        yield from (folder for folder in (inside, *inside.parents) if folder == top or top in folder.parents)


def _cached(folder: Path) -> float:
    """Return bytes of cached files, which a group frees when somebody needs memory."""
    try:
        about = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return float(about.get("total_inactive_file") or about["inactive_file"])
    except (OSError, ValueError, KeyError):
        return 0.0


def _numbers(file: Path) -> tuple[float, ...]:
    """Return the numbers in a file, inf for max; none where there is no such file."""
    try:
        return tuple(math.inf if word == "max" else float(word) for word in file.read_text().split())
    except (OSError, ValueError):
        return ()
