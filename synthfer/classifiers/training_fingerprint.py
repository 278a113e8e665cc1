"""The fingerprint of a training: hashes of its rows, by which a checkpoint is never evaluated on what it has learned.

Beside a checkpoint lie the hashes of every row that it was trained on or chosen by: of the sample, of what it was made
from, of its original or identity, of its pixels. A test row that shares one of these is related to the training data,
by the same rules as the audit's check of shared lineage (G1), and by equal pixels. Hashes have 64 bits: for a million
training rows and a million unrelated test rows the chance of any accidental match is less than one in a million.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthfer.sample import LINEAGE
from synthfer.store.parquet import Limits, TableError, open_table, read_opened

SUFFIX = ".seen.parquet"
"""The file beside a checkpoint: `best.safetensors` has `best.seen.parquet`."""

LINK_COLUMNS = ("sample_id", *LINEAGE, "pixels_hash")
"""The columns by which rows are related to each other."""

_FORMAT = "synthfer-seen/1"


def digests(rows: pa.Table) -> pa.Table:
    """The `LINK_COLUMNS` of rows as digests: computed once, they can be compared with any number of fingerprints."""
    return pa.table({name: digest(rows[name]) for name in LINK_COLUMNS})


def digest(texts: pa.ChunkedArray | pa.Array) -> pa.Array | pa.ChunkedArray:
    """blake2b-64 of each text, uint64 (n,), little-endian; null stays null, and a digest stays as it is."""
    if texts.type == pa.uint64():
        return texts
    encoded = pc.dictionary_encode(texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts)
    hashes = [
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        for text in encoded.dictionary.to_pylist()
    ]
    return pa.array(hashes, pa.uint64()).take(encoded.indices)


@dataclass(frozen=True, eq=False)
class TrainingFingerprint:
    """Hashes (`digest`) of the rows of a training, each uint64 (k,), ascending, each once; nulls are left out.

    `samples` and `parents` are sample ids; `sources` are originals, identities or sample ids; `pixels` are hashes of
    decoded pictures.
    """

    samples: np.ndarray
    parents: np.ndarray
    sources: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, rows: pa.Table) -> "TrainingFingerprint":
        """The fingerprint of these rows; columns `LINK_COLUMNS`, all text."""
        hashes = {name: digest(rows[name]).drop_null().to_numpy() for name in LINK_COLUMNS}
        return cls(
            samples=np.unique(hashes["sample_id"]),
            parents=np.union1d(hashes["parent_id"], hashes["partner_id"]),
            sources=np.union1d(hashes["source_id"], hashes["partner_source_id"]),
            pixels=np.unique(hashes["pixels_hash"]),
        )

    def __or__(self, other: "TrainingFingerprint") -> "TrainingFingerprint":
        """The fingerprint of the rows of both."""
        return TrainingFingerprint(
            *(np.union1d(getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        )

    def __eq__(self, other: object) -> bool:
        """Whether both are of the same rows."""
        return isinstance(other, TrainingFingerprint) and all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)
        )

    def contains(self, ids: Sequence[str] | pa.Array) -> np.ndarray:
        """Whether each of these samples, named by ids or their digests, is one of the rows, bool (k,)."""
        return _in(ids if isinstance(ids, pa.Array) else pa.array(ids, pa.string()), self.samples)

    def related(self, rows: pa.Table) -> np.ndarray:
        """Which rows are related to the training, bool (n,); `rows` has the `LINK_COLUMNS`, as texts or `digests`."""
        related: np.ndarray = np.logical_or.reduce(list(self.related_by(rows).values()))
        return related

    def related_by(self, rows: pa.Table) -> dict[str, np.ndarray]:
        """The same by the column of `rows` that relates them, bool (n,) each.

        A row is related if it is a sample of the training, was made or descends from one, is what one was made from or
        descends from, shares a parent, an original or an identity with one, or has the same pixels.
        """
        own = {
            "sample_id": (self.samples, self.parents, self.sources),
            "parent_id": (self.samples, self.parents),
            "partner_id": (self.samples, self.parents),
            "source_id": (self.samples, self.sources),
            "partner_source_id": (self.samples, self.sources),
            "pixels_hash": (self.pixels,),
        }
        return {name: _in(rows[name], np.concatenate(hashes)) for name, hashes in own.items()}

    def to_bytes(self) -> bytes:
        """One Parquet file of one row, a list of hashes in each column; the same for the same hashes."""
        columns = {field.name: pa.array([getattr(self, field.name)], pa.list_(pa.uint64())) for field in fields(self)}
        sink = pa.BufferOutputStream()
        table = pa.table(columns).replace_schema_metadata({"format": _FORMAT})
        pq.write_table(table, sink, compression="none", use_dictionary=False, write_page_checksum=True)
        return sink.getvalue().to_pybytes()

    @classmethod
    def from_bytes(cls, body: bytes) -> "TrainingFingerprint":
        """The inverse of `to_bytes`; `ValueError` for anything else, and for a damaged file."""
        where = f"its *{SUFFIX}"
        limits = Limits(rows=1, groups=1, unpacked=2 * len(body))  # plain hashes: packed ones could be of any number
        try:
            opened = open_table(pa.BufferReader(body), where, limits)
            written = (opened.file.metadata.metadata or {}).get(b"format", b"nothing").decode(errors="replace")
            if written != _FORMAT:
                raise ValueError(f"{where} has format {written[:80]!r}; the fingerprint of a training has {_FORMAT!r}")
            table = read_opened(opened, where, _SCHEMA)
        except TableError as error:
            raise ValueError(f"{where} is damaged, or not the fingerprint of a training: {error}") from error
        lists = [table[field.name].combine_chunks() for field in fields(cls)]
        if len(table) != 1 or any(part.null_count or part.flatten().null_count for part in lists):
            raise ValueError(f"{where} has {len(table)} rows, or nulls; a fingerprint has one row of hashes")
        return cls(*(part.flatten().to_numpy() for part in lists))


_SCHEMA = pa.schema([(field.name, pa.list_(pa.uint64())) for field in fields(TrainingFingerprint)])


def _in(texts: pa.ChunkedArray | pa.Array, hashes: np.ndarray) -> np.ndarray:
    """Which of the texts, or digests, are among the hashes, bool (n,)."""
    known: np.ndarray = pc.is_in(digest(texts), value_set=pa.array(hashes, pa.uint64()), skip_nulls=True).to_numpy(
        zero_copy_only=False
    )
    return known
