"""GPUs that this machine lacks, in a process of the test's own, where only functions of `torch._C` are replaced.

So torch's own checks of what it is given run, as they do on a GPU.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import torch

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
        torch.cuda._get_device_properties = lambda index: properties

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
    torch._C._cudart.cudaMemGetInfo = memory
    return caps


def tensors_stay() -> None:
    """From now on tensors that are sent to a GPU, or made there, lie in main memory, where all is computed."""
    to, make, generator = torch.Tensor.to, torch.zeros, torch.Generator

    def here(device):
        return torch.device("cpu") if torch.device(device).type == "cuda" else device

    torch.Tensor.to = lambda tensor, *args, **kwargs: to(
        tensor, *(here(each) if isinstance(each, torch.device) else each for each in args), **kwargs
    )
    torch.zeros = lambda *args, device="cpu", **kwargs: make(*args, device=here(device), **kwargs)
    torch.Generator = lambda device="cpu": generator(here(device))


def in_a_process(script: str, *arguments: str, **environment: str) -> str:
    """What a script prints, which may import this file; its own errors fail the test."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
