"""What a collection holds, as a table for the terminal: found beside published, and everything worth a message."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from synthfer.expressions import EXPRESSIONS
from synthfer.sources.entry import SplitCounts
from synthfer.sources.index import pooled_counts

_COLUMNS = (*EXPRESSIONS, "none", "failed")


def print_counts(
    counts: Mapping[str, Mapping[str, int]], official: SplitCounts | None, notes: Sequence[str], console: Console
) -> None:
    """Rows per split and expression, the published numbers below where they are others, and the notes."""
    known = [*counts.values(), *(official or {}).values()]
    shown = [name for name in _COLUMNS if any(here.get(name) for here in known)]
    table = Table("split", *shown, "all", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for split, here in counts.items():
        _add(table, split, {**here, "all": sum(here.values())}, shown)
    pooled = pooled_counts(official or {}, counts)
    for split, published in (official or {}).items():
        here = {**pooled.get(split, {}), "all": sum(pooled.get(split, {}).values())}
        if any(here.get(name, 0) != number for name, number in published.items()):
            _add(table, f"{split}, published", published, shown, here)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, soft_wrap=True)


def _add(
    table: Table, title: str, row: Mapping[str, int], shown: Sequence[str], here: Mapping[str, int] | None = None
) -> None:
    """A row of the table; published numbers that are not those `here` are red."""
    cells = []
    for name in (*shown, "all"):
        differs = here is not None and name in row and here.get(name, 0) != row[name]
        cells.append(Text(f"{row.get(name, 0):,}" if here is None or name in row else "", style="red" * differs))
    table.add_row(title, *cells)
