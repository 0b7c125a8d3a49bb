"""The summary that a sweep prints and draws at its end."""

import json
import shlex
from functools import partial
from urllib.parse import parse_qs

from rich.console import Console
from rich.table import Table

from raydistill.config.network_settings import described
from raydistill.report.figures import artifact_grid, pareto_front, write_figure
from raydistill.sweep.reporting.index import INDEX
from raydistill.sweep.reporting.result import SweepResult
from raydistill.sweep.reporting.trial_tables import print_table, settings
from raydistill.sweep.trial_row import TrialRow
from raydistill.system.output import aside, say
from raydistill.system.shell import command, resuming, typed
from raydistill.system.storage import is_local, join

LEADERS = 10  # The most rows of the leaderboard.
TESTS = {
    "test": "test_accuracy",
    "random real, same steps": "baseline_same_steps",
    "random real, best recipe": "baseline_best_recipe",
}


def print_summary(result: SweepResult, console: Console) -> None:
    """Print the leaderboard, the front and the commands to type next, and draw the pictures."""
    again, trials = typed(resuming(result.folder)), result.config.budget.trials
    if result.failed:
        say(console, (f"{result.failed} of {trials} trials failed", "yellow"), f"; to try them again: {again}")
    if not result.trials:
        say(console, ("no trial came to its first validation", "yellow"), f"; their errors are in {result.folder}")
        return
    leaders = result.trials[:LEADERS]
    with aside("the tables"):
        most = f"the {len(leaders)} most accurate of {len(result.trials)} trials"
        print_table(partial(_table, most, leaders, result), console)
        title = "front: " + ", ".join(f"{name} {way}" for name, way in result.config.objectives.items())
        print_table(partial(_table, f"{title}; {_networks(result)}", result.front, result), console)
    for row in result.front:
        if row.tested and row.tested["test_accuracy"] <= row.tested["baseline_best_recipe"]:
            say(console, (f"{row.trial} does not beat random real images trained on by their best recipe", "yellow"))
    published = result.config.published
    if published is not None and published.value is not None:
        std = f" ± {100 * published.std:.1f}" if published.std is not None else ""
        number = f"{published.metric} {100 * published.value:.1f}%{std}"
        say(console, f"published: {number} ({published.source})")
    best = max(result.front, key=lambda row: row.val_accuracy or 0.0)
    pictures = {name: join(result.folder, f"{name}.png") for name in ("best", "front")}
    with aside("the best images"):
        write_figure(artifact_grid(result.artifacts[best.trial]), pictures["best"])
    with aside("the front's picture"):
        every, front = list(map(vars, result.trials)), list(map(vars, result.front))
        write_figure(pareto_front(every, front, result.config.objectives), pictures["front"])
    if result.stopped:
        say(console, f"stopped; to resume: {again}")
    elif untested := sum(bool(row.test_error) for row in result.front):
        missing = f"{untested} of {len(result.front)} sets of the front could not be tested"
        say(console, (missing, "yellow"), f"; to test them again: {again}")
    elif not result.failed and len(result.trials) < trials:
        missing = f"{trials - len(result.trials)} of {trials} trials brought no result"
        say(console, (missing, "yellow"), f"; to try them again: {again}")
    say(console, "next:")
    for what, line in (
        ("the best images", f"{pictures['best']} (others: {typed('raydistill show ARTIFACT -o grid.png')})"),
        ("the front", f"{pictures['front']}; artifacts in {join(result.folder, 'front')}"),
        ("test the best", typed(command("raydistill", "evaluate", str(best.artifact)))),
        ("all trials", f"{join(result.folder, INDEX)} (pandas, DuckDB); {tensorboard(result.folder)}"),
        ("use it in Python", f"raydistill.load({json.dumps(best.artifact, ensure_ascii=False)})"),
    ):
        say(console, f"  {what:18} {line}")


def tensorboard(place: str) -> str:
    """Return the command that shows a sweep's logs.

    TensorBoard reads s3:// by the bare address, if boto3 is installed.
    """
    if is_local(place):
        return typed(command("tensorboard", "--logdir", place))
    address, _, query = place.partition("?")
    endpoint = parse_qs(query).get("endpoint_override", [""])[0]
    look = typed(command("tensorboard", "--logdir", address))
    return (f"S3_ENDPOINT={shlex.quote(endpoint)} " if endpoint else "") + f"{look} (needs boto3)"


def _networks(result: SweepResult) -> str:
    """Return the networks of the front."""
    networks = [result.artifacts[row.trial].config.network for row in result.front]
    return ", ".join(dict.fromkeys(map(described, networks)))


def _table(title: str, rows: list[TrialRow], result: SweepResult, between: str) -> Table:
    """Return a table of trials; where they are tested, that takes the place of their iterations."""
    table = Table(title=title, title_justify="left")
    extra = [name for name in result.config.objectives if name not in ("val_accuracy", "num_images")]
    table.add_column("trial")
    tested = all(row.tested or row.test_error for row in rows)
    tests, iterations = (TESTS, []) if tested else ({}, ["iterations"])
    for column in ("val", *tests, "images", *extra, *iterations):
        table.add_column(column, justify="right")
    table.add_column("settings", overflow="fold")
    for row in rows:
        table.add_row(
            row.trial,
            f"{100 * (row.val_accuracy or 0.0):.1f}%" + (" diverged" if row.diverged else ""),
            *(f"{100 * row.tested[name]:.1f}%" if name in row.tested else "" for name in tests.values()),
            str(row.num_images),
            *(f"{getattr(row, name):.4g}" for name in extra),
            *(str(getattr(row, name)) for name in iterations),
            settings(row.config, between),
        )
    return table
