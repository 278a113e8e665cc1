"""Contact sheets: a few samples of each group of a dataset, as thumbnails that a page can hold.

Samples are drawn from a bounded number of units, spread over the dataset, by taking the smallest sample ids
of a group: ids are hashes, so the draw is even over the plan, and the same each time.
"""

import base64
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import simplejpeg
from PIL import Image

from synthfer import images
from synthfer.expressions import EXPRESSIONS
from synthfer.report.dataset_counts import SAMPLE_COLUMNS, UNLABELLED, Sample, reason_of
from synthfer.store import Dataset

SIDE = 112
MAX_BYTES = 6_000
MAX_UNITS = 16

Group = tuple[str, str]
"""("expression", name) or (attribute, value), which hold accepted samples only, or ("rejected", reason)."""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG as a data URI (None: the file cannot be read); the source type that the file declares."""

    uri: str | None
    source_type: str | None


@dataclass(frozen=True, slots=True)
class ContactSheets:
    """Samples by group in plan order, and the thumbnails by sample id."""

    groups: dict[Group, list[Sample]]
    thumbnails: dict[str, Thumbnail]
    units: int


def contact_sheets(dataset: Dataset, limits: Mapping[Group, int], max_units: int = MAX_UNITS) -> ContactSheets:
    """Draw up to `limits[group]` samples of each group from at most `max_units` committed units."""
    committed = np.setdiff1d(np.arange(dataset.spec.units), dataset.missing())
    spread = np.linspace(0, len(committed) - 1, min(max_units, len(committed))).round().astype(int)
    units = [int(unit) for unit in committed[spread]]
    groups = _draw(_candidates(dataset, units), limits)
    wanted = {sample["sample_id"] for samples in groups.values() for sample in samples}
    return ContactSheets(groups, _thumbnails(dataset, wanted, units), len(units))


def _candidates(dataset: Dataset, units: Collection[int]) -> Iterator[pa.RecordBatch]:
    if units:
        where = pc.field("decision") != "failed"
        yield from dataset.scan(columns=list(SAMPLE_COLUMNS), where=where, units=units)


def _draw(batches: Iterator[pa.RecordBatch], limits: Mapping[Group, int]) -> dict[Group, list[Sample]]:
    """The samples of each group with the smallest ids, put into plan order; one batch is in memory at a time."""
    kept: dict[Group, list[tuple[str, int, Sample]]] = {group: [] for group in limits}
    rows_before = 0
    for batch in batches:
        ids = np.array(batch.column("sample_id").to_pylist())
        by_id, members = np.argsort(ids), _members(batch, limits)
        for group, limit in limits.items():
            for row in by_id[members[group][by_id]][:limit]:
                if len(kept[group]) == limit and ids[row] > kept[group][-1][0]:
                    break
                sample = batch.slice(int(row), 1).to_pylist()[0]
                kept[group] = sorted([*kept[group], (ids[row], rows_before + int(row), sample)], key=_id)[:limit]
        rows_before += batch.num_rows
    return {group: [sample for _, _, sample in sorted(drawn, key=_position)] for group, drawn in kept.items()}


def _id(drawn: tuple[str, int, Sample]) -> str:
    return drawn[0]


def _position(drawn: tuple[str, int, Sample]) -> int:
    return drawn[1]


def _members(batch: pa.RecordBatch, groups: Collection[Group]) -> dict[Group, np.ndarray]:
    """For each group, which rows of a batch belong to it."""
    accepted = np.array(batch.column("decision").to_pylist()) == "accepted"
    labels = [UNLABELLED if i is None else EXPRESSIONS[i] for i in batch.column("label").to_pylist()]
    texts = {"expression": np.array(labels, dtype=object)}
    texts["rejected"] = np.array([reason_of(text) for text in batch.column("reason").to_pylist()], dtype=object)
    for name in {name for name, _ in groups} - texts.keys():
        texts[name] = np.array(pc.struct_field(batch.column("attributes"), name).to_pylist(), dtype=object)
    return {
        (name, value): (~accepted if name == "rejected" else accepted) & (texts[name] == value)
        for name, value in groups
    }


def _thumbnails(dataset: Dataset, wanted: Collection[str], units: Collection[int]) -> dict[str, Thumbnail]:
    if not wanted:
        return {}
    where = pc.field("sample_id").isin(sorted(wanted))
    batches = dataset.scan(columns=["sample_id", "image"], where=where, units=units)
    return {
        sample["sample_id"]: thumbnail((sample["image"] or {}).get("bytes") or b"")
        for batch in batches
        for sample in batch.to_pylist()
    }


def thumbnail(body: bytes) -> Thumbnail:
    """An image file made small: at most `SIDE` pixels wide and high, and about `MAX_BYTES`."""
    try:
        pixels, declared = images.decode(body), images.digital_source_type(body)
    except ValueError:
        return Thumbnail(None, None)
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    small, kind = b"", (declared or "").rpartition("/")[2] or None
    for quality in (80, 60, 40, 20):
        small = _jpeg(np.asarray(picture), quality, kind)
        if len(small) <= MAX_BYTES:
            break
    return Thumbnail(f"data:image/jpeg;base64,{base64.b64encode(small).decode()}", kind)


def _jpeg(pixels: np.ndarray, quality: int, source_type: str | None) -> bytes:
    """A thumbnail declares what its original declares, and nothing where that says nothing."""
    if source_type is None:
        return simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB")
    return images.encode(pixels, images.ImageConfig(format="jpeg", quality=quality), source_type)
