"""The command line: `raydistill COMMAND`. Each command imports heavy libraries itself, so that --help is quick."""

import typer

from raydistill.commands import checking, judging, learning, sweeping
from raydistill.system.output import lasting_output, utf8_names

COMMANDS = (
    learning.distill,
    judging.evaluate,
    learning.pretrain,
    judging.baselines,
    judging.show,
    sweeping.sweep,
    checking.check,
    checking.doctor,
    sweeping.status,
    sweeping.stop,
)  # The order is that of --help.

app = typer.Typer(
    help="Distil data sets into a few synthetic images, and sweep for the best trade of accuracy and size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Run the `raydistill` command."""
    utf8_names()
    with lasting_output():
        app()


if __name__ == "__main__":
    main()
