"""The table of running trials on the screen while a sweep runs."""

import time
from functools import partial
from typing import Any

from ray.tune import Callback
from rich.table import Table

from raydistill.sweep.reporting.trial_tables import print_table, settings
from raydistill.system.output import aside, plain_console


class LiveTable(Callback):
    """Prints a table of the running trials every `seconds`, with how many are done and the best accuracy so far.

    Ray calls the methods with keywords and pickles the object. So the parameters' names are Ray's, and the object holds
    plain values only.

    Args:
        total: how many trials the sweep has.
        seconds: from one table to the next.
    """

    def __init__(self, total: int, seconds: float = 15.0) -> None:
        self.total = total
        self.seconds = seconds
        self.shown = 0.0

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Print the table if it is time for it."""
        if time.time() - self.shown >= self.seconds:
            self.shown = time.time()
            with aside("the table of trials"):
                print_table(partial(self.table, trials), plain_console())

    def table(self, trials: list[Any], between: str = " ") -> Table:
        """Return the table of the trials that run now, with `between` two settings."""
        done = sum(trial.is_finished() for trial in trials)
        accuracies = [trial.last_result["val_accuracy"] for trial in trials if "val_accuracy" in trial.last_result]
        best = f", best val {100 * max(accuracies):.1f}%" if accuracies else ""
        running = [trial for trial in trials if trial.status == "RUNNING"]
        table = Table(title=f"{done} of {self.total} trials done, {len(running)} running{best}", title_justify="left")
        for column in ("trial", "iteration", "loss", "val", "images", "seconds", "settings"):
            table.add_column(column, justify="left" if column in ("trial", "settings") else "right")
        for trial in running:
            last = trial.last_result
            table.add_row(
                trial.trial_id,
                str(last.get("iterations", 0)),
                f"{last['loss']:.3f}" if "loss" in last else "",
                f"{100 * last['val_accuracy']:.1f}%" if "val_accuracy" in last else "",
                str(last.get("num_images", "")),
                f"{last.get('seconds', 0):.0f}",
                settings(trial.config, between),
            )
        return table
