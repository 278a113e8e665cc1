"""Verification: is every byte of a dataset what was committed, by its manifest, its plan and its images?"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from synthfer import images
from synthfer.sample import pixels_hash
from synthfer.store.manifest import MANIFEST, SUCCESS, read_manifest, read_shards
from synthfer.store.objects import PROBE_PREFIX, ObjectStore, StoreUnavailable, is_probe, read_object
from synthfer.store.parquet import ERRORS, one_line
from synthfer.store.shard import (
    MAX_SHARD_BYTES,
    DamagedShard,
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
    findings, sealed = _manifest_findings(store, spec)
    stored, strays = _listed(store, spec)
    findings += strays
    absent = np.flatnonzero(~stored)
    checks = _Checks(store, spec, sealed, pixels, expected_ids)
    ids: list[np.ndarray] = []
    units = np.union1d(np.flatnonzero(stored), absent[:_LISTED])  # a listing may be stale, so some are asked for
    results = ordered_thread_map(lambda unit: _shard_findings(checks, int(unit)), units, _THREADS)
    for done, (shard_findings, shard_ids) in enumerate(results, 1):
        findings += shard_findings
        ids.append(shard_ids)
        if progress:
            progress(done, len(units))
    if len(absent) > _LISTED:
        findings.append(Finding(DATA, f"{len(absent) - _LISTED:,} more of {spec.units:,} shards are missing"))
    all_ids = np.concatenate(ids)
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


def _manifest_findings(store: ObjectStore, spec: Spec) -> tuple[list[Finding], list[dict[str, Any]] | None]:
    """What is wrong with the seal, and the rows of the manifest if it is sound."""
    key = SUCCESS
    try:
        manifest = read_manifest(store, spec)
        if manifest is None:
            return [Finding(SUCCESS, "is missing: the dataset is not sealed")], None
        key = MANIFEST
        rows = read_shards(store, spec, manifest).to_pylist()
    except DamagedShard as error:
        return [Finding(key, str(error))], None
    if add_hashes(row["rows_hash"] for row in rows) != manifest.manifest_hash:
        return [Finding(MANIFEST, "does not give the manifest_hash in _SUCCESS")], None
    if [row["key"] for row in rows] != [spec.key(unit) for unit in range(spec.units)]:
        return [Finding(MANIFEST, "does not list the shards of the spec")], None
    return [], rows


def _shard_findings(checks: _Checks, unit: int) -> tuple[list[Finding], np.ndarray]:
    """What is wrong with one shard, and its sample ids (bytes, 32 each)."""
    key = checks.spec.key(unit)
    problems: list[str] = []
    ids = np.empty(0, "S32")
    try:
        body = read_object(checks.store, key, MAX_SHARD_BYTES)
        problems += _manifest_problems(checks, unit, body)
        ids, content_problems = _content_problems(checks, unit, body)
        problems += content_problems
    except FileNotFoundError:
        problems.append("is missing")
    except StoreUnavailable:
        raise
    except ERRORS as error:
        problems.append(one_line(error))
    return [Finding(key, problem) for problem in problems], ids


def _manifest_problems(checks: _Checks, unit: int, body: bytes) -> Iterator[str]:
    if checks.sealed is None:
        return
    row = checks.sealed[unit]
    if len(body) != row["bytes"]:
        yield f"has {len(body)} bytes, the manifest says {row['bytes']}"
    elif hashlib.sha256(body).hexdigest() != row["sha256"]:
        yield "was changed after the dataset was sealed: its sha256 differs"


def _content_problems(checks: _Checks, unit: int, body: bytes) -> tuple[np.ndarray, list[str]]:
    file, footer = open_shard(pa.BufferReader(body), f"{checks.store.uri}/{checks.spec.key(unit)}")
    check_footer(footer, checks.store, checks.spec, unit)
    table = file.read()
    table.validate(full=True)
    rows = checks.spec.unit_rows(unit)
    check_table(table, len(rows))
    problems = []
    if rows_hash(table, footer.format) != footer.rows_hash or counts_of(table) != footer.counts:
        problems.append("holds other rows than its footer says")
    if checks.sealed and footer.rows_hash != checks.sealed[unit]["rows_hash"]:
        problems.append("holds other rows than the manifest says")
    ids = table["sample_id"].to_pylist()
    if checks.expected_ids and ids != list(checks.expected_ids(rows)):
        problems.append("holds other sample ids, or another order, than the plan")
    return np.array(ids, "S32"), problems + list(_image_problems(table, checks.pixels))


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


def gc(store: ObjectStore, delete: bool, min_age_s: float) -> list[str]:
    """See `Dataset.gc`."""
    probes = sorted(key for key, _ in store.list(PROBE_PREFIX) if is_probe(key))
    if delete:
        for key in probes:
            store.delete(key)
    return [*probes, *store.leftovers(min_age_s, delete)]
