"""Our few C kernels: compiled on first use, kept in the user's cache. Where there is no C compiler, torch serves."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raydistill.system.storage import home

FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


def forbidden() -> bool:
    """Whether RAYDISTILL_NATIVE=0 says that torch's own operations should serve."""
    return os.environ.get("RAYDISTILL_NATIVE") == "0"


@functools.cache
def load_kernels(source: Path, *defines: str) -> ctypes.CDLL | None:
    """The functions of a C file; None where it cannot be compiled, or RAYDISTILL_NATIVE=0 forbids it.

    The compiler is CC, by default cc. What it makes is for this processor, so the cache tells processors apart: a
    home folder may be shared by many machines.
    """
    if forbidden():
        return None
    command = [os.environ.get("CC", "cc"), *FLAGS, *(f"-D{define}" for define in defines)]
    parts = [source.read_text(encoding="utf-8"), *command, _processor()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    try:
        with _kept(f"{source.stem}-{key}.so") as library:
            if not library.exists():
                _compile([*command, str(source)], library)
            return ctypes.CDLL(str(library))
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        log = logging.getLogger("raydistill")
        log.warning("%s cannot be compiled (%s); torch's slower operations serve instead", source.name, reason)
        return None


@contextmanager
def _kept(name: str) -> Iterator[Path]:
    """Where a compiled file is kept: in the user's cache, or where this user has no home to write to, in no place."""
    named, own = os.environ.get("XDG_CACHE_HOME"), home()
    cache = Path(named) if named else own / ".cache" if own is not None else Path()
    file = cache / "raydistill" / "kernels" / name
    if named or (own is not None and (file.exists() or _can_be_made(file.parent))):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="raydistill-") as made:  # once loaded it may go
        yield Path(made, name)


def _can_be_made(folder: Path) -> bool:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return os.access(there, os.W_OK)


def _compile(command: list[str], library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:  # other processes may be at it too
        made = Path(folder) / library.name
        subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, text=True, timeout=120)
        os.replace(made, library)


def _processor() -> str:
    """What `-march=native` looks at."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
