"""The gallery: one self-contained HTML page of a dataset, complete or still being made.

It shows what was asked for and made, contact sheets per expression and attribute, rejected and failed rows
with their reasons, and the settings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthfer.report.faces import faces
from synthfer.report.markup import Markup, document, render, table, tag
from synthfer.report.overview import overview
from synthfer.report.pictures import attribute_sheets, expression_sheets, left_out, limits
from synthfer.report.sheets import Sheets, sheets
from synthfer.report.tally import Tally, asked_for, tally
from synthfer.store import Dataset


def gallery(dataset: Dataset, out: str | Path) -> Path:
    """Write the page of a dataset to `out`, at most about 5 MB; it works before the seal as well as after.

    Reads all metadata, and the pictures of at most 16 units. The same dataset gives the same page.
    """
    counts = tally(dataset)
    page = _page(dataset, counts, sheets(dataset, limits(counts)))
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _page(dataset: Dataset, counts: Tally, drawn: Sheets) -> str:
    name = dataset.uri.rstrip("/").rpartition("/")[2] or "dataset"
    asked = asked_for(dataset)
    parts = {
        "Overview": overview(dataset, counts, asked),
        "Faces": faces(dataset),
        "Expressions": expression_sheets(counts, drawn),
        "Attributes": attribute_sheets(counts, asked, drawn),
        "Left out": left_out(counts, drawn),
        "Settings": _settings(dataset),
    }
    return document(name, ["gallery.css"], _header(dataset, name, drawn), parts, _footer(dataset, drawn))


def _header(dataset: Dataset, name: str, drawn: Sheets) -> Markup:
    missing, units = len(dataset.missing()), dataset.spec.units
    manifest = dataset.manifest
    if manifest:
        state, text = "done", "Complete"
    elif missing:
        state, text = "open", f"In progress: {units - missing:,} of {units:,} units"
    else:
        state, text = "open", "All units made, not sealed yet"
    badges = [tag("span", text, class_=f"badge {state}")]
    if _all_synthetic(drawn):
        badges.append(tag("span", "Synthetic faces", class_="badge"))
    sealed = ["manifest ", tag("code", manifest.manifest_hash)] if manifest else None
    return tag(
        "header",
        tag("div", badges, class_="badges"),
        tag("h1", name),
        tag("p", sealed, class_="hash") if sealed else None,
    )


def _all_synthetic(drawn: Sheets) -> bool:
    kinds = [thumb.source_type or "" for thumb in drawn.thumbnails.values() if thumb.uri]
    return bool(kinds) and all(kind.lower().endswith("trainedalgorithmicmedia") for kind in kinds)


def _settings(dataset: Dataset) -> Markup:
    spec = dataset.spec
    parts = {"Producer": spec.producer, "Image": spec.image, "Plan": spec.plan}
    general = {"rows": spec.rows, "unit size": spec.unit_size, "spec sha256": spec.sha256}
    articles = [tag("article", tag("h3", title), _pairs(values)) for title, values in parts.items() if values]
    return render([tag("h2", "Settings"), tag("article", tag("h3", "Dataset"), _pairs(general)), articles])


def _pairs(values: Mapping[str, Any], most: int = 200) -> Markup:
    """A map as a table: single values first, nested maps folded."""
    items = list(values.items())
    plain = [(key, value) for key, value in items if not _nests(value)]
    nested = [(key, value) for key, value in items if _nests(value)]
    rows = [[str(key), tag("td", _value(value))] for key, value in plain[:most]]
    more = tag("p", f"… and {len(items) - most:,} more", class_="lead") if len(items) > most else None
    folded = [
        tag("details", tag("summary", str(key)), _pairs(_as_map(value)), class_="fold") for key, value in nested[:most]
    ]
    return render([table([], rows, "pairs") if rows else None, folded, more])


def _nests(value: Any) -> bool:
    long_list = isinstance(value, list) and any(isinstance(v, (dict, list)) or len(str(v)) > 40 for v in value)
    return bool(value) and (isinstance(value, Mapping) or long_list)


def _as_map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {str(place + 1): item for place, item in enumerate(value)}


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = "–" if value is None or value == {} else f"{value:,}" if isinstance(value, int) else str(value)
    return tag("code", text) if len(text) >= 32 and " " not in text else text


def _footer(dataset: Dataset, drawn: Sheets) -> Markup:
    if _all_synthetic(drawn):
        note = "The faces on this page were made by a model and say so in their metadata: no photographs."
    else:
        note = "Some files shown here do not declare how they were made; treat them as pictures of real people."
    licence = "For the licence and terms of use see the dataset card, README.md, beside the data."
    sample = f"Pictures are an even draw from {drawn.units:,} of {dataset.spec.units:,} units."
    return tag("footer", tag("p", note), tag("p", licence), tag("p", sample))
