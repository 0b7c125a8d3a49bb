"""Tables with a row for each trial, whose searched settings stand in one column, and which fit the terminal."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(make: Callable[[str], Table], console: Console) -> None:
    """Print a table with the settings of a trial in one line, or one below the other where that is too wide.

    Args:
        make: returns the table, given what stands between two settings.
        console: where to print.
    """
    table = make(" ")
    if console.measure(table, options=console.options.update(width=10_000)).maximum > console.width:
        table = make("\n")
        table.show_lines = True
    console.print(table)


def settings(values: Mapping[str, Any], between: str = " ") -> Text:
    """Return searched settings as short text."""
    return Text(between.join(f"{name}={'null' if value is None else short(value)}" for name, value in values.items()))


def short(value: Any) -> str:
    """Return a setting or a measurement in at most three digits; nothing for one that is not known."""
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
