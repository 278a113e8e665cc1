"""The index of a collection: all its entries, counted, hashed, and stored in the dataset, one row group per unit.

It is to an imported dataset what the plan is to a generated one. The hash of its lines is part of the dataset's spec,
so that an import cannot be continued with a collection that has changed.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthfer.documents import parse, read_json
from synthfer.expressions import EXPRESSIONS
from synthfer.sample import SPLITS, imported_sample_id
from synthfer.sources.entry import Entry, ImageRef, SplitCounts
from synthfer.store.objects import ObjectStore, StoreUnavailable
from synthfer.store.parquet import ERRORS, Limits, check_columns, one_line, open_table
from synthfer.store.spec import MAX_UNITS

KEY = "_index.parquet"
MAX_BYTES = 2**32
"""The entries of tens of millions of faces; each has some hundred bytes."""
_MAX_LINE = 2**20
_SCHEMA = pa.schema([("entry", pa.string())])
_CHUNK = 8192


@dataclass
class Index:
    """The entries as canonical JSON lines; `counts` is split -> expression (or "none", "failed") -> rows."""

    lines: pa.ChunkedArray
    sha256: str
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    @classmethod
    def from_entries(cls, entries: Iterable[Entry]) -> "Index":
        """Reads all entries. One that repeats a split and key becomes a failed row that says so."""
        chunks, chunk, digest = [], list[str](), hashlib.sha256()
        counts: dict[str, Counter[str]] = {}
        for entry in _distinct(entries):
            kind = "failed" if entry.image is None else "none" if entry.label is None else EXPRESSIONS[entry.label]
            counts.setdefault(entry.split, Counter())[kind] += 1
            chunk.append(entry.to_json())
            digest.update(chunk[-1].encode() + b"\n")
            if len(chunk) == _CHUNK:
                chunks.append(pa.array(chunk))
                chunk = []
        lines = pa.chunked_array([*chunks, pa.array(chunk, pa.string())])
        return cls(lines, digest.hexdigest(), counts)

    def entries(self, rows: Iterable[int]) -> Iterator[Entry]:
        """The entries of some rows."""
        return (Entry.from_json(self.lines[row].as_py()) for row in rows)

    def write(self, store: ObjectStore, unit_size: int) -> None:
        """Stores the index in a dataset; `ValueError` where one is there already that has other entries.

        Workers read that very object, unit by unit, without hashing it again: objects of a dataset never change, and
        what was there before this run is checked here, once.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"entry": self.lines}), sink, row_group_size=unit_size, compression="zstd")
        if not store.put_new(KEY, sink.getvalue()):
            StoredIndex(store, len(self), unit_size).check(self.sha256)


class StoredIndex:
    """The index stored in a dataset of so many rows, read unit by unit; safe for threads.

    `FileNotFoundError`: there is none; `ValueError` names it where it is damaged or of another number of rows.
    """

    def __init__(self, store: ObjectStore, rows: int, unit_size: int) -> None:
        self._where = f"{store.uri}/{KEY}"
        stat = store.stat(KEY)
        if stat is None:
            raise FileNotFoundError(f"{self._where} is missing: run the import again")
        limits = Limits(rows, MAX_BYTES, groups=MAX_UNITS, footer=MAX_BYTES)
        table = open_table(store.open(KEY, stat.size), self._where, limits)
        self._file, self._units, self._lock = table.file, len(table.groups), threading.Lock()
        try:
            check_columns(self._file.schema_arrow, _SCHEMA)
        except ValueError as error:
            raise ValueError(f"{self._where} cannot be read: {error}") from error
        if table.groups != [min(unit_size, rows - start) for start in range(0, rows, unit_size)]:
            raise ValueError(f"{self._where} does not have the {rows:,} rows of the dataset, {unit_size:,} in a unit")

    def unit(self, unit: int) -> list[Entry]:
        """The entries of a unit, in order."""
        return [_entry(text, f"{self._where}, unit {unit}") for text in self._lines(unit)]

    def check(self, sha256: str) -> None:
        """`ValueError` unless the lines have this hash, that of the dataset's spec."""
        digest = hashlib.sha256()
        for unit in range(self._units):
            for line in self._lines(unit):
                digest.update(line.encode() + b"\n")
        if digest.hexdigest() != sha256:
            raise ValueError(
                f"{self._where} was changed after the import began: its entries do not have the index_sha256 of the "
                "dataset's spec. Put back the stored index, or import into a new dataset."
            )

    def _lines(self, unit: int) -> list[str]:
        try:
            with self._lock:
                column = self._file.read_row_group(unit)["entry"]
            lines: list[str] = column.to_pylist()
        except StoreUnavailable:
            raise
        except ERRORS as error:
            raise ValueError(f"{self._where}, unit {unit} cannot be read: {one_line(error)}") from error
        if column.null_count:
            raise ValueError(f"{self._where}, unit {unit} has a row without an entry")
        return lines


