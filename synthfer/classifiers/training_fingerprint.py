"""What a checkpoint has seen, so that it can refuse to be judged on it.

Beside a checkpoint stand the hashes of everything that it was trained on or chosen by: samples, what they were made
from, their originals or identities, their pixels. A test row that shares one of these is tied to what was seen, by the
same rules as guard G1 of the audit, and by equal pixels. Hashes are of 64 bits: of a million seen and a million test
rows the chance that any two strangers meet is less than one in a million.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthfer.sample import LINEAGE

SUFFIX = ".seen.parquet"
"""The file beside a checkpoint: `best.safetensors` has `best.seen.parquet`."""

TIES = ("sample_id", *LINEAGE, "pixels_hash")
"""The columns that tie a row to others."""

_FORMAT = "synthfer-seen/1"


def digests(rows: pa.Table) -> pa.Table:
    """The columns `TIES` of rows as digests: made once, they can be held against what any number of others has seen."""
    return pa.table({name: digest(rows[name]) for name in TIES})


def digest(texts: pa.ChunkedArray | pa.Array) -> pa.Array | pa.ChunkedArray:
    """blake2b-64 of each text, uint64 (n,), little-endian; null stays null, and so does what is a digest already."""
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
    """Hashes (`digest`) of what was seen, each uint64 (k,), ascending, each once; nulls are left out.

    `samples` and `parents` are sample ids; `sources` are originals, identities or sample ids; `pixels` are hashes of
    decoded pictures.
    """

    samples: np.ndarray
    parents: np.ndarray
    sources: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, rows: pa.Table) -> "TrainingFingerprint":
        """What these rows show; columns `TIES`, all text."""
        found = {name: digest(rows[name]).drop_null().to_numpy() for name in TIES}
        return cls(
            samples=np.unique(found["sample_id"]),
            parents=np.union1d(found["parent_id"], found["partner_id"]),
            sources=np.union1d(found["source_id"], found["partner_source_id"]),
            pixels=np.unique(found["pixels_hash"]),
        )

    def __or__(self, other: "TrainingFingerprint") -> "TrainingFingerprint":
        """What either has seen."""
        return TrainingFingerprint(
            *(np.union1d(getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        )

    def __eq__(self, other: object) -> bool:
        """Whether both have seen the same."""
        return isinstance(other, TrainingFingerprint) and all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)
        )

    def holds(self, ids: Sequence[str] | pa.Array) -> np.ndarray:
        """Whether each of these samples, named by ids or their digests, was seen itself, bool (k,)."""
        return _among(ids if isinstance(ids, pa.Array) else pa.array(ids, pa.string()), self.samples)

    def touches(self, rows: pa.Table) -> np.ndarray:
        """Which rows are tied to something seen, bool (n,); `rows` has the columns `TIES`, as texts or `digests`."""
        marks: np.ndarray = np.logical_or.reduce(list(self.ties(rows).values()))
        return marks

    def ties(self, rows: pa.Table) -> dict[str, np.ndarray]:
        """The same by the column of `rows` that ties, bool (n,) each.

        Tied is a row that is a seen sample, was made or descends from one, is what one was made or descends from,
        shares a parent, an original or an identity with one, or has its pixels.
        """
        seen = {
            "sample_id": (self.samples, self.parents, self.sources),
            "parent_id": (self.samples, self.parents),
            "partner_id": (self.samples, self.parents),
            "source_id": (self.samples, self.sources),
            "partner_source_id": (self.samples, self.sources),
            "pixels_hash": (self.pixels,),
        }
        return {name: _among(rows[name], np.concatenate(theirs)) for name, theirs in seen.items()}

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
        try:
            table = pq.read_table(pa.BufferReader(body), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"this is no list of what a checkpoint has seen (*{SUFFIX}): {error}") from error
        found = (table.schema.metadata or {}).get(b"format", b"nothing").decode()
        if found != _FORMAT or table.num_rows != 1:
            raise ValueError(f"a list of what a checkpoint has seen has format {_FORMAT!r}, not {found!r}")
        return cls(*(table[field.name].combine_chunks().flatten().to_numpy() for field in fields(cls)))


def _among(texts: pa.ChunkedArray | pa.Array, seen: np.ndarray) -> np.ndarray:
    found: np.ndarray = pc.is_in(digest(texts), value_set=pa.array(seen, pa.uint64()), skip_nulls=True).to_numpy(
        zero_copy_only=False
    )
    return found
