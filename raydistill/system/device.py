"""Which device a process computes on, with which precision and threads, and what becomes of freed memory."""

import ctypes
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from raydistill.system.errors import UserError


def pick_device(name: str, gpus: float | None = None) -> torch.device:
    """Return the device that a setting names; a GPU with its index, which torch's functions for its memory want.

    Args:
        name: auto, cpu, cuda or cuda:N. auto is the first GPU, or the CPU where there is none.
        gpus: how many Ray granted to this process; None for a process that Ray did not start. Where Ray granted none,
            auto is the CPU, even if this process sees GPUs; where it granted one, auto is a GPU, or an error.

    Raises:
        UserError: there is no such device here, or torch cannot use it.
    """
    if name == "auto" and not (torch.cuda.is_available() if gpus is None else gpus):
        return torch.device("cpu")
    try:
        device = torch.device("cuda" if name == "auto" else name)
        if device.type != "cuda":
            torch.empty(0, device=device)
        elif gpus != 0:
            device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
            torch.cuda.mem_get_info(device)  # This starts CUDA there.
            if gpus:
                torch.cuda._sleep(1)  # This runs some kernel: a torch older than the GPU has none for it.
    except (RuntimeError, AssertionError, torch.cuda.DeferredCudaCallError) as error:
        raise UserError(f"device={name}: {_why_not(error, gpus)}") from error
    if device.type == "cuda" and gpus == 0:
        raise UserError(f"device={name}: resources.gpu=0 grants no GPU; set it to 1, a share as 0.25, or auto")
    return device


def _why_not(error: Exception, gpus: float | None) -> str:
    cause = error.__cause__ if isinstance(error, torch.cuda.DeferredCudaCallError) else error
    reason = str(cause).strip().splitlines()[0]
    if not gpus:
        return f"is not here ({reason}); use auto or cpu"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        f"Ray granted {gpus:g} GPU on {platform.node()} (CUDA_VISIBLE_DEVICES={visible}), which torch "
        f"{torch.__version__} cannot use; repair its driver or torch there, or set resources.gpu=0 ({reason})"
    )


def use_precision(precision: str, device: torch.device, deterministic: bool = False) -> None:
    """Set for this process how GPUs multiply float32 numbers: as they are, or rounded to TF32.

    Args:
        precision: the setting of that name.
        device: where to compute; on a CPU nothing is set.
        deterministic: whether cuDNN computes the same bits each time. If not, it tries its kernels for each size of a
            convolution and takes the fastest, which may add numbers in any order.

    Raises:
        UserError: the device has no TF32.
    """
    rounded = precision == "tf32"
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = rounded
        torch.backends.cudnn.allow_tf32 = rounded  # By default torch has True.
        torch.backends.cudnn.deterministic = deterministic
        torch.backends.cudnn.benchmark = not deterministic
    elif rounded:
        raise UserError(f"precision=tf32: only GPUs have it, and device={device}; use float32 or bfloat16")


@contextmanager
def exact_products() -> Iterator[None]:
    """Let GPUs multiply float32 numbers as they are for a while, whatever the precision of the networks."""
    rounded = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = rounded


def use_threads(count: float | None = None) -> int:
    """Give torch as many threads as cores, by default as many as this process may use; return how many.

    Processes that have more threads than cores between them wait for each other: two with two threads each on two
    cores ran 100 times slower than one.
    """
    keep_freed_memory()
    threads = max(1, int(count if count is not None else len(os.sched_getaffinity(0))))
    torch.set_num_threads(threads)
    return threads


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor, instead of returning it to the system.

    Otherwise the pages of large tensors are requested again in every iteration, with one page fault each: half of the
    time of LeNet's forward and backward on 1,024 images. Other C libraries are left as they are.
    """
    trim_threshold, mmap_threshold = -1, -3  # They are M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in malloc.h.
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 2**30)
        libc.mallopt(trim_threshold, 2**31 - 1)
    except (OSError, AttributeError):
        return


def sharing_tensor(array: Any) -> torch.Tensor:
    """Make a tensor in a numpy array's memory, which may be read-only, as Ray's shared memory is: only read it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