def _entry(text: str, where: str) -> Entry:
    """The entry of a stored line; `ValueError` says where there is none."""
    value = read_json(text, where, max_bytes=_MAX_LINE)
    if isinstance(value, dict) and "place" in value:
        value["image"] = parse(value.pop("place"), f"{where}, place", ImageRef)
    entry = parse(value, where, Entry)
    if entry.split not in SPLITS or not (entry.label is None or 0 <= entry.label < len(EXPRESSIONS)):
        raise ValueError(f"{where}: entry {entry.key[:80]!r} has label {entry.label} and split {entry.split[:80]!r}")
    if (entry.box and len(entry.box) != 4) or (entry.image and min(entry.image.start, entry.image.length) < 0):
        raise ValueError(f"{where}: entry {entry.key[:80]!r} has a box or a place that cannot be")
    return Entry.from_json(text)


def sample_id(source: str, entry: Entry) -> str:
    """The id of the sample that an entry becomes."""
    return imported_sample_id(source, entry.split, entry.key)


def collection_plan(source: str, layout: str, index: Index) -> dict[str, Any]:
    """The plan of an imported dataset, as its spec states it."""
    return {"kind": "collection", "source": source, "layout": layout, "index_sha256": index.sha256}


def is_collection(plan: Mapping[str, Any]) -> bool:
    """Whether a spec's plan is that of an imported collection."""
    return plan.get("kind") == "collection"


def differences(official: SplitCounts | None, counts: SplitCounts) -> list[str]:
    """One line per published number that differs from ours; `all` is every row of a split."""
    if not official:
        return []
    lines, pooled = [], pooled_counts(official, counts)
    for split in {**official, **pooled}:
        here, table = pooled.get(split, {}), official.get(split, {"all": 0})
        for name, published in table.items():
            count = sum(here.values()) if name == "all" else here.get(name, 0)
            if count != published:
                lines.append(f"{split} {name}: {count:,} here, {published:,} published ({count - published:+,})")
    return lines


def pooled_counts(official: SplitCounts, counts: SplitCounts) -> SplitCounts:
    """`counts` in the splits of the published ones: in one sum if those are published without splits."""
    return {"all": sum(map(Counter, counts.values()), Counter[str]())} if set(official) == {"all"} else counts


def _distinct(entries: Iterable[Entry]) -> Iterator[Entry]:
    occurrences: Counter[int] = Counter()  # by hash: the keys of millions of entries would fill the memory
    for entry in entries:
        key, key_hash = entry.key, hash((entry.split, entry.key))
        occurrences[key_hash] += 1
        if occurrences[key_hash] == 1:
            yield entry
            continue
        number = occurrences[key_hash]
        while hash((entry.split, key)) in occurrences:  # another entry may have that very key
            key, number = f"{entry.key}#{number}", number + 1
        occurrences[hash((entry.split, key))] += 1
        yield Entry(key=key, split=entry.split, reason=f"{entry.key} is listed again")
