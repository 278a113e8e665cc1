"""An audit's verdicts as people read them in a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synthfer.evaluation.verdict import Audit

_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


def print_verdicts(audit: Audit, console: Console) -> None:
    """One line per guard."""
    table = Table("guard", "", "", "", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for verdict in audit.verdicts:
        status = Text(verdict.status, style=_STYLES[verdict.status])
        table.add_row(verdict.guard, verdict.name, status, Text(verdict.message))
    console.print(table)
