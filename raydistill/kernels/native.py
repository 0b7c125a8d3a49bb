"""C kernels, compiled at their first use and kept in the user's cache; without a compiler torch's operations serve."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from raydistill.system.storage import home

DTYPES = {torch.float32: ("REAL=float", "INT=int32_t"), torch.float64: ("REAL=double", "INT=int64_t")}
FLAGS = ("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


def forbidden() -> bool:
    """Return whether RAYDISTILL_NATIVE=0 asks for torch's own operations in place of our kernels."""
    return os.environ.get("RAYDISTILL_NATIVE") == "0"


def kernels_for(source: Path, dtype: torch.dtype, tensors: Mapping[str, int]) -> ctypes.CDLL | None:
    """Return the functions of a C file for a dtype of `DTYPES`; None as `load_kernels` does.

    Each of them, by its name, takes the addresses of so many tensors and of a struct.
    """
    library = load_kernels(source, *DTYPES[dtype])
    for name, count in tensors.items() if library is not None else ():
        getattr(library, name).argtypes = [ctypes.c_void_p] * (count + 1)
        getattr(library, name).restype = None
    return library


@functools.cache
def load_kernels(source: Path, *defines: str) -> ctypes.CDLL | None:
    """Return the functions of a C file; None where it cannot be compiled, or RAYDISTILL_NATIVE=0 forbids it.

    The compiler is CC, by default cc. The library is for this processor only, and a home folder may
    be shared by many machines, so its name in the cache depends on the processor.
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
    """Yield where a compiled file is kept: in the user's cache, or without a writable home in a temporary folder."""
    named, own = os.environ.get("XDG_CACHE_HOME"), home()
    cache = Path(named) if named else own / ".cache" if own is not None else Path()
    file = cache / "raydistill" / "kernels" / name
    if named or (own is not None and (file.exists() or _can_be_made(file.parent))):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="raydistill-") as made:  # A loaded library needs no file.
        yield Path(made, name)


def _can_be_made(folder: Path) -> bool:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    return os.access(there, os.W_OK)


def _compile(command: list[str], library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:  # Other processes may compile it, too.
        made = Path(folder) / library.name
        subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, text=True, timeout=120)
        os.replace(made, library)


def _processor() -> str:
    """Return the lines about the processor that `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.platform() + platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
