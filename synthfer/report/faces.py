"""The section of the gallery for datasets made from faces: each face beside its results, and the mean scores."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow.compute as pc
from markupsafe import Markup

from synthfer.expressions import EXPRESSIONS
from synthfer.gates.totals import SCORES, totals
from synthfer.planning import Plan, open_plan
from synthfer.report.contact_sheets import MAX_UNITS, Thumbnail, thumbnail
from synthfer.report.html import render
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
    return render(
        "faces.html",
        lead=_LEAD[str(dataset.spec.plan["kind"])],
        real=plan.faces.real,
        strips=_strips(dataset, plan),
        **_scores(dataset),
    )


def _plan(dataset: Dataset) -> Plan | None:
    try:
        return open_plan(dataset)
    except (ValueError, KeyError, FileNotFoundError):
        return None


def _scores(dataset: Dataset) -> dict[str, Any]:
    """Mean scores by expression, with a column for each score that there is; nothing where there are none."""
    batches = dataset.scan(["label", "operation", "code", "scores"], pc.field("decision") != "failed")
    means = totals(row for batch in batches for row in batch.to_pylist())
    names = [name for name in (*SCORES, "monotonicity") if any(name in of_label for of_label in means.values())]
    rows = [
        {
            "expression": EXPRESSIONS[label],
            "numbers": [
                *(f"{of_label[name]:.3g}" if name in of_label else "–" for name in names),
                f"{of_label['rows']:,.0f}",
            ],
        }
        for label, of_label in means.items()
    ]
    return {"titles": [_TITLES[name] for name in names], "scores": rows}


def _strips(dataset: Dataset, plan: Plan) -> list[list[dict[str, Any]]]:
    """Faces of the first units, each before what was made of it; those with most results come first."""
    by_face: dict[int, list[Row]] = {}
    for row in _first_rows(dataset, plan):
        if row.faces:
            by_face.setdefault(row.faces[0], []).append(row)
    chosen = sorted(by_face, key=lambda face: (-min(PER_STRIP, len(by_face[face])), face))[:STRIPS]
    rows = {face: by_face[face][:PER_STRIP] for face in chosen}
    samples = _samples(dataset, [row for of_face in rows.values() for row in of_face])
    thumbnails = _face_thumbnails(plan, chosen)
    return [
        [_cell(thumbnails[face], "the face", {}), *(_result(row, samples.get(row.sample_id, {})) for row in rows[face])]
        for face in chosen
    ]


def _first_rows(dataset: Dataset, plan: Plan) -> list[Row]:
    """Plan rows of the first committed units."""
    missing = set(dataset.missing().tolist())
    units = [unit for unit in range(dataset.spec.units) if unit not in missing][:MAX_UNITS]
    return [row for unit in units for row in plan.rows(dataset.spec.unit_rows(unit))]


def _samples(dataset: Dataset, rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Samples of some plan rows by id, each with the bytes of its image file, None for a failed one."""
    units = sorted({row.index // dataset.spec.unit_size for row in rows})
    where = pc.field("sample_id").isin(sorted(row.sample_id for row in rows))
    batches = dataset.scan(["sample_id", "decision", "reason", "scores", "image"], where, units)
    return {sample["sample_id"]: sample for batch in batches for sample in batch.to_pylist()}


def _result(row: Row, sample: Mapping[str, Any]) -> dict[str, Any]:
    """What was made of a face, named by expression, operation and code."""
    code = ", ".join(f"{value:.3g}" for value in row.code or ())
    label = "unlabelled" if row.label is None else EXPRESSIONS[row.label]
    small = thumbnail((sample["image"] or {}).get("bytes") or b"") if sample else None
    return _cell(small, f"{label} ({row.operation}{': ' if code else ''}{code})", sample)


def _cell(small: Thumbnail | None, name: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    scores = [f"{score['gate']} {score['value']:.3g}" for score in sample.get("scores") or ()]
    reason = [str(sample["reason"])] if sample.get("reason") else []
    hover = "\n".join([name, *scores, *reason])
    return {"thumbnail": small, "name": name, "hover": hover, "caption": name.partition(" (")[0]}


def _face_thumbnails(plan: Plan, faces: Iterable[int]) -> dict[int, Thumbnail | None]:
    """Thumbnails of the faces; None for all where their datasets are not where they were."""
    assert plan.faces is not None
    refs: dict[int, SampleRef] = {face: plan.faces.image_ref(face) for face in faces}
    try:
        bodies = ImageReader(plan.faces.uris).read(refs.values())
    except (ValueError, OSError, IndexError) as error:
        log.warning("the faces themselves are not shown: %s", error)
        return dict.fromkeys(refs)
    return {face: thumbnail(bodies[ref] or b"") for face, ref in refs.items()}
