"""What the commands share: their options, what they print, and how they report what went wrong."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from raydistill.errors import Diverged, Stopped, UserError
from raydistill.shell import typed

if TYPE_CHECKING:
    from raydistill.artifact import Artifact

console = Console()
errors = Console(stderr=True)

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a setting; may be repeated.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(envvar="RAYDISTILL_DATA", help="Folder of downloaded data sets [default: ~/.cache/raydistill]."),
]
OtherData = Annotated[
    bool, typer.Option("--allow-other-data", help="Go on although the real data have changed; the result tells.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def one_line_errors(debug: bool) -> Iterator[None]:
    """Turns what the user can mend into one line and exit code 2."""
    try:
        yield
    except Stopped as stopped:
        console.print(f"{escape(str(stopped))}; the same command goes on from there", highlight=False)
        raise typer.Exit(130) from None
    except (UserError, Diverged, OSError) as error:  # OSError: no permission, no space
        if debug:
            raise
        _end_with(str(error))
    except RuntimeError as error:
        from raydistill.gpu_memory import is_out_of_gpu_memory, what_helps  # torch, which made the error, is loaded

        if debug or not is_out_of_gpu_memory(error):
            raise
        _end_with(what_helps(error))


def _end_with(error: str) -> None:
    errors.print(f"[bold red]error:[/] {escape(' '.join(error.split()))}", soft_wrap=True, highlight=False)
    raise typer.Exit(2) from None


def print_result(artifact: "Artifact", path: Path, folder: Path) -> None:
    """How a run ended, and the commands to type next."""
    if "diverged" in artifact.provenance:
        console.print(f"[yellow]diverged:[/] {escape(artifact.provenance['diverged'])}; the best set before is kept")
    elif artifact.metrics.get("stopped"):
        console.print(f"stopped at iteration {artifact.metrics['iterations']}; to go on:")
        console.print(f"  {typed(f'raydistill distill --resume {folder}')}", highlight=False, soft_wrap=True)
    print_accuracy(artifact.metrics)
    console.print("look at the images, the training, or test other networks:")
    for command in (
        f"raydistill show {path} -o grid.png",
        f"tensorboard --logdir {folder}",
        f"raydistill evaluate {path} --network convnet",
    ):
        console.print(f"  {typed(command)}", highlight=False, soft_wrap=True)


def print_accuracy(metrics: dict[str, Any]) -> None:
    """The results of a test."""
    accuracy, std, nets = (metrics[key] for key in ("test_accuracy", "test_accuracy_std", "nets"))
    over = f"± {100 * std:.1f} over {nets} networks" if nets > 1 else "on its one network"
    console.print(
        f"[bold]{metrics['num_images']} images: test accuracy {100 * accuracy:.1f}% {over}[/] "
        f"({100 * metrics['test_accuracy_before']:.1f}% before); as many random real images: "
        f"{100 * metrics['baseline_random_real']:.1f}%",
        highlight=False,
    )
    if "test_attack_success" in metrics:
        for name, what in (
            ("class_accuracy", "the attacked class is recognised"),
            ("attack_success", "and taken for the target"),
            ("other_accuracy", "the others are recognised"),
        ):
            before, after = metrics[f"test_{name}_before"], metrics[f"test_{name}"]
            console.print(f"  {what:33} {100 * after:5.1f}% ({100 * before:.1f}% before)", highlight=False)
        console.print("  test accuracy here is the mean of the last two", highlight=False)


def print_json(values: dict[str, Any]) -> None:
    """One line on standard output, whatever the console's width."""
    sys.stdout.flush()
    print(json.dumps(values, allow_nan=False, default=str), flush=True)
