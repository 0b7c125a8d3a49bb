"""The process that runs checks: it sends their findings and errors through a pipe."""

import importlib
import os
import re
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

from raydistill.commands.doctor.finding import Finding, Options
from raydistill.system.errors import UserError

NO_RAY = "is the port the head's (6379)? Bring the cluster's token here (~/.ray/auth_token, mode 600)"
HINTS = {  # Words of errors, and what to do.
    r"no kernel image": "this torch has no kernels for this GPU; install one that is built for its compute capability",
    r"out of memory": "the GPU's memory is taken; nvidia-smi shows by whom",
    r"devices are busy|device\(s\) is/are busy": "another process has the GPU for itself (compute mode); wait for it",
    r"driver.*(too old|insufficient)": "install a newer NVIDIA driver, or a torch built for an older CUDA",
    r"uthenticat|token|connect to Ray cluster": NO_RAY,
    r"Invalid address|Malformed host": "RAY_ADDRESS should be HOST:6379, of the cluster's head",
    r"ersion mismatch": "install here the Python and Ray of the cluster; uv.lock pins them",
    r"No space left": "free some space there",
}
ELSE = "raydistill doctor --debug shows where it comes from"


def work(pipe: Connection, jobs: list[tuple[str, str]], options: Options, words: Path | None) -> None:
    """Run checks (name, module) in order; send each finding, and None after the last one of each check.

    Args:
        pipe: the pipe to the process that shows the findings.
        jobs: the checks, functions `look_at_<name>` in a module.
        options: the options of the checks.
        words: a file for the output of libraries; None to leave it on the screen.
    """
    if words is not None:
        file = os.open(words, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
    for name, module in jobs:
        try:
            look = getattr(importlib.import_module(module), f"look_at_{name}")
            for finding in look(options):
                pipe.send(finding)
        except Exception as error:
            traceback.print_exc()
            pipe.send(broken(name, error))
        pipe.send(None)


def broken(name: str, error: Exception) -> Finding:
    """Return the one line of an exception."""
    said = " ".join(str(error).split())
    if isinstance(error, UserError):
        return Finding(name, False, said)  # The message says what to do.
    todo = next((todo for words, todo in HINTS.items() if re.search(words, said)), ELSE)
    return Finding(name, False, f"{type(error).__name__}: {said[:300]}", todo)
