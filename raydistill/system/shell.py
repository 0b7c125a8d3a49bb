"""Commands as the user would type them."""

import os
import shlex
from pathlib import Path


def command(*words: str | Path) -> str:
    """Return the words as one types them: those with spaces, quotes or brackets are quoted for the shell."""
    return shlex.join(map(str, words))


def typed(command: str) -> str:
    """Return `command`, after `uv run` where that started this process: outside it there is no raydistill."""
    return f"uv run {command}" if "UV_RUN_RECURSION_DEPTH" in os.environ else command


def resuming(place: str) -> str:
    """Return the command that resumes the sweep in a folder or at an address."""
    return command("raydistill", "sweep", "--resume", place)


def stopping(place: str) -> str:
    """Return the command that stops the sweep in a folder or at an address."""
    return command("raydistill", "stop", place)
