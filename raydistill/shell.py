"""Commands as the user would type them."""

import os


def typed(command: str) -> str:
    """`command`, preceded by `uv run` where that is how this process was started: outside it there is no raydistill."""
    return f"uv run {command}" if "UV_RUN_RECURSION_DEPTH" in os.environ else command
