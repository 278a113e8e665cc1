"""Reading a dataset: record batches in plan order, each shard checked before any of its rows is returned."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from synthfer.sample import METADATA_COLUMNS, SCHEMA
from synthfer.store.objects import ObjectStore, ObjectTooLarge, StoreUnavailable, read_object
from synthfer.store.parquet import ERRORS, fragment_options, one_line
from synthfer.store.shard import MAX_SHARD_BYTES, SHARD_LIMITS, DamagedShard, check_footer, check_values, open_shard
from synthfer.store.spec import Spec
from synthfer.store.threads import ordered_thread_map
from synthfer.suggest import nearest

# How many shards are read ahead: with images each of them is held in memory whole.
_AHEAD, _AHEAD_WITH_IMAGES = 4, 2
_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class SealedShard:
    """What the manifest says about a shard."""

    bytes: int
    sha256: str
    rows_hash: str


def scan(
    store: ObjectStore,
    spec: Spec,
    shards: Iterable[tuple[int, SealedShard | None]],
    columns: Sequence[str] | None,
    where: pc.Expression | None,
) -> Iterator[pa.RecordBatch]:
    """Batches of these units; each comes with what the manifest says about it (None before the seal).

    Without the image column only the ranges of the other columns are read, and every page's checksum is
    checked; with it the shard is read whole and its sha256 checked too.
    """
    columns = list(METADATA_COLUMNS if columns is None else columns)
    _check_request(columns, where)
    images = "image" in columns

    def read(shard: tuple[int, SealedShard | None]) -> Iterable[pa.RecordBatch]:
        unit, sealed = shard
        source = _whole(store, spec.key(unit), sealed) if images else _ranges(store, spec.key(unit), sealed)
        batches = _batches(store, spec, unit, sealed, source, columns, where)
        return batches if images else list(batches)  # images are decoded from Parquet only as the reader advances

    for batches in ordered_thread_map(read, shards, _AHEAD_WITH_IMAGES if images else _AHEAD):
        yield from batches


def _check_request(columns: Sequence[str], where: pc.Expression | None) -> None:
    for name in columns:
        if name not in SCHEMA.names:
            hint = nearest(name, SCHEMA.names) or "."
            raise ValueError(f"no column {name!r}{hint} Columns: {', '.join(SCHEMA.names)}.")
    if where is not None:
        try:
            SCHEMA.empty_table().filter(where)
        except pa.ArrowException as error:
            raise ValueError(f"where={where} does not fit the columns: {error}") from error


def _whole(store: ObjectStore, key: str, sealed: SealedShard | None) -> pa.NativeFile:
    try:
        body = read_object(store, key, sealed.bytes if sealed else MAX_SHARD_BYTES)
    except FileNotFoundError as error:
        raise DamagedShard(f"{store.uri}/{key} is missing.") from error
    except ObjectTooLarge as error:
        stat = store.stat(key)
        _check_size(store, key, sealed, stat.size if stat else 0)
        raise DamagedShard(str(error)) from error
    _check_size(store, key, sealed, len(body))
    if sealed and hashlib.sha256(body).hexdigest() != sealed.sha256:
        raise DamagedShard(f"{store.uri}/{key} was changed after the dataset was sealed: its sha256 differs.")
    return pa.BufferReader(body)


def _ranges(store: ObjectStore, key: str, sealed: SealedShard | None) -> pa.NativeFile:
    stat = store.stat(key)
    if stat is None:
        raise DamagedShard(f"{store.uri}/{key} is missing.")
    _check_size(store, key, sealed, stat.size)
    if sealed and stat.sha256 not in (None, sealed.sha256):
        raise DamagedShard(f"{store.uri}/{key} was replaced after the dataset was sealed: its sha256 differs.")
    return store.open(key, stat.size)


def _check_size(store: ObjectStore, key: str, sealed: SealedShard | None, size: int) -> None:
    if sealed and size != sealed.bytes:
        raise DamagedShard(f"{store.uri}/{key} has {size} bytes, the manifest says {sealed.bytes}.")
    if size > MAX_SHARD_BYTES:
        raise DamagedShard(f"{store.uri}/{key} has {size:,} bytes; no shard has more than {MAX_SHARD_BYTES:,}.")


def _batches(
    store: ObjectStore,
    spec: Spec,
    unit: int,
    sealed: SealedShard | None,
    source: pa.NativeFile,
    columns: list[str],
    where: pc.Expression | None,
) -> Iterator[pa.RecordBatch]:
    shard = f"{store.uri}/{spec.key(unit)}"
    file, footer = open_shard(source, shard)
    check_footer(footer, store, spec, unit)
    if sealed and footer.rows_hash != sealed.rows_hash:
        raise DamagedShard(f"{shard} holds other rows than the manifest says.")
    try:
        if not file.schema_arrow.equals(SCHEMA):
            raise ValueError("it has other columns than synthfer.sample.SCHEMA")
        options, rows = fragment_options(SHARD_LIMITS), 0
        fragment = pads.ParquetFileFormat(default_fragment_scan_options=options).make_fragment(source)
        for batch in fragment.to_batches(
            columns=columns, filter=where, batch_size=_BATCH_ROWS, fragment_scan_options=options
        ):
            rows += batch.num_rows
            if batch.num_rows:
                batch.validate(full=True)
                check_values({name: batch.column(name) for name in columns})
                yield batch
        if where is None and rows != footer.rows:
            raise ValueError(f"it has {rows:,} rows, and its footer states {footer.rows:,}")
    except StoreUnavailable:
        raise
    except ERRORS as error:
        raise DamagedShard(f"{shard} cannot be read: {one_line(error)}") from error


def select_units(spec: Spec, units: Iterable[int] | None, committed: Iterable[int]) -> list[int]:
    """The units to read, in plan order: `units`, or all that are committed; `ValueError` if one of them is not."""
    available = sorted(committed)
    if units is None:
        return available
    selected = sorted(set(units))
    absent = sorted(set(selected) - set(available))
    if absent:
        raise ValueError(f"units {absent[:8]} of 0 to {spec.units - 1} are not committed")
    return selected
