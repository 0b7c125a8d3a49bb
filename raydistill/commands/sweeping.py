"""Commands of a sweep: run it, show how it stands, stop it."""

from typing import Annotated

import typer

from raydistill.commands.screen import DataDir, Debug, Json, OtherData, Set, console, one_line_errors, print_json
from raydistill.system.errors import UserError
from raydistill.system.output import say

Place = Annotated[str, typer.Argument(metavar="STORAGE", help="The sweep's folder or address, as runs/digits.")]


def sweep(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="YAML file of the sweep; with --resume also its folder or address.")
    ],
    overrides: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the sweep of this name in its storage.")] = False,
    data_dir: DataDir = None,
    allow_other_data: OtherData = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Search settings with Ray Tune and Optuna: raydistill sweep sweeps/digits.yaml."""
    with one_line_errors(debug):
        from raydistill.config.overrides import with_overrides
        from raydistill.config.settings import validated
        from raydistill.config.sweep_config import SweepConfig
        from raydistill.config.sweep_file import sweep_values

        if allow_other_data and not resume:
            raise UserError("--allow-other-data: is for --resume; a new sweep takes the data that are there")
        settings = validated(
            SweepConfig, with_overrides(sweep_values(source), overrides or [], SweepConfig), f"{source}: "
        )
        from raydistill.commands.stopping import INTERRUPTED, stop_on_signals
        from raydistill.sweep.driver import run_sweep
        from raydistill.sweep.reporting.summary import print_summary

        with stop_on_signals() as stop:
            result = run_sweep(
                settings,
                resume=resume,
                data_dir=data_dir,
                allow_other_data=allow_other_data,
                stop=stop,
                console=console,
            )
        print_summary(result, console)
        if as_json:
            print_json(result.to_json())
        if result.failed or not result.trials:
            raise typer.Exit(1)
        if result.stopped:
            raise typer.Exit(INTERRUPTED)


def status(storage: Place, as_json: Json = False, debug: Debug = False) -> None:
    """Show the state of a sweep that runs here or elsewhere: raydistill status runs/digits."""
    with one_line_errors(debug):
        from raydistill.sweep.reporting.status import print_status, read_status

        found = read_status(storage)
        print_status(found, console)
        if as_json:
            print_json(found.to_json())


def stop(
    storage: Place,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for its end; 0 only asks.")] = 600.0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Stop a sweep that runs here or elsewhere; it can be resumed: raydistill stop runs/digits."""
    with one_line_errors(debug):
        from raydistill.sweep.reporting.status import ALIVE, print_status
        from raydistill.sweep.reporting.status import stop as stop_sweep

        found = stop_sweep(storage, timeout, tell=lambda state: say(console, state))
        print_status(found, console)
        if found.state in ALIVE:
            say(console, (f"it was asked to stop, and is still {found.state}", "yellow"))
        if as_json:
            print_json(found.to_json())
