"""The first part of the gallery: totals, and what was asked for and made of each expression."""

from collections.abc import Mapping

from synthfer.report.markup import Markup, render, table, tag
from synthfer.report.pictures import dot
from synthfer.report.tally import Asked, Tally
from synthfer.sample import DECISIONS
from synthfer.store import Dataset


def overview(dataset: Dataset, counts: Tally, asked: Asked) -> Markup:
    """Totals as cards, and the table of the expressions."""
    spec, manifest = dataset.spec, dataset.manifest
    figures = {
        "rows planned": f"{spec.rows:,}",
        **{decision: f"{counts.total(decision):,}" for decision in DECISIONS},
        "to come": f"{spec.rows - counts.rows:,}",
        "units": f"{spec.units:,}",
        "size": _size(manifest.bytes) if manifest else "",
    }
    cards = [
        tag("div", tag("dt", title), tag("dd", figure), class_=f"card {title.replace(' ', '-')}")
        for title, figure in figures.items()
        if figure and (figure != "0" or title == "accepted")
    ]
    return render([tag("h2", "Overview"), tag("dl", cards, class_="cards"), _balance(counts, asked)])


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.3g} {unit}"


def _balance(counts: Tally, asked: Asked) -> Markup:
    """Asked and made, one expression a row; the bars share one scale."""
    names = [name for name in counts.expressions() if asked.rows.get(name) or counts.decisions.get(name)]
    parts = {name: _parts(counts, asked, name) for name in names}
    longest = max((sum(part.values()) for part in parts.values()), default=1)
    rows = [_expression(name, parts[name], longest, counts, asked) for name in names]
    head = ["Expression", "", "asked", *DECISIONS, "cells", "per cell"]
    kinds = [kind for kind in (*DECISIONS, "to-come") if any(part[kind] for part in parts.values())]
    legend = [tag("span", tag("i", class_=kind), " ", kind.replace("-", " ")) for kind in kinds]
    return tag("article", table(head, rows, "balance"), tag("p", legend, class_="legend"))


def _parts(counts: Tally, asked: Asked, name: str) -> dict[str, int]:
    made: Mapping[str, int] = counts.decisions.get(name, {})
    to_come = max(0, asked.rows.get(name, 0) - sum(made.values()))
    return {**{decision: made.get(decision, 0) for decision in DECISIONS}, "to-come": to_come}


def _expression(name: str, parts: Mapping[str, int], longest: int, counts: Tally, asked: Asked) -> list[Markup]:
    wanted = f"{asked.rows.get(name, 0):,}" if asked.rows else "–"
    numbers = [wanted, *(f"{parts[decision]:,}" for decision in DECISIONS), *_cells(name, counts, asked)]
    bar = tag("td", _bar(parts, longest), class_="wide")
    return [dot(name), bar, *(tag("td", number, class_="n") for number in numbers)]


def _cells(name: str, counts: Tally, asked: Asked) -> tuple[str, str]:
    """Cells with an accepted sample, of how many asked for; the least and the most samples of one."""
    cells: Mapping[tuple[str | None, ...], int] = counts.cells.get(name, {})
    if not counts.cells_complete:
        return "many", "–"
    wanted = min(asked.cells.get(name, 0), asked.rows.get(name, 0))
    low, high = min(cells.values(), default=0), max(cells.values(), default=0)
    low = 0 if len(cells) < wanted else low
    found = f"{len(cells):,} of {wanted:,}" if wanted else f"{len(cells):,}"
    return found, f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _bar(parts: Mapping[str, int], longest: int) -> Markup:
    said = ", ".join(f"{number:,} {kind.replace('-', ' ')}" for kind, number in parts.items() if number)
    pieces = [
        tag("i", class_=kind, style=f"width:{100 * number / longest:.2f}%") for kind, number in parts.items() if number
    ]
    return tag("span", pieces, class_="bar", role="img", aria_label=said or "nothing")
