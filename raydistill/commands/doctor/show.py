"""Findings on the screen: aligned, one after the other as they come."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from raydistill.commands.doctor.finding import Finding

COLOURS = {"ok": "green", "note": "yellow", "fails": "bold red"}
WIDTH = 20  # Letters of the longest name, hypergradient cuda:0.


def print_findings(findings: Iterable[Finding], console: Console) -> list[Finding]:
    """Print each finding as it comes, and a summary; return the findings.

    Where the output is no terminal, each is one line of any length, so that it can be searched.
    """
    found = []
    with console.status("looking"):
        for finding in findings:
            found.append(finding)
            if console.is_terminal:
                console.print(_row(finding))
            else:
                line = _said(finding).plain
                console.print(Text(f"{finding.name:{WIDTH}}  {finding.state:5}  {line}"), soft_wrap=True)
    count = {state: sum(each.state == state for each in found) for state in COLOURS}
    console.print(Text(", ".join(f"{number} {state}" for state, number in count.items() if number), style="bold"))
    return found


def _row(finding: Finding) -> Table:
    """Return a row of name, state and text; the text stays in its column on narrow terminals, too."""
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=WIDTH)
    row.add_column(width=5)
    row.add_column(overflow="fold")
    row.add_row(Text(finding.name), Text(finding.state, style=COLOURS[finding.state]), _said(finding))
    return row


def _said(finding: Finding) -> Text:
    """Return what was found and what to do, without markup, as paths may contain brackets."""
    arrow = " -> " if finding.todo else ""
    return Text.assemble(finding.found, (f"{arrow}{finding.todo}", COLOURS[finding.state]))
