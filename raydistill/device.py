"""Which device, how many threads, and what becomes of freed memory."""

import ctypes
import os

import torch

from raydistill.errors import UserError


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
