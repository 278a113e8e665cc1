"""A plan as people read it: rows per expression and attribute value, how faces are used, and the first prompts."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_plan(summary: Mapping[str, Any], console: Console) -> None:
    """Prints what `Plan.summary` says."""
    console.print(_expressions(summary))
    part = "" if summary["counted"] == summary["rows"] else f" in the first {summary['counted']:,} rows"
    attributes = summary["attributes"].items()
    lines = [f"{name}: " + ", ".join(f"{value} {n:,}" for value, n in values.items()) for name, values in attributes]
    _print_part(f"Rows per value{part}", lines, console)
    if faces := summary.get("faces"):
        persons = "of real persons: the result does not preserve their privacy" if faces["of_real_persons"] else ""
        lines = [
            f"{faces['faces']:,} of {faces['identities']:,} identities {persons}".strip(),
            usage_text(faces["uses"]),
        ]
        _print_part("Faces", lines, console)
    for title in ("codes", "operations"):
        lines = [f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}"
                 for name, value in summary.get(title, {}).items()]  # fmt: skip
        _print_part(title.capitalize(), lines, console)
    _print_part("First prompts", summary.get("prompts", []), console)
    console.print()


def usage_text(uses: Mapping[str, Any]) -> str:
    """How often each face of each class is used, in words."""
    return "; ".join(f"{name}: {use['faces']:,} faces, each used {_span(use['each'])}" for name, use in uses.items())


def _span(times: list[int]) -> str:
    least, most = times
    return (f"{least:,}" if least == most else f"{least:,} to {most:,}") + (" time" if most == 1 else " times")


def _expressions(summary: Mapping[str, Any]) -> Table:
    """Rows of each expression and, where the plan lays them out, its cells."""
    cells = any("cells" in row for row in summary["expressions"].values())
    table = Table("expression", box=None, header_style="bold", padding=(0, 3, 0, 0))
    for title in ("rows", "cells", "rows per cell") if cells else ("rows",):
        table.add_column(title, justify="right")
    for name, row in summary["expressions"].items():
        laid_out = []
        if cells:
            least, most = row["rows_per_cell"]
            laid_out = [f"{row['cells']:,}", f"{least:,}" if least == most else f"{least:,} to {most:,}"]
        table.add_row(name, f"{row['rows']:,}", *laid_out)
    table.add_row("all", f"{summary['rows']:,}", style="bold")
    return table


def _print_part(title: str, lines: list[str], console: Console) -> None:
    if lines:
        console.print(Text(f"\n{title}", style="bold"))
    for line in lines:
        console.print(Text(line), soft_wrap=True)
