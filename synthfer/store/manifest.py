"""The manifest of a sealed dataset: `_manifest.parquet` describes every shard, `_SUCCESS` holds the totals."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthfer.documents import read_json
from synthfer.schema import REQUIRED, option
from synthfer.store.objects import ObjectStore, read_object
from synthfer.store.parquet import Limits, read_table
from synthfer.store.shard import (
    MAX_SHARD_BYTES,
    Counts,
    DamagedShard,
    Receipt,
    add_counts,
    add_hashes,
    check_counts,
    check_hash,
)
from synthfer.store.spec import FORMATS, MAX_UNITS, Spec

MANIFEST, SUCCESS = "_manifest.parquet", "_SUCCESS"
SHARDS = pa.schema(
    [("unit", pa.int64()), ("key", pa.string()), ("rows", pa.int64()), ("bytes", pa.int64())]
    + [(name, pa.string()) for name in ("sha256", "rows_hash", "counts")]
)
"""Columns of `_manifest.parquet`: one row per unit in order; `counts` is JSON."""


MAX_BYTES = 2**30
"""Of `_manifest.parquet`, stored or in memory: a kilobyte for each of a million shards."""
_LIMITS = Limits(MAX_UNITS, MAX_BYTES)
_MAX_SUCCESS_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The totals of a sealed dataset. `manifest_hash` is equal for equal rows, whoever made them in whatever order.

    What it covers follows from `format`; see `shard.rows_hash`.
    """

    manifest_hash: str
    rows: int = option(REQUIRED, "", low=1)
    shards: int = option(REQUIRED, "", low=1)
    bytes: int = option(REQUIRED, "", low=1)
    counts: Counts = option(REQUIRED, "", low=0)
    spec: str
    """sha256 of the spec"""
    table: str
    """sha256 of `_manifest.parquet`"""
    format: str = option(FORMATS[0], "", choices=FORMATS)

    def __post_init__(self) -> None:
        for name in ("manifest_hash", "table"):
            check_hash(name, getattr(self, name))
        check_counts(self.counts, self.rows)

    def to_json(self) -> dict[str, Any]:
        """The content of `_SUCCESS`; that of the first format does not name it."""
        value = asdict(self)
        if self.format == FORMATS[0]:
            del value["format"]
        return value

    @property
    def accepted(self) -> int:
        """Rows that were neither rejected nor failed."""
        return sum(row.get("accepted", 0) for row in self.counts.values())


def encode_shards(spec: Spec, receipts: Mapping[int, Receipt]) -> pa.Buffer:
    """The bytes of `_manifest.parquet`; the same receipts give the same bytes."""
    rows = []
    for unit in range(spec.units):
        row = asdict(receipts[unit])
        del row["created"]
        rows.append({**row, "key": spec.key(unit), "counts": counts_text(row["counts"])})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, SHARDS), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def counts_text(counts: Counts) -> str:
    """The counts of a shard as they stand in `_manifest.parquet`."""
    return json.dumps(counts, sort_keys=True)


def totals(spec: Spec, receipts: Mapping[int, Receipt], table: bytes | pa.Buffer) -> Manifest:
    """The manifest of these shards; `table` is the content of `_manifest.parquet`."""
    ordered = [receipts[unit] for unit in range(spec.units)]
    return Manifest(
        manifest_hash=add_hashes(receipt.rows_hash for receipt in ordered),
        rows=sum(receipt.rows for receipt in ordered),
        shards=len(ordered),
        bytes=sum(receipt.bytes for receipt in ordered),
        counts=add_counts(receipt.counts for receipt in ordered),
        spec=spec.sha256,
        table=hashlib.sha256(table).hexdigest(),
        format=spec.format,
    )


def read_manifest(store: ObjectStore, spec: Spec) -> Manifest | None:
    """The totals in `_SUCCESS`, None before the seal; `DamagedShard` if they are unreadable or of another spec."""
    where = f"{store.uri}/{SUCCESS}"
    try:
        manifest = read_json(read_object(store, SUCCESS, _MAX_SUCCESS_BYTES), where, Manifest)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedShard(f"{where} cannot be read: {error}") from error
    if manifest.spec != spec.sha256:
        raise DamagedShard(f"{where} belongs to another spec.")
    if manifest.format != spec.format:
        raise DamagedShard(f"{where} is of format {manifest.format}, and the dataset of format {spec.format}.")
    if (manifest.rows, manifest.shards) != (spec.rows, spec.units):
        raise DamagedShard(
            f"{where} states {manifest.rows:,} rows in {manifest.shards:,} shards, and the spec {spec.rows:,} in "
            f"{spec.units:,}."
        )
    return manifest


def read_shards(store: ObjectStore, spec: Spec, manifest: Manifest) -> pa.Table:
    """`_manifest.parquet` (columns `SHARDS`), checked against the hash in `_SUCCESS` and the spec."""
    where = f"{store.uri}/{MANIFEST}"
    try:
        body = read_object(store, MANIFEST, MAX_BYTES)
    except FileNotFoundError as error:
        raise DamagedShard(f"{where} is missing.") from error
    except ValueError as error:
        raise DamagedShard(str(error)) from error
    if hashlib.sha256(body).hexdigest() != manifest.table:
        raise DamagedShard(f"{where} was changed after the dataset was sealed.")
    table = parse_shards(body, where, spec)
    if (stored := pc.sum(table["bytes"]).as_py()) != manifest.bytes:
        raise DamagedShard(
            f"{store.uri}/{SUCCESS} states {manifest.bytes:,} bytes in all, and the shards of {where} have {stored:,}. "
            "One of the two was edited: restore it."
        )
    return table


def parse_shards(body: bytes, where: str, spec: Spec) -> pa.Table:
    """The table of the spec's shards in the bytes of `_manifest.parquet`; `DamagedShard` says what is wrong with it."""
    try:
        table = read_table(body, where, SHARDS, _LIMITS)
    except ValueError as error:
        raise DamagedShard(str(error)) from error
    if any(column.null_count for column in table.columns):
        raise DamagedShard(f"{where} has rows without a value.")
    if table["unit"].to_pylist() != list(range(spec.units)):
        raise DamagedShard(f"{where} does not list the units of the spec.")
    rows = np.full(spec.units, spec.unit_size)
    rows[-1] = len(spec.unit_rows(spec.units - 1))
    if not np.array_equal(table["rows"].to_numpy(), rows):
        raise DamagedShard(f"{where} states other rows of a shard than the units of the spec have.")
    sizes, hashes = table["bytes"], ("sha256", "rows_hash")
    fits = pc.and_(pc.greater(sizes, 0), pc.less_equal(sizes, MAX_SHARD_BYTES))
    hexadecimal = [pc.match_substring_regex(table[name], "^[0-9a-f]{64}$") for name in hashes]
    if not all(pc.all(part).as_py() for part in (fits, *hexadecimal)):
        raise DamagedShard(f"{where} has a size or a hash that no shard has.")
    return table
