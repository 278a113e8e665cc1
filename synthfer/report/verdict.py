"""Prints an audit's verdicts to a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synthfer.audit.result import AuditResult

_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


def print_verdicts(audit: AuditResult, page: str, console: Console) -> None:
    """A table with one row per guard; where one fails, the number of flagged rows and the `page` with the evidence."""
    table = Table("guard", "", "status", "found", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for verdict in audit.verdicts:
        status = Text(verdict.status, style=_STYLES[verdict.status])
        table.add_row(verdict.guard.value, verdict.guard.label, status, Text(verdict.message))
    console.print(table)
    if audit.status == "fail":  # a job that fails prints no summary of its own
        flagged = " and ".join(f"{rows:,} {side}" for side, rows in audit.flagged.items())
        line = Text.assemble(("fail", _STYLES["fail"]), f": {flagged} rows are in failing pairs; see {page}")
        console.print(line, soft_wrap=True)
