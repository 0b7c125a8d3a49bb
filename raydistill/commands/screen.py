"""Parts that commands share: options, and errors and JSON on one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from raydistill.system.errors import Diverged, UserError
from raydistill.system.output import in_a_line, lost_output, plain_console, say
from raydistill.system.shell import command, typed

console = plain_console()
errors = plain_console(stderr=True)

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a setting; may be repeated.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(envvar="RAYDISTILL_DATA", help="Folder of downloaded data sets [default: ~/.cache/raydistill]."),
]
OtherData = Annotated[
    bool, typer.Option("--allow-other-data", help="Accept real data that have changed; the result says so.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Turn an error that the user can correct into one line and exit code 2."""
    try:
        yield
    except (UserError, Diverged, OSError) as error:  # An OSError means no permission or no space.
        if debug:
            raise
        _end_with(in_a_line(error))
    except RuntimeError as error:
        from raydistill.system.gpu_memory import (  # torch, which made the error, is loaded
            is_out_of_gpu_memory,
            what_helps,
        )

        if debug or not is_out_of_gpu_memory(error):
            raise
        _end_with(" ".join(what_helps(error).split()))


def _end_with(error: str) -> None:
    say(errors, ("error:", "bold red"), f" {error}")
    raise typer.Exit(2) from None


def print_stopped(done: str, *words: str | Path) -> None:
    """Print how far a command came that was stopped before its end, and the command that resumes its work."""
    say(console, f"{done}; to resume:")
    say(console, f"  {typed(command(*words))}")


def print_json(values: dict[str, Any]) -> None:
    """Print one line on standard output, of any length; on standard error where nobody reads the other."""
    from raydistill.system.storage import to_json

    line = to_json(values, indent=None).decode()
    sys.stdout.flush()
    print(line, flush=True)
    if lost_output() is not None:
        print(line, file=sys.stderr, flush=True)
