"""A shard: the Parquet bytes of one committed unit, what its footer records, and the receipt of its commit.

Image bytes are neither compressed (image files do not shrink further) nor given a dictionary or statistics; row groups
of about 32 MB let a scan of the other columns skip the images in few reads, and every page has a checksum. The same
table gives the same bytes.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthfer.canonical import canonical_json
from synthfer.documents import check_plain, parse, read_json
from synthfer.expressions import EXPRESSIONS
from synthfer.sample import DECISIONS, SCHEMA, SPLITS
from synthfer.schema import REQUIRED, option
from synthfer.store.objects import ObjectStore, Stat
from synthfer.store.parquet import ERRORS, MAX_FOOTER_BYTES, Limits, one_line, open_table, thrift_limits
from synthfer.store.spec import FORMATS, MAX_UNIT_ROWS, Spec

Counts = dict[str, dict[str, int]]
"""expression (or "none" for no label) -> decision -> number of rows"""

ROW_GROUP_BYTES = 32_000_000
MAX_SHARD_BYTES = 2**31
"""A unit's pictures; more do not fit into one array of Arrow, nor into a worker beside those it is making."""
MAX_METADATA_BYTES = 2**29
"""All columns but the images, in memory: half a kilobyte for each of a million rows."""
SHARD_LIMITS = Limits(MAX_UNIT_ROWS, MAX_METADATA_BYTES, apart={"image": MAX_SHARD_BYTES})
HASHED = ("sample_id", "decision", "pixels_hash")
HASHED_CONTENT = (*HASHED, "label", "label_probs", "split", "source", "source_id", "parent_id", "partner_id",
                  "partner_source_id", "derived_from_real_identity")  # fmt: skip
_HEX64 = re.compile(r"[0-9a-f]{64}")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """What a shard records about itself, so that sealing and resuming need to read only its tail.

    `format` is that of the dataset (`spec.FORMATS`), which says what `rows_hash` covers.
    """

    unit: int = option(REQUIRED, "", low=0)
    spec: str
    rows: int = option(REQUIRED, "", low=0, high=MAX_UNIT_ROWS)
    rows_hash: str
    counts: Counts = option(REQUIRED, "", low=0)
    notes: dict[str, Any] = field(default_factory=dict)
    format: str = option(FORMATS[0], "", choices=FORMATS)

    def __post_init__(self) -> None:
        check_hash("rows_hash", self.rows_hash)
        check_counts(self.counts, self.rows)


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


def check_hash(name: str, value: str) -> None:
    """`ValueError` unless a sha256 or a sum of such is 64 hex digits."""
    if not _HEX64.fullmatch(value):
        raise ValueError(f"{name}: expected 64 hex digits, got {value[:80]!r}")


def check_counts(counts: Counts, rows: int) -> None:
    """`ValueError` unless these are counts of so many rows by expression and decision."""
    known = counts.keys() <= {*EXPRESSIONS, "none"} and all(row.keys() <= set(DECISIONS) for row in counts.values())
    if not known or sum(n for row in counts.values() for n in row.values()) != rows:
        raise ValueError(f"counts: expected those of {rows:,} rows by expression and decision")


def hash_covers(form: str) -> str:
    """What the rows' hash, and so the manifest_hash, covers in a dataset of this format, in words."""
    if form == FORMATS[0]:
        return "ids, decisions and pixels; not labels, splits and lineage (an earlier format)"
    return "ids, decisions, pixels, labels, splits and lineage"


def rows_hash(table: pa.Table, form: str) -> str:
    """The sum, modulo 2**256, of the rows' sha256 over their content in the dataset's format; 64 hex digits.

    `synthfer/1` covers sample_id, decision and pixels_hash, `synthfer/2` also label, label_probs, split and lineage.
    A sum does not depend on how rows are cut into shards (AdHash of Bellare and Micciancio, 1997); ids are unique,
    so it identifies the set of rows. It tells datasets apart; tampering with a shard shows in the shard's own sha256.
    """
    rows = {FORMATS[0]: _rows_1, FORMATS[1]: _rows_2}[form](table)
    return add_hashes(hashlib.sha256(row).hexdigest() for row in rows)


def _rows_1(table: pa.Table) -> Iterator[bytes]:
    columns = (table.column(name).to_pylist() for name in HASHED)
    return (f"{i}\t{d}\t{p or ''}".encode() for i, d, p in zip(*columns, strict=True))


def _rows_2(table: pa.Table) -> Iterator[bytes]:
    """A JSON list a row: texts are quoted, so that no content can pass for another; float32 as exact decimals."""
    columns = (table.column(name).to_pylist() for name in HASHED_CONTENT)
    return (canonical_json(row) for row in zip(*columns, strict=True))


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
    check_values({name: table[name] for name in SCHEMA.names})
    has_image = pc.is_valid(pc.struct_field(table["image"], "bytes"))
    failed = pc.equal(table["decision"], "failed")
    for problem, bad in {
        "a failed row has an image, or another has none": pc.equal(has_image, failed),
        "an image has no pixels_hash": pc.and_(has_image, pc.is_null(table["pixels_hash"])),
    }.items():
        _refuse(problem, bad)


