"""What a computation takes: FLOPs, seconds, memory, kernels."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class PeakMemory:
    """The most memory since its making, in bytes, beyond what there was then."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self.start = self.peak_now()

    def peak_now(self) -> int:
        """The most so far."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def peak(self) -> int:
        """The most so far, beyond what there was at the start."""
        return self.peak_now() - self.start


class FlopCounter(TorchDispatchMode):
    """FLOPs of matrix products and convolutions. (torch's FlopCounterMode cannot watch autograd.grad on leaves.)"""

    total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket in flop_registry:
            self.total += flop_registry[function.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def timed(function: Callable[[], Any], count: int, device: torch.device) -> float:
    """Seconds a call, with the device's work done."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(count):
        function()
    synchronise(device)
    return (time.perf_counter() - start) / count


def synchronise(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_flops(device: torch.device) -> float:
    """The best FLOP/s of a square matrix product, in the precision that is set."""
    best = 0.0
    for n in (1024, 2048, 4096 if device.type == "cpu" else 8192):
        a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
        seconds = min(timed(functools.partial(torch.matmul, a, b), 3, device) for _ in range(5))
        best = max(best, 2 * n**3 / seconds)
    return best


def kernels(function: Callable[[], Any], device: torch.device) -> tuple[int, float]:
    """How many kernels and copies a call has a GPU do, and the sum of their seconds; (0, 0.0) where nobody can tell."""
    if device.type != "cuda":
        return 0, 0.0
    synchronise(device)
    with profile(activities=[ProfilerActivity.CUDA]) as recorder:
        function()
        synchronise(device)
    spans = [event.time_range.elapsed_us() for event in recorder.events() if event.device_type == DeviceType.CUDA]
    return len(spans), sum(spans) / 1e6
