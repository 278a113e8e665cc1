"""A shard: the Parquet bytes of one committed unit, what its footer records, and the receipt of its commit.

Image bytes are neither compressed (image files do not shrink further) nor given a dictionary or statistics; row groups
of about 32 MB let a scan of the other columns skip the images in few reads, and every page has a checksum. The same
table gives the same bytes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthfer.expressions import EXPRESSIONS
from synthfer.sample import DECISIONS, SCHEMA, SPLITS
from synthfer.store.objects import ObjectStore, Stat
from synthfer.store.spec import Spec

Counts = dict[str, dict[str, int]]
"""expression (or "none" for no label) -> decision -> number of rows"""

ROW_GROUP_BYTES = 32_000_000
_TAIL_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 23
_MAGIC = b"PAR1"
_DICTIONARY_COLUMNS = (
    "label",
    "split",
    "source",
    "derived_from_real_identity",
    "operation",
    "producer",
    "decision",
    "reason",
    "width",
    "height",
)
_STATISTICS_COLUMNS = (
    "sample_id", *_DICTIONARY_COLUMNS,
    "source_id", "parent_id", "partner_id", "partner_source_id", "seed", "pixels_hash",
)  # fmt: skip


class DamagedShard(ValueError):
    """A shard is truncated, changed or not what its key says; the message names it."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What a shard records about itself, so that sealing and resuming need to read only its tail."""

    unit: int
    spec: str
    rows: int
    rows_hash: str
    counts: Counts
    notes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a committed shard holds. `created`: by this very call, else it existed already; `bytes`: its size."""

    unit: int
    created: bool
    rows: int
    bytes: int
    sha256: str
    rows_hash: str
    counts: Counts


def rows_hash(table: pa.Table) -> str:
    """The sum, modulo 2**256, of the rows' sha256 over sample_id, decision and pixels_hash; 64 hex digits.

    A sum does not depend on how rows are cut into shards (AdHash of Bellare and Micciancio, 1997); ids are unique,
    so it identifies the set of rows. It tells datasets apart; tampering with a shard shows in the shard's own sha256.
    """
    columns = (table.column(name).to_pylist() for name in ("sample_id", "decision", "pixels_hash"))
    rows = (f"{i}\t{d}\t{p or ''}" for i, d, p in zip(*columns, strict=True))
    return add_hashes(hashlib.sha256(row.encode()).hexdigest() for row in rows)


def add_hashes(hashes: Iterable[str]) -> str:
    """The sum of hex numbers modulo 2**256, as 64 hex digits."""
    return f"{sum(int(part, 16) for part in hashes) % 2**256:064x}"


def counts_of(table: pa.Table) -> Counts:
    """Rows per expression and decision, both in alphabetical order."""
    names = ("none" if i is None else EXPRESSIONS[i] for i in table.column("label").to_pylist())
    pairs = Counter(zip(names, table.column("decision").to_pylist(), strict=True))
    return add_counts({name: {decision: n}} for (name, decision), n in pairs.items())


def add_counts(parts: Iterable[Counts]) -> Counts:
    """The sum of several counts, sorted by expression and decision."""
    total: Counter[tuple[str, str]] = Counter()
    for part in parts:
        total.update({(name, decision): n for name, row in part.items() for decision, n in row.items()})
    names = sorted({name for name, _ in total})
    return {name: {d: n for (of, d), n in sorted(total.items()) if of == name} for name in names}


def check_table(table: pa.Table, rows: int) -> None:
    """`ValueError` unless the table is sound: schema, number of rows, ids, labels, decisions and images."""
    if not table.schema.equals(SCHEMA):
        ours, theirs = (set(zip(schema.names, schema.types, strict=True)) for schema in (SCHEMA, table.schema))
        odd = sorted({name for name, _ in ours ^ theirs}) or "their order"
        raise ValueError(f"the table does not have synthfer.sample.SCHEMA; what differs: {odd}")
    if table.num_rows != rows:
        raise ValueError(f"{table.num_rows} rows, while the unit has {rows}")
    ids = table["sample_id"]
    if ids.null_count or pc.count_distinct(ids).as_py() != rows:
        raise ValueError("sample ids are missing or appear twice")
    has_image = pc.is_valid(pc.struct_field(table["image"], "bytes"))
    failed = pc.equal(table["decision"], "failed")
    for problem, bad in {
        f"a label is not null or 0..{len(EXPRESSIONS) - 1}": _outside(table["label"], [None, *range(len(EXPRESSIONS))]),
        f"a decision is not one of {', '.join(DECISIONS)}": _outside(table["decision"], DECISIONS),
        f"a split is not one of {', '.join(SPLITS)}": _outside(table["split"], SPLITS),
        "a failed row has an image, or another has none": pc.equal(has_image, failed),
        "an image has no pixels_hash": pc.and_(has_image, pc.is_null(table["pixels_hash"])),
    }.items():
        if pc.any(bad).as_py():
            raise ValueError(f"{problem}, first in row {pc.index(bad, True).as_py()} of the unit")


def _outside(column: pa.ChunkedArray, allowed: Iterable[Any]) -> pa.ChunkedArray:
    return pc.invert(pc.is_in(column, value_set=pa.array(allowed, column.type)))


def encode(table: pa.Table, unit: int, spec: str, notes: dict[str, Any]) -> tuple[pa.Buffer, Footer]:
    """The Parquet bytes of a unit's table (schema of `synthfer.sample`), and the footer within them.

    `spec` is the sha256 of the dataset's spec, `notes` any JSON.
    """
    footer = Footer(unit, spec, table.num_rows, rows_hash(table), counts_of(table), notes)
    group_rows = max(1, ROW_GROUP_BYTES * max(1, table.num_rows) // max(1, table.nbytes))
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        SCHEMA,
        use_dictionary=[*_DICTIONARY_COLUMNS, *_leaves("attributes")],
        compression={
            path: "NONE" if path == "image.bytes" else "ZSTD" for name in SCHEMA.names for path in _leaves(name)
        },
        write_statistics=list(_STATISTICS_COLUMNS),
        write_page_index=True,
        write_page_checksum=True,
        data_page_size=1 << 20,
    ) as writer:
        writer.write_table(table, row_group_size=group_rows)
        fields = ((name, getattr(footer, name)) for name in Footer.__slots__)
        writer.add_key_value_metadata({f"synthfer.{name}": _text(value) for name, value in fields})
    return sink.getvalue(), footer


def _leaves(column: str) -> list[str]:
    """The Parquet paths of a column's leaves."""

    def below(dtype: pa.DataType, path: str) -> list[str]:
        if pa.types.is_struct(dtype):
            return [leaf for child in dtype for leaf in below(child.type, f"{path}.{child.name}")]
        return below(dtype.value_type, f"{path}.list.element") if pa.types.is_list(dtype) else [path]

    return below(SCHEMA.field(column).type, column)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def read_footer(store: ObjectStore, key: str) -> Footer:
    """A shard's footer, read from its tail alone; `FileNotFoundError` or `DamagedShard`."""
    tail = store.get(key, -_TAIL_BYTES)
    if tail[-4:] != _MAGIC:
        raise DamagedShard(f"{store.uri}/{key} is not a complete Parquet file: it was truncated or overwritten.")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > len(tail):
        tail = store.get(key, -length)
    try:
        return footer_of(pq.read_metadata(pa.BufferReader(tail)))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DamagedShard(f"{store.uri}/{key} has no readable synthfer footer: {error}") from error


