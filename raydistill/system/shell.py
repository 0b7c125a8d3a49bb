"""Commands as the user would type them."""

import os
import shlex
from pathlib import Path


def command(*words: str | Path) -> str:
    """The words as one types them: those with spaces, quotes, brackets and the like are quoted for the shell."""
    return shlex.join(map(str, words))


def typed(command: str) -> str:
    """`command`, preceded by `uv run` where that is how this process was started: outside it there is no raydistill."""
    return f"uv run {command}" if "UV_RUN_RECURSION_DEPTH" in os.environ else command


def resuming(place: str) -> str:
    """The command that goes on with the sweep in a folder or at an address."""
    return command("raydistill", "sweep", "--resume", place)


def stopping(place: str) -> str:
    """The command that ends the sweep in a folder or at an address."""
    return command("raydistill", "stop", place)
