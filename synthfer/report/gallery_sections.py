"""The sections of the gallery: totals, contact sheets per expression and attribute, rows left out, settings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from synthfer.expressions import EXPRESSIONS
from synthfer.report.contact_sheets import ContactSheets, Group, Thumbnail
from synthfer.report.dataset_counts import DatasetCounts, PlannedCounts, Sample, expression_of
from synthfer.report.html import render
from synthfer.sample import ATTRIBUTES, DECISIONS
from synthfer.store import Dataset

PER_EXPRESSION = 24
PER_VALUE = 8
MAX_VALUES = 24
MAX_VALUE_PICTURES = 320
MAX_REASONS = 20
MAX_SETTINGS = 200


def sheet_sizes(counts: DatasetCounts) -> dict[Group, int]:
    """How many pictures of each group the page has room for."""
    shown = [(name, value) for name in counts.values for value in _most_frequent(counts.values[name])]
    per_value = max(2, min(PER_VALUE, MAX_VALUE_PICTURES // max(1, len(shown))))
    rejected = [reason for decision, reason in _reasons_by_rows(counts) if decision == "rejected"]
    return {
        **{("expression", name): PER_EXPRESSION for name in counts.expressions()},
        **dict.fromkeys(shown, per_value),
        **{("rejected", reason): PER_VALUE for reason in rejected[:MAX_REASONS]},
    }


def _most_frequent(values: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The most frequent values, those of equal number by name."""
    return sorted(values, key=lambda value: (-sum(values[value].values()), value))[:MAX_VALUES]


def _reasons_by_rows(counts: DatasetCounts) -> list[tuple[str, str]]:
    return sorted(counts.reasons, key=lambda key: (-counts.reasons[key].rows, key))


def overview(dataset: Dataset, counts: DatasetCounts, planned: PlannedCounts) -> Markup:
    """Totals as cards, and a table of what was planned and made of each expression."""
    spec, manifest = dataset.spec, dataset.manifest
    cards = {
        "rows planned": f"{spec.rows:,}",
        **{decision: f"{counts.total(decision):,}" for decision in DECISIONS},
        "to come": f"{spec.rows - counts.rows:,}",
        "units": f"{spec.units:,}",
        "size": _size(manifest.bytes) if manifest else "",
    }
    names = [name for name in counts.expressions() if planned.rows.get(name) or counts.decisions.get(name)]
    bars = {name: _bar(counts, planned, name) for name in names}
    return render(
        "overview.html",
        cards={title: text for title, text in cards.items() if text and (text != "0" or title == "accepted")},
        head=["Expression", "", "planned", *DECISIONS, "cells", "per cell"],
        rows=[_expression_row(name, bars[name], counts, planned) for name in names],
        longest=max((sum(bar.values()) for bar in bars.values()), default=1),  # all bars share one scale
        legend=[kind for kind in (*DECISIONS, "to-come") if any(bar[kind] for bar in bars.values())],
    )


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.3g} {unit}"


def _bar(counts: DatasetCounts, planned: PlannedCounts, name: str) -> dict[str, int]:
    """Rows of an expression by decision, and those still to come."""
    rows: Mapping[str, int] = counts.decisions.get(name, {})
    to_come = max(0, planned.rows.get(name, 0) - sum(rows.values()))
    return {**{decision: rows.get(decision, 0) for decision in DECISIONS}, "to-come": to_come}


def _expression_row(name: str, bar: Mapping[str, int], counts: DatasetCounts, planned: PlannedCounts) -> dict[str, Any]:
    wanted = f"{planned.rows.get(name, 0):,}" if planned.rows else "–"
    parts = {kind: rows for kind, rows in bar.items() if rows}
    return {
        "expression": name,
        "bar": parts,
        "bar_label": ", ".join(f"{rows:,} {kind.replace('-', ' ')}" for kind, rows in parts.items()) or "nothing",
        "numbers": [wanted, *(f"{bar[decision]:,}" for decision in DECISIONS), *_cells(name, counts, planned)],
    }


def _cells(name: str, counts: DatasetCounts, planned: PlannedCounts) -> tuple[str, str]:
    """Cells with an accepted sample, of how many asked for; the least and the most samples of one."""
    cells: Mapping[tuple[str | None, ...], int] = counts.cells.get(name, {})
    if not counts.cells_complete:
        return "many", "–"
    wanted = min(planned.cells.get(name, 0), planned.rows.get(name, 0))
    low, high = min(cells.values(), default=0), max(cells.values(), default=0)
    low = 0 if len(cells) < wanted else low
    filled = f"{len(cells):,} of {wanted:,}" if wanted else f"{len(cells):,}"
    return filled, f"{low:,}" if low == high else f"{low:,}–{high:,}"


@dataclass(frozen=True, slots=True)
class Tile:
    """A sample on the page: its picture with the words for it, and the facts that it opens to."""

    thumbnail: Thumbnail | None
    expression: str
    attributes: Mapping[str, str]
    alt: str
    hover: str
    facts: Mapping[str, Any]


