"""Parts that commands share: options, results on the screen, and errors on one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raydistill.system.errors import Diverged, UserError
from raydistill.system.output import in_a_line, lost_output, plain_console, say
from raydistill.system.shell import command, typed

if TYPE_CHECKING:
    from raydistill.store.artifact import Artifact

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


def print_result(artifact: "Artifact", path: Path, folder: Path) -> None:
    """Print how a run ended, and the commands to type next."""
    if "diverged" in artifact.provenance:
        say(console, ("diverged:", "yellow"), f" {artifact.provenance['diverged']}; the best set before is kept")
    elif artifact.metrics.get("stopped"):
        done = f"stopped at iteration {artifact.metrics['iterations']} of {artifact.config.iterations}"
        print_stopped(done, "raydistill", "distill", "--resume", folder)
    print_accuracy(artifact.metrics)
    say(console, "look at the images, the training, or test other networks:")
    for words in (
        ("raydistill", "show", path, "-o", "grid.png"),
        ("tensorboard", "--logdir", folder),
        ("raydistill", "evaluate", path, "--network", "convnet"),
    ):
        say(console, f"  {typed(command(*words))}")


def print_stopped(done: str, *words: str | Path) -> None:
    """Print how far a command came that was stopped before its end, and the command that resumes its work."""
    say(console, f"{done}; to resume:")
    say(console, f"  {typed(command(*words))}")


def print_accuracy(metrics: dict[str, Any]) -> None:
    """Print the results of a test."""
    accuracy, std, nets = (metrics[key] for key in ("test_accuracy", "test_accuracy_std", "nets"))
    over = f"± {100 * std:.1f} over {nets} networks" if nets > 1 else "on its one network"
    say(
        console,
        (f"{metrics['num_images']} images: test accuracy {100 * accuracy:.1f}% {over}", "bold"),
        f" ({100 * metrics['test_accuracy_before']:.1f}% before); as many random real images: "
        f"{100 * metrics['baseline_random_real']:.1f}%",
    )
    if "test_attack_success" in metrics:
        for name, what in (
            ("class_accuracy", "the attacked class is recognised"),
            ("attack_success", "and taken for the target"),
            ("other_accuracy", "the others are recognised"),
        ):
            before, after = metrics[f"test_{name}_before"], metrics[f"test_{name}"]
            say(console, f"  {what:33} {100 * after:5.1f}% ({100 * before:.1f}% before)")
        say(console, "  test accuracy here is the mean of the last two")


def print_json(values: dict[str, Any]) -> None:
    """Print one line on standard output, of any length; on standard error where nobody reads the other."""
    from raydistill.system.storage import to_json

    line = to_json(values, indent=None).decode()
    sys.stdout.flush()
    print(line, flush=True)
    if lost_output() is not None:
        print(line, file=sys.stderr, flush=True)
