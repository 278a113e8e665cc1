"""The part of the gallery for what is made from faces: each face beside its results, and what the scores add up to."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from synthfer.expressions import EXPRESSIONS
from synthfer.gates.totals import SCORES, totals
from synthfer.planning import Plan, open_plan
from synthfer.report.markup import Markup, render, table, tag
from synthfer.report.pictures import dot, picture
from synthfer.report.sheets import MAX_UNITS, Thumbnail, thumbnail
from synthfer.sample import Row
from synthfer.store import Dataset
from synthfer.store.image_reader import ImageReader, SampleRef

log = logging.getLogger(__name__)

STRIPS, PER_STRIP = 12, 7
_TITLES = {
    "identity": "same person",
    "expression": "judge agrees",
    "gain": "gain",
    "background": "background change",
    "monotonicity": "stronger shows more",
}
_LEAD = {
    "edits": "Each face, and the expressions that it was given.",
    "variations": "Each face, and variations of it.",
}


def faces(dataset: Dataset) -> Markup | None:
    """The section, or None for a dataset that is not made from faces."""
    plan = _plan(dataset)
    if plan is None or plan.faces is None:
        return None
    kind = str(dataset.spec.plan["kind"])
    strips = _strips(dataset, plan)
    private = plan.faces.real and tag(
        "p", "These are faces of real persons: the dataset does not preserve their privacy.", class_="lead"
    )
    return render(
        [
            tag("h2", "Faces"),
            tag("p", _LEAD[kind], class_="lead"),
            private or None,
            _totals(dataset),
            tag("article", tag("div", strips, class_="strips")) if strips else None,
        ]
    )


def _plan(dataset: Dataset) -> Plan | None:
    try:
        return open_plan(dataset)
    except (ValueError, KeyError, FileNotFoundError):
        return None


def _totals(dataset: Dataset) -> Markup | None:
    """A table of mean scores by expression, where there are any."""
    batches = dataset.scan(["label", "operation", "code", "scores"], pc.field("decision") != "failed")
    found = totals(row for batch in batches for row in batch.to_pylist())
    shown = [name for name in (*SCORES, "monotonicity") if any(name in told for told in found.values())]
    if not shown:
        return None
    rows = [
        [
            dot(EXPRESSIONS[label]),
            *(tag("td", f"{told[name]:.3g}" if name in told else "–", class_="n") for name in shown),
            tag("td", f"{told['rows']:,.0f}", class_="n"),
        ]
        for label, told in found.items()
    ]
    return tag("article", table(["", *(_TITLES[name] for name in shown), "pictures"], rows, "balance"))


def _strips(dataset: Dataset, plan: Plan) -> list[Markup]:
    """Faces of the first units with what was made of them, those with most results first."""
    rows = _rows(dataset, plan)
    by_face: dict[int, list[Row]] = {}
    for row in rows:
        if row.faces:
            by_face.setdefault(row.faces[0], []).append(row)
    chosen = sorted(by_face, key=lambda face: (-min(PER_STRIP, len(by_face[face])), face))[:STRIPS]
    wanted = {row.sample_id: row for face in chosen for row in by_face[face][:PER_STRIP]}
    results = _thumbnails(dataset, wanted)
    sources = _sources(plan, chosen)
    return [
        tag(
            "div",
            tag("div", _cell(sources[face], "the face", {}), [
                _cell(results.get(row.sample_id, (None, {}))[0], _named(row), results.get(row.sample_id, (None, {}))[1])
                for row in by_face[face][:PER_STRIP]
            ], class_="sheet"),
            class_="strip",
        )
        for face in chosen
    ]  # fmt: skip


def _rows(dataset: Dataset, plan: Plan) -> list[Row]:
    """Plan rows of the first committed units."""
    missing = set(dataset.missing().tolist())
    units = [unit for unit in range(dataset.spec.units) if unit not in missing][:MAX_UNITS]
    return [row for unit in units for row in plan.rows(dataset.spec.unit_rows(unit))]


def _named(row: Row) -> str:
    code = ", ".join(f"{value:.3g}" for value in row.code or ())
    label = "unlabelled" if row.label is None else EXPRESSIONS[row.label]
    return f"{label} ({row.operation}{': ' if code else ''}{code})"


def _thumbnails(dataset: Dataset, wanted: Mapping[str, Row]) -> dict[str, tuple[Thumbnail, dict[str, Any]]]:
    """Thumbnails and rows of some samples by id; failed ones have no picture."""
    size = dataset.spec.unit_size
    units = sorted({row.index // size for row in wanted.values()})
    found = {}
    where = pc.field("sample_id").isin(sorted(wanted))
    for batch in dataset.scan(["sample_id", "decision", "reason", "scores", "image"], where, units):
        for sample in batch.to_pylist():
            body = (sample.pop("image") or {}).get("bytes")
            found[sample["sample_id"]] = (thumbnail(body or b""), sample)
    return found


def _cell(small: Thumbnail | None, what: str, sample: Mapping[str, Any]) -> Markup:
    scores = [f"{score['gate']} {score['value']:.3g}" for score in sample.get("scores") or ()]
    reason = [str(sample["reason"])] if sample.get("reason") else []
    hover = "\n".join([what, *scores, *reason])
    return tag("figure", picture(small, what, hover), tag("figcaption", what.partition(" (")[0]))


def _sources(plan: Plan, chosen: Sequence[int]) -> dict[int, Thumbnail | None]:
    """Thumbnails of the faces; None for all where their datasets are not where they were."""
    assert plan.faces is not None
    places: dict[int, SampleRef] = {face: plan.faces.place(face) for face in chosen}
    try:
        bodies = ImageReader(plan.faces.uris).read(places.values())
    except (ValueError, OSError, IndexError) as error:
        log.warning("the faces themselves are not shown: %s", error)
        return dict.fromkeys(chosen)
    return {face: thumbnail(bodies[place] or b"") for face, place in places.items()}