def _tile(sample: Sample, sheets: ContactSheets) -> Tile:
    given, expression = sample["attributes"] or {}, expression_of(sample["label"])
    attributes = {name: given[name] for name in ATTRIBUTES if given.get(name) is not None}
    alt = ", ".join([expression, *attributes.values()])
    facts = {
        "prompt": sample["prompt"],
        "reason": sample["reason"],
        "scores": ", ".join(f"{score['gate']} {score['value']:.3g}" for score in sample["scores"] or []) or None,
        "seed": sample["seed"],
        "sample": sample["sample_id"],
    }
    return Tile(
        thumbnail=sheets.thumbnails.get(sample["sample_id"]),
        expression=expression,
        attributes=attributes,
        alt=alt,
        hover="\n".join([sample["prompt"] or alt, f"seed {sample['seed']}", sample["sample_id"]]),
        facts={name: value for name, value in facts.items() if value is not None},
    )


def _tiles(samples: Iterable[Sample], sheets: ContactSheets) -> list[Tile]:
    return [_tile(sample, sheets) for sample in samples]


def expressions(counts: DatasetCounts, sheets: ContactSheets) -> Markup | None:
    """A contact sheet of each expression that has accepted samples; None where none has."""
    shown = [
        {"name": name, "samples": _tiles(samples, sheets), "accepted": counts.decisions[name]["accepted"]}
        for name in counts.expressions()
        if (samples := sheets.groups.get(("expression", name), []))
    ]
    return render("expressions.html", expressions=shown) if shown else None


def attributes(counts: DatasetCounts, planned: PlannedCounts, sheets: ContactSheets) -> Markup | None:
    """For each attribute the accepted samples of its values by expression, and pictures of each value."""
    shown = [
        _attribute(name, counts.values[name], planned.values.get(name, []), sheets)
        for name in ATTRIBUTES
        if name in counts.values
    ]
    return render("attributes.html", attributes=shown) if shown else None


def _attribute(
    name: str, values: Mapping[str, Mapping[str, int]], vocabulary: list[str], sheets: ContactSheets
) -> dict[str, Any]:
    shown = _in_order(values, vocabulary)
    names = [name for name in EXPRESSIONS if any(counts.get(name) for counts in values.values())]
    rows = [
        {
            "value": value,
            "numbers": [values.get(value, {}).get(name, 0) for name in names],
            "total": sum(values.get(value, {}).values()),
        }
        for value in shown
    ]
    return {
        "name": name,
        "shown": f"{len(shown)} of {len(values):,} values" if len(shown) < len(values) else f"{len(shown)} values",
        "expressions": names,
        "rows": rows,
        "most": max((counts.get(name, 0) for counts in values.values() for name in names), default=0) or 1,
        "strips": {
            value: _tiles(samples, sheets) for value in shown if (samples := sheets.groups.get((name, value), []))
        },
    }


def _in_order(values: Mapping[str, Mapping[str, int]], vocabulary: list[str]) -> list[str]:
    """The values to show, as the plan orders them; those of which nothing was made yet are among them."""
    top = _most_frequent(values)
    wanted = [value for value in vocabulary if value in top or value not in values]
    return [*wanted, *(value for value in top if value not in wanted)][:MAX_VALUES]


def left_out(counts: DatasetCounts, sheets: ContactSheets) -> Markup | None:
    """Why rows were not accepted, with some of them; None where all were."""
    keys = _reasons_by_rows(counts)
    if not keys:
        return None
    reasons = [
        {
            "decision": decision,
            "text": text,
            "rows": counts.reasons[decision, text].rows,
            "pictures": _tiles(sheets.groups.get(("rejected", text), []), sheets) if decision == "rejected" else [],
            "examples": _tiles(counts.reasons[decision, text].examples, sheets),
        }
        for decision, text in keys[:MAX_REASONS]
    ]
    rest = sum(counts.reasons[key].rows for key in keys[MAX_REASONS:])
    return render("left_out.html", reasons=reasons, rest=rest, other_reasons=len(keys) - MAX_REASONS)


def settings(dataset: Dataset) -> Markup:
    """The dataset's spec as tables."""
    spec = dataset.spec
    general = {"rows": spec.rows, "unit size": spec.unit_size, "spec sha256": spec.sha256}
    parts = {"Dataset": general, "Producer": spec.producer, "Image": spec.image, "Plan": spec.plan}
    return render("settings.html", articles={title: _pairs(values) for title, values in parts.items() if values})


def _pairs(values: Mapping[str, Any]) -> dict[str, Any]:
    """The first entries of a map: `single` values as text and whether it is code, and `nested` maps and lists."""
    single = [(str(key), value) for key, value in values.items() if not _nests(value)]
    nested = [(str(key), value) for key, value in values.items() if _nests(value)]
    return {
        "single": {key: _text(value) for key, value in single[:MAX_SETTINGS]},
        "nested": {key: _pairs(_as_map(value)) for key, value in nested[:MAX_SETTINGS]},
        "left_out": max(0, len(values) - MAX_SETTINGS),
    }


def _nests(value: Any) -> bool:
    long_list = isinstance(value, list) and any(isinstance(v, (dict, list)) or len(str(v)) > 40 for v in value)
    return bool(value) and (isinstance(value, Mapping) or long_list)


def _as_map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {str(number): item for number, item in enumerate(value, 1)}


def _text(value: Any) -> tuple[str, bool]:
    """A value as text, and whether it is something like a hash or a path."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–", False
    if isinstance(value, bool):
        return ("yes" if value else "no"), False
    text = "–" if value is None or value == {} else f"{value:,}" if isinstance(value, int) else str(value)
    return text, len(text) >= 32 and " " not in text
