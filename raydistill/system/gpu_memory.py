"""A GPU's memory, which several processes may share."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from raydistill.system.errors import UserError

GIB = 2**30
CUDA_ITSELF = GIB // 2  # Bytes that CUDA takes for each process beside torch's memory, about.
LEAST = GIB  # Bytes that a process needs: CUDA itself, and as much for torch with the workspaces of the libraries.
WORDS = re.compile(r"out of memory|_ALLOC_FAILED")  # Errors of CUDA, cuBLAS and cuDNN are no OutOfMemoryError.


def use_gpu_share(share: float, device: torch.device) -> None:
    """Limit this process to its share of a GPU's memory, where it shares the GPU with others.

    CUDA itself takes some memory for each process; torch's limit is the share without it.

    Args:
        share: of one GPU, 0 to 1; more, or none, is no limit.
        device: where the process works.

    Raises:
        UserError: so little is not enough for any process.
    """
    if device.type != "cuda" or not 0 < share < 1:
        return
    total = torch.cuda.get_device_properties(device).total_memory
    if share * total < LEAST:
        least = math.ceil(1000 * LEAST / total) / 1000
        raise UserError(
            f"resources.gpu={share:g}: is {share * total / GIB:.2f} GiB of a GPU that has {total / GIB:.1f}, and a "
            f"process needs {LEAST / GIB:g} to begin with; at least {min(1.0, least):g}"
        )
    torch.cuda.set_per_process_memory_fraction((share * total - CUDA_ITSELF) / total, device)


@contextmanager
def enough_gpu_memory(share: float) -> Iterator[None]:
    """Turn torch's errors about too little GPU memory into one line.

    Args:
        share: of a GPU, that this process was granted.

    Raises:
        UserError: instead of torch's errors.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_gpu_memory(error):
            raise
        raise UserError(what_helps(error, share)) from error


def what_helps(error: Exception, share: float = 1.0) -> str:
    """Return what to do where a GPU, or a share of one, had too little memory."""
    what = f"resources.gpu={share:g}: this share of a GPU" if 0 < share < 1 else "one GPU"
    more = "a larger share, " if 0 < share < 1 else ""
    return (
        f"{what} has too little memory; {more}smaller sets or batches, or fewer networks would help "
        f"({str(error).strip().splitlines()[0]})"
    )


def is_out_of_gpu_memory(error: Exception) -> bool:
    """Return whether an error means too little GPU memory, by torch's count or by that of CUDA and its libraries."""
    return isinstance(error, torch.OutOfMemoryError) or bool(WORDS.search(str(error)))


def peak_gpu_memory(device: torch.device) -> int:
    """Return the most memory that this process has taken of a GPU, in bytes, without that of other processes."""
    return torch.cuda.max_memory_reserved(device) + CUDA_ITSELF if device.type == "cuda" else 0
