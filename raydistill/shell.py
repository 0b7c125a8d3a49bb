"""Commands as the user would type them."""

import os
import shlex


def typed(command: str) -> str:
    """`command`, preceded by `uv run` where that is how this process was started: outside it there is no raydistill."""
    return f"uv run {command}" if "UV_RUN_RECURSION_DEPTH" in os.environ else command


def resuming(place: str) -> str:
    """The command that goes on with the sweep in a folder or at an address."""
    return f"raydistill sweep --resume {shlex.quote(place)}"
