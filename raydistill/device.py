"""Which device, how many threads, and what becomes of freed memory."""

import ctypes
import os
import warnings
from typing import Any

import torch

from raydistill.errors import UserError

CUDA_ITSELF = 2**29  # bytes of a GPU that each process takes beside torch's, about


def pick_device(name: str) -> torch.device:
    """The device a setting names: auto is the first GPU, or the CPU where there is none.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name}: is not here ({str(error).splitlines()[0]}); use auto or cpu") from error
    return device


def use_precision(precision: str, device: torch.device) -> None:
    """Has GPUs multiply float32 numbers as they are, or rounded to TF32 where `precision` says so.

    Raises:
        UserError: the device has no TF32.
    """
    rounded = precision == "tf32"
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = rounded
        torch.backends.cudnn.allow_tf32 = rounded  # torch's own default is True
    elif rounded:
        raise UserError(f"precision=tf32: only GPUs have it, and device={device}; use float32 or bfloat16")


def use_threads(count: float | None = None) -> int:
    """Gives torch as many threads as its slot has cores, by default all of this process; returns how many.

    Processes with more threads than cores between them wait for each other: two with two threads each on two cores
    ran 100 times slower than one.
    """
    keep_freed_memory()
    threads = max(1, int(count if count is not None else len(os.sched_getaffinity(0))))
    torch.set_num_threads(threads)
    return threads


def use_gpu_share(share: float, device: torch.device) -> None:
    """Has this process take no more of a GPU's memory than its share, where it shares the GPU with others.

    CUDA itself takes some for each process; that is kept out of what torch may have.

    Args:
        share: of one GPU, 0 to 1; more, or none, is no limit.
        device: where the process works.
    """
    if device.type == "cuda" and 0 < share < 1:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(max(share / 2, share - CUDA_ITSELF / total), device)


def keep_freed_memory() -> None:
    """Has glibc keep freed memory for the next tensor, instead of giving it back to the system.

    Otherwise the pages of large tensors come anew, one fault each, in every iteration: half of the time of LeNet's
    forward and backward on 1,024 images. Other C libraries are left alone.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in malloc.h
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**31 - 1)
    except (OSError, AttributeError):
        return


def sharing_tensor(array: Any) -> torch.Tensor:
    """A tensor in a numpy array's memory, which may be read-only (as Ray's shared memory is): only to be read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
