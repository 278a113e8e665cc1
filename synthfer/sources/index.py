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

from synthfer.expressions import EXPRESSIONS
from synthfer.sample import imported_sample_id
from synthfer.sources.entry import Entry, SplitCounts
from synthfer.store.objects import ObjectStore

KEY = "_index.parquet"
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
        """Stores the index in a dataset, unless it is there already."""
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"entry": self.lines}), sink, row_group_size=unit_size, compression="zstd")
        store.put_new(KEY, sink.getvalue())


class StoredIndex:
    """The index stored in a dataset, read unit by unit; safe for threads."""

    def __init__(self, store: ObjectStore) -> None:
        stat = store.stat(KEY)
        if stat is None:
            raise FileNotFoundError(f"{store.uri}/{KEY} is missing: run the import again")
        self._file, self._lock = pq.ParquetFile(store.open(KEY, stat.size)), threading.Lock()

    def unit(self, unit: int) -> list[Entry]:
        """The entries of a unit, in order."""
        with self._lock:
            lines = self._file.read_row_group(unit)["entry"]
        return [Entry.from_json(text) for text in lines.to_pylist()]


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
