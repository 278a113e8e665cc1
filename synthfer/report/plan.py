"""A plan as people read it: rows per expression and attribute value, and the first prompts."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_plan(summary: Mapping[str, Any], console: Console) -> None:
    """Prints what `Plan.summary` says."""
    table = Table("expression", box=None, header_style="bold", padding=(0, 3, 0, 0))
    for title in ("rows", "cells", "rows per cell"):
        table.add_column(title, justify="right")
    for name, row in summary["expressions"].items():
        least, most = row["rows_per_cell"]
        per_cell = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        table.add_row(name, f"{row['rows']:,}", f"{row['cells']:,}", per_cell)
    table.add_row("all", f"{summary['rows']:,}", "", "", style="bold")
    console.print(table)
    part = "" if summary["counted"] == summary["rows"] else f" in the first {summary['counted']:,} rows"
    console.print(Text(f"\nRows per value{part}", style="bold"))
    for name, values in summary["attributes"].items():
        console.print(Text(f"{name}: " + ", ".join(f"{value} {n:,}" for value, n in values.items())))
    console.print(Text("\nFirst prompts", style="bold"))
    for prompt in summary["prompts"]:
        console.print(Text(prompt))
    console.print()
