"""The manifest of a sealed dataset: `_manifest.parquet` describes every shard, `_SUCCESS` holds the totals."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from synthfer.store.objects import ObjectStore
from synthfer.store.shard import Counts, DamagedShard, Receipt, add_counts, add_hashes
from synthfer.store.spec import Spec

MANIFEST, SUCCESS = "_manifest.parquet", "_SUCCESS"
SHARDS = pa.schema(
    [("unit", pa.int64()), ("key", pa.string()), ("rows", pa.int64()), ("bytes", pa.int64())]
    + [(name, pa.string()) for name in ("sha256", "rows_hash", "counts")]
)
"""Columns of `_manifest.parquet`: one row per unit in order; `counts` is JSON."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The totals of a sealed dataset. `manifest_hash` is equal for equal rows, whoever made them in whatever order."""

    manifest_hash: str
    rows: int
    shards: int
    bytes: int
    counts: Counts
    spec: str
    """sha256 of the spec"""
    table: str
    """sha256 of `_manifest.parquet`"""


def encode_shards(spec: Spec, receipts: Mapping[int, Receipt]) -> pa.Buffer:
    """The bytes of `_manifest.parquet`; the same receipts give the same bytes."""
    rows = []
    for unit in range(spec.units):
        row = asdict(receipts[unit])
        del row["created"]
        rows.append({**row, "key": spec.key(unit), "counts": json.dumps(row["counts"], sort_keys=True)})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, SHARDS), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


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
    )


def read_manifest(store: ObjectStore, spec: Spec) -> Manifest | None:
    """The totals in `_SUCCESS`, None before the seal; `DamagedShard` if they are unreadable or of another spec."""
    try:
        manifest = Manifest(**json.loads(store.get(SUCCESS)))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise DamagedShard(f"{store.uri}/{SUCCESS} cannot be read: {error}") from error
    if manifest.spec != spec.sha256:
        raise DamagedShard(f"{store.uri}/{SUCCESS} belongs to another spec.")
    return manifest


def read_shards(store: ObjectStore, manifest: Manifest) -> pa.Table:
    """`_manifest.parquet` (columns `SHARDS`), checked against the hash in `_SUCCESS`."""
    try:
        body = store.get(MANIFEST)
    except FileNotFoundError as error:
        raise DamagedShard(f"{store.uri}/{MANIFEST} is missing.") from error
    if hashlib.sha256(body).hexdigest() != manifest.table:
        raise DamagedShard(f"{store.uri}/{MANIFEST} was changed after the dataset was sealed.")
    return pq.read_table(pa.BufferReader(body), schema=SHARDS)