def footer_of(metadata: pq.FileMetaData) -> Footer:
    """The footer in Parquet metadata; `KeyError` or `ValueError` if the file is not a shard."""
    stored = metadata.metadata or {}
    text = {name: stored[f"synthfer.{name}".encode()].decode() for name in Footer.__slots__}
    fields = {name: value if name in ("spec", "rows_hash") else json.loads(value) for name, value in text.items()}
    if fields["rows"] != metadata.num_rows:
        raise ValueError(f"it has {metadata.num_rows} rows, but its footer says {fields['rows']}")
    return Footer(**fields)


def check_footer(footer: Footer, store: ObjectStore, spec: Spec, unit: int) -> None:
    """`DamagedShard` unless the footer is of this unit of this spec."""
    expected = {"unit": unit, "spec": spec.sha256, "rows": len(spec.unit_rows(unit))}
    for name, value in expected.items():
        if getattr(footer, name) != value:
            raise DamagedShard(
                f"{store.uri}/{spec.key(unit)} is not this dataset's: {name} {getattr(footer, name)}, expected {value}."
            )


def read_receipt(store: ObjectStore, spec: Spec, unit: int) -> Receipt | None:
    """The receipt of a stored shard, from its footer; None if the unit is not committed."""
    key = spec.key(unit)
    stat = store.stat(key)
    if stat is None:
        return None
    footer = read_footer(store, key)
    check_footer(footer, store, spec, unit)
    digest = _content_sha256(store, key, stat)
    return Receipt(unit, False, footer.rows, stat.size, digest, footer.rows_hash, footer.counts)


def _content_sha256(store: ObjectStore, key: str, stat: Stat) -> str:
    """The sha256 that the store keeps, else of the bytes themselves."""
    if stat.sha256:
        return stat.sha256
    digest = hashlib.sha256()
    with store.open(key, stat.size) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
