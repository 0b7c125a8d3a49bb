"""Checks of the machine: driver, devices, threads, C compiler."""

import importlib.util
import logging
import os
import platform
import re
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from raydistill.commands.doctor.finding import Finding, Options
from raydistill.system.limits import core_limit, memory

GIB = 2**30
ENOUGH = 1.0  # GiB of a GPU that a trial of a small network takes.
PINS = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
DRIVER = Path("/proc/driver/nvidia/version")  # The file exists where NVIDIA's driver is loaded.


def look_at_driver(options: Options) -> Iterator[Finding]:
    """Check that torch and the GPU's driver fit together."""
    import torch

    built = torch.version.cuda
    loaded = re.search(r"Module.*?\s(\d+\.[\d.]+)", DRIVER.read_text()) if DRIVER.exists() else None
    there = f"NVIDIA driver {loaded[1]}" if loaded else "no NVIDIA driver"
    on_cpu = "everything is computed on the CPU"
    if torch.cuda.is_available():
        runtime = f"CUDA {built}" if built else f"ROCm {torch.version.hip}"
        yield Finding("driver", True, f"{there}, torch with {runtime}" if loaded else f"torch with {runtime}")
    elif built is None:
        todo = "install torch's CUDA build to use the GPU" if loaded else on_cpu
        yield Finding("driver", True, f"torch without CUDA, {there}", todo)
    elif os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        hidden = f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']!r} hides all GPUs"
        yield Finding("driver", True, f"torch with CUDA {built}, {there}; {hidden}", f"{on_cpu}; unset it to use them")
    elif loaded is None:
        todo = f"{on_cpu}; to use a GPU install its driver, in a container begin it with --gpus all"
        yield Finding("driver", True, f"torch with CUDA {built}, {there}", todo)
    else:
        try:
            torch.cuda.init()
            reason = "it shows no GPU"
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
        todo = (
            f"install a driver for CUDA {built} or newer, or a torch built for an older CUDA; does nvidia-smi answer?"
        )
        yield Finding("driver", False, f"torch with CUDA {built} cannot use {there}: {reason}", todo)


def look_at_devices(options: Options) -> Iterator[Finding]:
    """Report each device that computes, and its memory."""
    import torch

    free, total = memory()
    yield Finding("cpu", True, f"{_processor()}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found = f"{about.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, compute capability "
        full = f"less than {ENOUGH:g} GiB is free: nvidia-smi shows who has the rest" if free < ENOUGH * GIB else ""
        yield Finding(f"cuda:{index}", True, f"{found}{about.major}.{about.minor}", full)


def look_at_threads(options: Options) -> Iterator[Finding]:
    """Report the cores of this process, and whether torch has a thread for each."""
    cores, limit = len(os.sched_getaffinity(os.getppid())), core_limit()  # torch may have pinned this process itself.
    import torch

    from raydistill.system.device import use_threads

    use_threads()
    used = torch.get_num_threads()
    found = f"{_count(cores, 'core')}, {_count(used, 'thread')} of torch"
    if "OMP_NUM_THREADS" in os.environ:
        found += f" (raydistill sets that itself, whatever OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} says)"
    todo = ""
    if limit < cores:
        found += f", but time of only {limit:g} (cgroup)"
        todo = f"more threads than that wait for each other: begin commands with taskset -c 0-{max(1, int(limit)) - 1}"
    for name in ("OMP_THREAD_LIMIT", *(pin for pin in PINS if os.environ.get(pin, "").lower() != "false")):
        if os.environ.get(name):
            todo = f"unset {name}={os.environ[name]}: it keeps threads off cores that are free"
    yield Finding("threads", True, found, todo)


def look_at_compiler(options: Options) -> Iterator[Finding]:
    """Check that our C kernels can be built and loaded and, beside a GPU, that torch's compiler has what it needs."""
    import torch

    from raydistill.kernels.conv_relu_pool.c import c_kernels

    slower = "LeNet takes two to three times as long on the CPU"
    reasons = _Reasons()
    logging.getLogger("raydistill").addHandler(reasons)
    kernels = c_kernels(torch.float32)
    if kernels is not None:
        yield Finding("compiler", True, f"our kernels are built and loaded ({kernels.library._name})")
    elif reasons.said:
        yield Finding("compiler", True, reasons.said, f"{slower}; install a C compiler (gcc), or name one with CC")
    else:
        yield Finding("compiler", True, "RAYDISTILL_NATIVE=0 forbids our kernels", f"{slower}; unset it")
    if torch.cuda.is_available():
        yield _torch_compiler()


class _Reasons(logging.Handler):
    """A logging handler that keeps the last message."""

    said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = record.getMessage()


def _torch_compiler() -> Finding:
    found = {
        "triton": importlib.util.find_spec("triton") is not None,
        "a C compiler": any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))),
        "Python.h": Path(sysconfig.get_paths()["include"], "Python.h").exists(),
    }
    missing = [name for name, there in found.items() if not there]
    if not missing:
        return Finding("torch.compile", True, ", ".join(found))
    cost = "without it torch cannot compile for the GPU; install gcc, python3-dev, and the triton that torch names"
    return Finding("torch.compile", True, f"no {' and no '.join(missing)}", cost)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
