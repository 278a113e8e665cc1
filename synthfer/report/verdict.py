"""An audit's verdicts as people read them in a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synthfer.evaluation.verdict import Audit

_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}


def print_verdicts(audit: Audit, page: str, console: Console) -> None:
    """A table with one row per guard; where one fails, what that comes to and the `page` with the evidence."""
    table = Table("guard", "", "status", "found", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for verdict in audit.verdicts:
        status = Text(verdict.status, style=_STYLES[verdict.status])
        table.add_row(verdict.guard, verdict.name, status, Text(verdict.message))
    console.print(table)
    if audit.status == "fail":  # a job that fails prints no summary of its own
        flagged = " and ".join(f"{rows:,} {side}" for side, rows in audit.flagged.items())
        said = Text.assemble(("fail", _STYLES["fail"]), f": {flagged} rows stand in failing pairs; see {page}")
        console.print(said, soft_wrap=True)
