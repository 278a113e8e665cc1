"""Tables that a training job prints: its data before it starts, its results at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from synthfer.expressions import EXPRESSIONS

_SHOWN = ("accuracy", "macro_f1", "balanced_accuracy")


def print_data(data: Mapping[str, Any], console: Console) -> None:
    """Rows of each source by role and expression; `data` as `Data.describe` returns it."""
    table = Table("data", "role", *EXPRESSIONS, "rows", box=None, header_style="bold", padding=(0, 1, 0, 0))
    for source in [*data["sources"], *filter(None, [data["validation"]])]:
        for role, counts in source["rows"].items():
            if total := sum(counts.values()):
                kind = "synthetic" if source["synthetic"] else "real"
                table.add_row(f"{source['name']} ({kind})", role, *(f"{n:,}" for n in counts.values()), f"{total:,}")
    console.print(table)


def print_results(results: Sequence[Mapping[str, Any]], console: Console) -> None:
    """The best validation of each run; `results` as in the runs' history files."""
    table = Table("run", "best step", *_SHOWN, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for result in results:
        run, best = result["run"], result["best"]
        scores = (f"{100 * best[name]:.1f} %" for name in _SHOWN)
        table.add_row(f"{run['name']}, seed {run['seed']}", f"{best['step']:,} of {run['steps']:,}", *scores)
    console.print("On validation data:")
    console.print(table)
