"""The status of a sweep that runs elsewhere, by its index alone, and the request to stop it. Both need no Ray."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from raydistill.sweep.reporting.index import COLUMNS, Index, read_index
from raydistill.sweep.reporting.storage_writer import STOP
from raydistill.sweep.reporting.trial_tables import print_table, settings, short
from raydistill.sweep.stopping.pareto import non_dominated
from raydistill.sweep.surviving.holder import LEASE, sign_of_life
from raydistill.sweep.trial_row import TrialRow
from raydistill.system.errors import UserError
from raydistill.system.output import say
from raydistill.system.shell import resuming, typed
from raydistill.system.storage import at_home, join, open_place, replace_file

ALIVE = ("running", "stopping", "testing")
POLL = 1.0  # Seconds between two looks at the index.


@dataclass(frozen=True)
class Status:
    """A sweep as its index and its driver's lease show it.

    Args:
        place: its folder or address.
        index: what was read there.
        now: when that was, in seconds since 1970.
        renewed: when the driver last renewed its lease, in seconds since 1970.
    """

    place: str
    index: Index
    now: float
    renewed: float = 0.0

    @property
    def silent(self) -> float:
        """The seconds since the last sign of life."""
        return max(0.0, self.now - max(self.index.about.updated, self.renewed))

    @property
    def gone(self) -> bool:
        """Whether a sweep that has not ended seems to have lost its driver."""
        return self.index.about.state in ALIVE and self.silent > LEASE

    @property
    def state(self) -> str:
        """The state that the driver wrote, or `gone`."""
        return "gone" if self.gone else self.index.about.state

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of trials that are done, of these stopped early, failed, running and pending."""
        by_status = Counter(row.status for row in self.index.rows)
        done = sum(row.finished for row in self.index.rows)
        failed, running = by_status["ERROR"], len(self.running)
        pending = max(0, self.index.about.trials - done - failed - running)
        return {
            "done": done,
            "stopped_early": by_status["STOPPED"],
            "failed": failed,
            "running": running,
            "pending": pending,
        }

    @property
    def running(self) -> list[TrialRow]:
        """The rows of trials that run, or will when the sweep is resumed."""
        return [row for row in self.index.rows if row.running]

    @property
    def going(self) -> str:
        """The word for trials that have begun and not ended."""
        return "running" if self.state in ALIVE else "paused"

    @property
    def front(self) -> list[TrialRow]:
        """The Pareto front so far, in which are also trials that still run."""
        return non_dominated(self.index.rows, self.index.about.objectives)

    @property
    def best(self) -> TrialRow | None:
        """The row of the most accurate trial."""
        rows = [row for row in self.index.rows if row.val_accuracy is not None]
        return max(rows, key=lambda row: row.val_accuracy or 0.0, default=None)

    @property
    def resume(self) -> str:
        """The command that resumes the sweep."""
        return resuming(self.place)

    def to_json(self) -> dict[str, Any]:
        """Return the status for scripts; times are in seconds since 1970."""
        about = self.index.about
        return {
            "name": about.name,
            "storage": self.place,
            "state": self.state,
            "seconds_since_sign_of_life": self.silent,
            "trials": about.trials,
            **self.counts,
            "best": self.best and _to_json(self.best),
            "front": [_to_json(row) for row in self.front],
            "running_trials": [_to_json(row) for row in self.running],
        }


def _to_json(row: TrialRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in COLUMNS}
    return values | {"time": row.time and row.time.timestamp(), "config": dict(row.config)}


def read_status(place: str) -> Status:
    """Read the status of the sweep in a folder or at an address; errors are those of `read_index`."""
    place = at_home(place)
    return Status(place, read_index(place), time.time(), sign_of_life(place))


def print_status(status: Status, console: Console) -> None:
    """Print the state, the front so far, the trials that run, and how to resume where there is no driver."""
    counts, about = status.counts, status.index.about
    early = f" ({counts['stopped_early']} stopped early)" if counts["stopped_early"] else ""
    line = f"{counts['done']} of {about.trials} trials done{early}, {counts['running']} {status.going}"
    line += f", {counts['failed']} failed, {counts['pending']} pending"
    say(console, (about.name, "bold"), f": {status.state}; {line}")
    if status.best is not None:
        accuracy, trial = 100 * (status.best.val_accuracy or 0.0), status.best.trial
        say(console, f"best val {accuracy:.1f}%: trial {trial}, {status.best.artifact}")
    if status.front:
        title = "front so far: " + ", ".join(f"{name} {way}" for name, way in about.objectives.items())
        print_table(partial(_table, title, status.front, status), console)
    if status.running:
        print_table(partial(_table, status.going, status.running, status), console)
    if status.gone:
        gone = f"no sign of life for {age(status.silent)}: the driver seems to be gone"
        say(console, (gone, "yellow"), "; to resume:")
    elif about.state in ("stopped", "failed"):
        say(console, f"{about.state} {age(status.silent)} ago; to resume:")
    if status.gone or about.state in ("stopped", "failed"):
        say(console, f"  {typed(status.resume)}")


def _table(title: str, rows: list[TrialRow], status: Status, between: str) -> Table:
    table = Table(title=title, title_justify="left")
    extra = [name for name in status.index.about.objectives if name not in ("val_accuracy", "num_images")]
    for column in ("trial", "val", "images", *extra, "iteration", "last result", "settings"):
        table.add_column(column, justify="left" if column in ("trial", "settings") else "right", overflow="fold")
    for row in rows:
        accuracy = row.val_accuracy
        table.add_row(
            row.trial,
            "" if accuracy is None else f"{100 * accuracy:.1f}%",
            short(row.num_images),
            *(short(getattr(row, name)) for name in extra),
            short(row.iterations),
            f"{age(status.now - row.time.timestamp())} ago" if row.time else "",
            settings(row.config, between),
        )
    return table


def age(seconds: float) -> str:
    """Return a duration in words, in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def stop(place: str, timeout: float, tell: Callable[[str], None] = lambda state: None) -> Status:
    """Ask the sweep in a folder or at an address to end, and wait until it has.

    Args:
        place: the sweep's folder or address.
        timeout: seconds to wait; 0 only asks.
        tell: is called with each new state.

    Returns:
        the last status; its state is `stopped`, or `done` where that came first, or what it was at the timeout.

    Raises:
        UserError: it does not run, its driver is lost meanwhile, or the place cannot be written to.
    """
    status = read_status(place)
    place = status.place
    if status.state not in ALIVE:
        raise UserError(f"{place}: does not run ({status.state}, last sign of life {age(status.silent)} ago)")
    request = join(place, STOP)
    filesystem, inside = open_place(request)
    try:
        replace_file(filesystem, inside, b"")
    except OSError as error:
        raise UserError(f"{request}: cannot be written: {error}") from error
    end, known = time.monotonic() + timeout, ""
    while status.state in ALIVE and time.monotonic() < end:
        time.sleep(POLL)
        status = read_status(place)
        if status.state != known:
            known = status.state
            tell(known)
    if status.gone:
        raise UserError(f"{place}: the driver was lost before it stopped; resume it with `{typed(status.resume)}`")
    return status
