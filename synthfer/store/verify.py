"""Verification: is every byte of a dataset what was committed, by its manifest, its plan and its images?"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from synthfer import images
from synthfer.files import NotAFileError
from synthfer.sample import pixels_hash
from synthfer.store.card import README
from synthfer.store.manifest import MANIFEST, SUCCESS, Manifest, counts_text, read_manifest, read_shards
from synthfer.store.objects import ObjectStore, StoreUnavailable, read_object
from synthfer.store.parquet import ERRORS, one_line
from synthfer.store.shard import (
    MAX_SHARD_BYTES,
    Counts,
    DamagedShard,
    add_counts,
    add_hashes,
    check_footer,
    check_table,
    counts_of,
    open_shard,
    rows_hash,
)
from synthfer.store.spec import DATA, Spec
from synthfer.store.threads import ordered_thread_map

_THREADS = 2
_SAMPLED_IMAGES = 8
_LISTED = 8
"""Objects of one kind that are named one by one; the others are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and with which object."""

    key: str
    problem: str


@dataclass(frozen=True, slots=True)
class _Checks:
    """What every shard is checked against."""

    store: ObjectStore
    spec: Spec
    sealed: list[dict[str, Any]] | None
    pixels: bool
    expected_ids: Callable[[range], Sequence[str]] | None


def verify(
    store: ObjectStore,
    spec: Spec,
    progress: Callable[[int, int], None] | None,
    pixels: bool,
    expected_ids: Callable[[range], Sequence[str]] | None,
) -> list[Finding]:
    """See `Dataset.verify`."""
    findings, manifest, sealed = _manifest_findings(store, spec)
    findings += _card_findings(store)
    stored, strays = _listed(store, spec)
    findings += strays
    absent = np.flatnonzero(~stored)
    checks = _Checks(store, spec, sealed, pixels, expected_ids)
    ids: list[np.ndarray] = []
    counts: Counts = {}
    units = np.union1d(np.flatnonzero(stored), absent[:_LISTED])  # a listing may be stale, so some are asked for
    results = ordered_thread_map(lambda unit: _shard_findings(checks, int(unit)), units, _THREADS)
    for done, (shard_findings, shard_ids, shard_counts) in enumerate(results, 1):
        findings += shard_findings
        ids.append(shard_ids)
        counts = add_counts([counts, shard_counts])
        if progress:
            progress(done, len(units))
    if len(absent) > _LISTED:
        findings.append(Finding(DATA, f"{len(absent) - _LISTED:,} more of {spec.units:,} shards are missing"))
    all_ids = np.concatenate(ids)
    if manifest and len(all_ids) == manifest.rows and counts != add_counts([manifest.counts]):
        findings.append(Finding(SUCCESS, "states other counts than its shards have together"))
    duplicates = len(all_ids) - len(np.unique(all_ids))
    if duplicates:
        findings.append(Finding(DATA, f"{duplicates} sample ids are in more than one shard"))
    return findings


def _listed(store: ObjectStore, spec: Spec) -> tuple[np.ndarray, list[Finding]]:
    """Which units are stored (bool, one for each), and the objects that are no shards, from one listing."""
    stored, strays, more = np.zeros(spec.units, bool), list[Finding](), 0
    for key, _ in store.list(DATA):
        unit = spec.unit_of(key)
        if unit is not None:
            stored[unit] = True
        elif len(strays) < _LISTED:
            strays.append(Finding(key, "is not a shard of this dataset"))
        else:
            more += 1
    if more:
        strays.append(Finding(DATA, f"{more:,} more objects are not shards of this dataset"))
    return stored, strays


def _manifest_findings(
    store: ObjectStore, spec: Spec
) -> tuple[list[Finding], Manifest | None, list[dict[str, Any]] | None]:
    """What is wrong with the seal, and the totals and the rows of the manifest if it is sound."""
    key = SUCCESS
    try:
        manifest = read_manifest(store, spec)
        if manifest is None:
            return [Finding(SUCCESS, "is missing: the dataset is not sealed")], None, None
        key = MANIFEST
        rows = read_shards(store, spec, manifest).to_pylist()
    except DamagedShard as error:
        return [Finding(key, str(error))], None, None
    if add_hashes(row["rows_hash"] for row in rows) != manifest.manifest_hash:
        return [Finding(MANIFEST, "does not give the manifest_hash in _SUCCESS")], None, None
    if [row["key"] for row in rows] != [spec.key(unit) for unit in range(spec.units)]:
        return [Finding(MANIFEST, "does not list the shards of the spec")], None, None
    return [], manifest, rows


def _card_findings(store: ObjectStore) -> list[Finding]:
    try:
        store.stat(README)
    except NotAFileError as error:
        return [Finding(README, f"{error.problem}: remove it, or put the card back")]
    return []


def _shard_findings(checks: _Checks, unit: int) -> tuple[list[Finding], np.ndarray, Counts]:
    """What is wrong with one shard, its sample ids (bytes, 32 each), and its counts as far as it is sound."""
    key = checks.spec.key(unit)
    problems: list[str] = []
    ids, counts = np.empty(0, "S32"), Counts()
    try:
        body = read_object(checks.store, key, MAX_SHARD_BYTES)
        problems += _manifest_problems(checks, unit, body)
        ids, counts, content_problems = _content_problems(checks, unit, body)
        problems += content_problems
    except FileNotFoundError:
        problems.append("is missing")
    except StoreUnavailable:
        raise
    except ERRORS as error:
        problems.append(one_line(error))
    return [Finding(key, problem) for problem in problems], ids, counts


def _manifest_problems(checks: _Checks, unit: int, body: bytes) -> Iterator[str]:
    if checks.sealed is None:
        return
    row = checks.sealed[unit]
    if len(body) != row["bytes"]:
        yield f"has {len(body)} bytes, the manifest says {row['bytes']}"
    elif hashlib.sha256(body).hexdigest() != row["sha256"]:
        yield "was changed after the dataset was sealed: its sha256 differs"


def _content_problems(checks: _Checks, unit: int, body: bytes) -> tuple[np.ndarray, Counts, list[str]]:
    file, footer = open_shard(pa.BufferReader(body), f"{checks.store.uri}/{checks.spec.key(unit)}")
    check_footer(footer, checks.store, checks.spec, unit)
    table = file.read()
    table.validate(full=True)
    rows = checks.spec.unit_rows(unit)
    check_table(table, len(rows))
    problems = []
    counts = counts_of(table)
    if rows_hash(table, footer.format) != footer.rows_hash or counts != footer.counts:
        problems.append("holds other rows than its footer says")
    if checks.sealed and footer.rows_hash != checks.sealed[unit]["rows_hash"]:
        problems.append("holds other rows than the manifest says")
    if checks.sealed and counts_text(counts) != checks.sealed[unit]["counts"]:
        problems.append("has other counts than the manifest says")
    ids = table["sample_id"].to_pylist()
    if checks.expected_ids and ids != list(checks.expected_ids(rows)):
        problems.append("holds other sample ids, or another order, than the plan")
    problems += _image_problems(table, checks.pixels)
    return np.array(ids, "S32"), counts, problems


def _image_problems(table: pa.Table, every: bool) -> Iterator[str]:
    """Images that do not decode or are not those whose hash was recorded; all, or some of the shard."""
    step = 1 if every else max(1, table.num_rows // _SAMPLED_IMAGES)
    recorded = table.select(["sample_id", "image", "pixels_hash", "width", "height"])
    for row in recorded.take(np.arange(0, table.num_rows, step)).to_pylist():
        if row["image"] is None or row["image"]["bytes"] is None:
            continue
        try:
            pixels = images.decode(row["image"]["bytes"])
        except ValueError as error:
            yield f"sample {row['sample_id']}: {error}"
            continue
        if pixels_hash(pixels) != row["pixels_hash"] or pixels.shape[:2] != (row["height"], row["width"]):
            yield f"sample {row['sample_id']}: the image is not the one whose pixels_hash was recorded"
