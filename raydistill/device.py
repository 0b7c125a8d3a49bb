"""Which device, and how many threads."""

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


def use_threads(count: float | None = None) -> int:
    """Gives torch as many threads as its slot has cores, by default all of this process; returns how many.

    Processes with more threads than cores between them wait for each other: two with two threads each on two cores
    ran 100 times slower than one.
    """
    threads = max(1, int(count if count is not None else len(os.sched_getaffinity(0))))
    torch.set_num_threads(threads)
    return threads
