"""The seal: once every unit is there, one table of what every shard holds, and one hash for all of it."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from synthfer.store import card
from synthfer.store.objects import Conditional, ObjectStore, Stat
from synthfer.store.shard import Counts, DamagedShard, Footer, add_counts, add_hashes, read_footer
from synthfer.store.spec import Spec

log = logging.getLogger(__name__)
S = TypeVar("S")
T = TypeVar("T")

MANIFEST, SUCCESS, README = "_manifest.parquet", "_SUCCESS", "README.md"
_THREADS = 32
_SETTLE_S = 2.0
_CHUNK = 1 << 23


class Incomplete(RuntimeError):
    """Units are missing, so the dataset cannot be sealed: run the same job again."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a committed shard holds. `created`: by this very call, else found there; `bytes`: its size."""

    unit: int
    created: bool
    rows: int
    bytes: int
    sha256: str
    rows_hash: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class Manifest:
    """The totals of a sealed dataset. `manifest_hash` is the same for the same rows, however they were made."""

    manifest_hash: str
    rows: int
    shards: int
    bytes: int
    counts: Counts
    spec: str
    """sha256 of the spec"""
    table: str
    """sha256 of `_manifest.parquet`"""


def content_sha256(store: ObjectStore, key: str, stat: Stat) -> str:
    """The sha256 that the store keeps, else of the bytes themselves."""
    if stat.sha256:
        return stat.sha256
    digest = hashlib.sha256()
    with store.open(key, stat.size) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_footer(footer: Footer, store: ObjectStore, spec: Spec, unit: int) -> None:
    """`DamagedShard` unless the footer is of this unit of this spec."""
    rows = len(spec.unit_rows(unit))
    wanted = {"unit": unit, "spec": spec.sha256, "rows": rows}
    for name, value in wanted.items():
        if getattr(footer, name) != value:
            raise DamagedShard(
                f"{store.uri}/{spec.key(unit)} is not this dataset's: {name} {getattr(footer, name)}, expected {value}."
            )


def receipt_of(store: ObjectStore, spec: Spec, unit: int) -> Receipt | None:
    """The receipt of a stored shard, from its footer; None where there is none."""
    key = spec.key(unit)
    stat = store.stat(key)
    if stat is None:
        return None
    footer = read_footer(store, key)
    check_footer(footer, store, spec, unit)
    digest = content_sha256(store, key, stat)
    return Receipt(unit, False, footer.rows, stat.size, digest, footer.rows_hash, footer.counts)


def seal(
    store: ObjectStore,
    spec: Spec,
    conditional: Conditional,
    receipts: Iterable[Receipt] = (),
    progress: Callable[[int, int], None] | None = None,
    approve: Callable[[Counts], None] | None = None,
) -> Manifest:
    """Confirm every unit, write the manifest, the card and, last, `_SUCCESS`. Two at once are safe.

    `approve(counts)` may raise to leave the dataset unsealed.
    """
    known = {receipt.unit: receipt for receipt in receipts}
    confirmed = _confirmed(store, spec, known, progress)
    if conditional != "atomic":
        confirmed = _settled(store, spec, confirmed)
    if approve:
        approve(add_counts(receipt.counts for receipt in confirmed.values()))
    body = _table_bytes(spec, confirmed)
    if not store.put_new(MANIFEST, body):
        stored = store.get(MANIFEST)
        _check_same(store, pq.read_table(pa.BufferReader(stored)), pq.read_table(pa.BufferReader(body)))
        body = stored
    manifest = _totals(spec, confirmed, body)
    store.put_new(README, card.card(spec, manifest).encode())
    store.put_new(SUCCESS, json.dumps(asdict(manifest), indent=1).encode())
    return manifest


def _confirmed(
    store: ObjectStore, spec: Spec, known: Mapping[int, Receipt], progress: Callable[[int, int], None] | None
) -> dict[int, Receipt]:
    """The receipt of every unit, each confirmed by asking for that very object: a listing may be stale."""

    def confirm(unit: int) -> Receipt | None:
        receipt = known.get(unit)
        if receipt is not None:
            stat = store.stat(spec.key(unit))
            if stat is None or (stat.size == receipt.bytes and stat.sha256 in (None, receipt.sha256)):
                return receipt if stat else None
        return receipt_of(store, spec, unit)

    found: dict[int, Receipt] = {}
    missing = []
    for unit, receipt in enumerate(ordered_thread_map(confirm, range(spec.units), _THREADS)):
        if receipt is None:
            missing.append(unit)
        else:
            found[unit] = receipt
        if progress:
            progress(unit + 1, spec.units)
    if missing:
        raise Incomplete(
            f"{len(missing)} of {spec.units} units of {store.uri} are missing (the first: "
            f"{', '.join(map(str, missing[:8]))}). Run the same job again: it makes only those."
        )
    return found


def _settled(store: ObjectStore, spec: Spec, confirmed: dict[int, Receipt]) -> dict[int, Receipt]:
    """The receipts once nothing moves: without atomic creates a racing writer may replace a shard late."""
    while True:
        time.sleep(_SETTLE_S)
        again = _confirmed(store, spec, confirmed, None)
        if again == confirmed:
            return confirmed
        log.warning("%s: shards were replaced while sealing; looking again", store.uri)
        confirmed = again


def ordered_thread_map(work: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[T]:
    """`map` with threads that stay at most `threads` items ahead of the reader."""
    pool, source = ThreadPoolExecutor(threads), iter(items)
    try:
        pending = [pool.submit(work, item) for item in islice(source, threads)]
        while pending:
            result = pending.pop(0).result()
            pending.extend(pool.submit(work, item) for item in islice(source, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _table_bytes(spec: Spec, receipts: Mapping[int, Receipt]) -> pa.Buffer:
    """The manifest's Parquet bytes: one row per unit, in order; counts as JSON."""
    rows = []
    for unit in range(spec.units):
        row = asdict(receipts[unit])
        del row["created"]
        rows.append({**row, "key": spec.key(unit), "counts": json.dumps(row["counts"], sort_keys=True)})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, SHARDS), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


SHARDS = pa.schema(
    [("unit", pa.int64()), ("key", pa.string()), ("rows", pa.int64()), ("bytes", pa.int64())]
    + [(name, pa.string()) for name in ("sha256", "rows_hash", "counts")]
)


def _check_same(store: ObjectStore, there: pa.Table, ours: pa.Table) -> None:
    if there.equals(ours):
        return
    pairs = zip(there.to_pylist(), ours.to_pylist(), strict=False)
    units = ", ".join([str(stored["unit"]) for theirs, stored in pairs if theirs != stored][:8])
    raise DamagedShard(
        f"{store.uri}/{MANIFEST} does not describe what is stored; units that differ: {units or 'all'}. A shard was "
        "changed after it was written: `verify` shows which."
    )


def _totals(spec: Spec, receipts: Mapping[int, Receipt], table: bytes | pa.Buffer) -> Manifest:
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
    """The totals in `_SUCCESS`, None before the seal; `DamagedShard` where they are of another spec."""
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
    """The manifest's table (`SHARDS`, one row per unit in order), checked against the hash in `_SUCCESS`."""
    try:
        body = store.get(MANIFEST)
    except FileNotFoundError as error:
        raise DamagedShard(f"{store.uri}/{MANIFEST} is gone.") from error
    if hashlib.sha256(body).hexdigest() != manifest.table:
        raise DamagedShard(f"{store.uri}/{MANIFEST} was changed after the seal.")
    return pq.read_table(pa.BufferReader(body), schema=SHARDS)