def check_values(columns: Mapping[str, Any]) -> None:
    """`ValueError` where a value of these columns (Arrow arrays) is none that a row may have."""
    for name, allowed in _ALLOWED.items():
        if name in columns:
            none = "null or " if None in allowed else ""
            words = "0..6" if name == "label" else f"one of {', '.join(allowed)}"
            _refuse(f"a {name} is not {none}{words}", _outside(columns[name], allowed))
    if "sample_id" in columns and columns["sample_id"].null_count:
        raise ValueError("a sample id is missing")
    for name, length in _LENGTHS.items():
        if name in columns:
            _refuse(f"{name} does not have {length} numbers", pc.not_equal(pc.list_value_length(columns[name]), length))
    for name in _NUMBERS:
        if name in columns:
            values = pc.list_flatten(columns[name])
            if values.null_count or not pc.all(pc.is_finite(values), min_count=0).as_py():
                raise ValueError(f"{name} holds a value that is no number")
    if "scores" in columns:
        pairs = pc.list_flatten(columns["scores"])
        if any(pc.struct_field(pairs, part).null_count for part in ("gate", "value")):
            raise ValueError("a score has no name or no value")


_ALLOWED: dict[str, list[Any]] = {
    "label": [None, *range(len(EXPRESSIONS))],
    "decision": list(DECISIONS),
    "split": list(SPLITS),
}
_LENGTHS = {"label_probs": len(EXPRESSIONS), "box": 4, "matrix": 6}
_NUMBERS = ("label_probs", "code", "box", "matrix")


def _refuse(problem: str, bad: Any) -> None:
    if pc.any(bad).as_py():
        raise ValueError(f"{problem}, first in row {pc.index(bad, True).as_py()} of the unit")


def _outside(column: Any, allowed: list[Any]) -> Any:
    return pc.invert(pc.is_in(column, value_set=pa.array(allowed, column.type)))


def encode(table: pa.Table, unit: int, spec: Spec, notes: dict[str, Any]) -> tuple[pa.Buffer, Footer]:
    """The Parquet bytes of a unit's table (schema of `synthfer.sample`), and the footer in them; `notes` is JSON.

    `ValueError` where the unit is larger than what readers take.
    """
    _check_size(table.num_rows, table.nbytes - table["image"].nbytes, MAX_METADATA_BYTES)
    footer = Footer(
        unit=unit,
        spec=spec.sha256,
        rows=table.num_rows,
        rows_hash=rows_hash(table, spec.format),
        counts=counts_of(table),
        notes=notes,
        format=spec.format,
    )
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
        # Footers of the first format do not name it: the bytes of such shards stay what they were.
        names = [name for name in Footer.__slots__ if name != "format" or footer.format != FORMATS[0]]
        writer.add_key_value_metadata({f"synthfer.{name}": _text(getattr(footer, name)) for name in names})
    body = sink.getvalue()
    _check_size(table.num_rows, body.size, MAX_SHARD_BYTES)
    return body, footer


def _check_size(rows: int, size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(
            f"its {rows:,} rows take {size:,} bytes, and a shard may have {limit:,}: start a new dataset with a "
            "smaller unit_size"
        )


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
    where = f"{store.uri}/{key}"
    tail = store.get(key, -_TAIL_BYTES)
    if tail[-4:] != _MAGIC:
        raise DamagedShard(f"{where} is not a complete Parquet file: it was truncated or overwritten.")
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > MAX_FOOTER_BYTES:
        raise DamagedShard(f"{where} states a footer of {length:,} bytes; at most {MAX_FOOTER_BYTES:,} are read.")
    if length > len(tail):
        tail = store.get(key, -length)
    try:
        file = pq.ParquetFile(pa.BufferReader(tail), **thrift_limits(SHARD_LIMITS))
        return footer_of(file.metadata, where)
    except ERRORS as error:
        raise DamagedShard(f"{where} has no readable synthfer footer: {one_line(error)}") from error


def open_shard(source: pa.NativeFile, where: str) -> tuple[pq.ParquetFile, Footer]:
    """A shard and its footer, with sizes checked; `DamagedShard` names the object at `where`."""
    try:
        file = open_table(source, where, SHARD_LIMITS).file
    except ValueError as error:
        raise DamagedShard(str(error)) from error
    try:
        return file, footer_of(file.metadata, where)
    except ERRORS as error:
        raise DamagedShard(f"{where} has no readable synthfer footer: {one_line(error)}") from error


def footer_of(metadata: pq.FileMetaData, where: str) -> Footer:
    """The footer in Parquet metadata; `KeyError` or `ValueError` if the file is not a shard."""
    stored = metadata.metadata or {}
    texts = {name: stored.get(f"synthfer.{name}".encode()) for name in Footer.__slots__}
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if text is not None:
            plain = name in ("spec", "rows_hash", "format")
            values[name] = text.decode() if plain else read_json(text, f"{where}, synthfer.{name}")
    check_plain(values, where)
    footer = parse(values, "its footer", Footer)
    if footer.rows != metadata.num_rows:
        raise ValueError(f"it has {metadata.num_rows} rows, but its footer says {footer.rows}")
    return footer


def check_footer(footer: Footer, store: ObjectStore, spec: Spec, unit: int) -> None:
    """`DamagedShard` unless the footer is of this unit of this spec, in the format of its dataset."""
    expected = {"unit": unit, "spec": spec.sha256, "rows": len(spec.unit_rows(unit)), "format": spec.format}
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
