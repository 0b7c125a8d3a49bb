"""GPUs that this machine lacks, in a process of the test's own, where only functions of `torch._C` are replaced.

So torch's own checks of what it is given run, as they do on a GPU.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode

GIB = 2**30
NO_DRIVER = "The NVIDIA driver on your system is too old (found version 11000)."


def pretend(count: int = 1, total: int = 80 * GIB, kernels: bool = True) -> list[tuple[float, int]]:
    """From now on this process has so many GPUs of `total` bytes, or an old driver; returns the caps that it sets.

    Without `kernels` torch is older than they are.
    """
    caps: list[tuple[float, int]] = []

    def init():  # as torch's: it gives its module the function that it asks for properties
        if not count:
            raise RuntimeError(NO_DRIVER)
        properties = SimpleNamespace(total_memory=total, major=9, minor=0, name="pretended")
        torch.cuda._get_device_properties = lambda index: properties  # type: ignore[attr-defined]

    def memory(index):
        if index >= count:
            raise RuntimeError("CUDA error: invalid device ordinal\nmore of it")
        return total // 2, total

    def sleep(cycles):
        if not kernels:
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore of it")

    torch._C._cuda_init = init
    torch._C._cuda_sleep = sleep
    torch._C._cuda_getDeviceCount = lambda: count
    torch._C._cuda_getDevice = lambda: 0
    torch._C._cuda_setMemoryFraction = lambda share, index: caps.append((share, index))
    torch._C._cudart.cudaMemGetInfo = memory  # type: ignore[attr-defined]
    return caps


class TensorsStay(TorchFunctionMode):
    """Tensors that are sent to a GPU, or made there, lie in main memory, where all is computed."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = {name: here(value) for name, value in (kwargs or {}).items()}
        return function(*map(here, args), **kwargs)


def here(value):
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == "cuda" else value


def let_tensors_stay() -> None:
    """From now on nothing of this process is computed on a GPU, whatever its device is said to be."""
    generator = torch.Generator
    torch.Generator = lambda device="cpu": generator(here(torch.device(device)))
    TensorsStay().__enter__()


def in_a_process(script: str, *arguments: str, **environment: str) -> str:
    """What a script prints, which may import this file; its own errors fail the test."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
