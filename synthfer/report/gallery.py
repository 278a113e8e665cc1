"""The gallery: one self-contained HTML page of a dataset, complete or still being made.

It shows what was asked for and made, contact sheets per expression and attribute, rejected and failed rows
with their reasons, and the settings. This module says what stands on the page; `templates/` says how it looks.
"""

from pathlib import Path
from typing import Any

from synthfer.files import check_output, write_file
from synthfer.report import gallery_sections as sections
from synthfer.report.contact_sheets import ContactSheets, contact_sheets
from synthfer.report.dataset_counts import DatasetCounts, count_rows, planned_counts
from synthfer.report.faces import faces
from synthfer.report.html import document
from synthfer.store import Dataset
from synthfer.store.shard import hash_covers


def gallery(dataset: Dataset, out: str | Path) -> Path:
    """Write the page of a dataset to `out`, at most about 5 MB; it works before the seal as well as after.

    Reads all metadata, and the pictures of at most 16 units. The same dataset gives the same page.
    """
    path = check_output(out)
    counts = count_rows(dataset)
    page = _page(dataset, counts, contact_sheets(dataset, sections.sheet_sizes(counts)))
    write_file(path, page.encode(errors="replace"))
    return path


def _page(dataset: Dataset, counts: DatasetCounts, sheets: ContactSheets) -> str:
    planned = planned_counts(dataset)
    parts = {
        "Overview": sections.overview(dataset, counts, planned),
        "Faces": faces(dataset),
        "Expressions": sections.expressions(counts, sheets),
        "Attributes": sections.attributes(counts, planned, sheets),
        "Left out": sections.left_out(counts, sheets),
        "Settings": sections.settings(dataset),
    }
    return document(
        "gallery.html",
        title=dataset.uri.rstrip("/").rpartition("/")[2] or "dataset",
        styles=["gallery.css"],
        parts=parts,
        synthetic=_all_synthetic(sheets),
        manifest=dataset.manifest,
        hash_covers=hash_covers(dataset.spec.format),
        drawn_units=sheets.units,
        units=dataset.spec.units,
        **_progress(dataset),
    )


def _progress(dataset: Dataset) -> dict[str, Any]:
    """How far the dataset is, as the style of a badge and its words."""
    if dataset.manifest:
        return {"state": "done", "progress": "Complete"}
    missing, units = len(dataset.missing()), dataset.spec.units
    if missing:
        return {"state": "open", "progress": f"In progress: {units - missing:,} of {units:,} units"}
    return {"state": "open", "progress": "All units made, not sealed yet"}


def _all_synthetic(sheets: ContactSheets) -> bool:
    """Whether every picture on the page declares that a model made it."""
    kinds = [thumb.source_type or "" for thumb in sheets.thumbnails.values() if thumb.uri]
    return bool(kinds) and all(kind.lower().endswith("trainedalgorithmicmedia") for kind in kinds)
