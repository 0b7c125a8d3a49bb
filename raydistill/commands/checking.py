"""Commands that check a machine or a cluster's file."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from raydistill.commands.screen import DataDir, Debug, Json, console, one_line_errors, print_json
from raydistill.system.output import say
from raydistill.system.shell import command


def check(
    file: Annotated[Path, typer.Argument(help="YAML file of a cluster, as cluster.yaml.")] = Path("cluster.yaml"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a cluster's file before `ray up`: Ray's schema, machines, open ports, the token."""
    with one_line_errors(debug):
        from raydistill.cluster.cluster_file import check_cluster, cluster_summary

        summary = cluster_summary(check_cluster(file))
        kinds = ", ".join(f"{kind['least']} to {kind['most']} {name}" for name, kind in summary["workers"].items())
        say(console, f"{file}: ready for `{command('ray', 'up', file)}`: a head and {kinds}")
        if as_json:
            print_json({"file": str(file)} | summary)


def doctor(
    storage: Annotated[str, typer.Option(help="Where sweeps keep things: a folder, s3:// or gs://.")] = "runs",
    data_dir: DataDir = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Look at this machine: what it has for raydistill, what works, and what to do where something does not."""
    with one_line_errors(debug):
        from raydistill.commands.doctor.examine import examine
        from raydistill.commands.doctor.finding import Options
        from raydistill.commands.doctor.show import print_findings
        from raydistill.commands.stopping import stop_on_signals

        options = Options(None if data_dir is None else str(data_dir), storage)
        with stop_on_signals() as stop:
            found = print_findings(examine(options, debug=debug, stop=stop), console)
        well = all(finding.ok for finding in found)
        if as_json:
            print_json({"ok": well, "checks": [asdict(finding) for finding in found]})
        if not well:
            raise typer.Exit(1)
