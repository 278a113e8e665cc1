"""The faces that a plan edits or varies: one table of them, read from a dataset or view, kept beside what is made.

It is to such a plan what the vocabulary is to a plan of prompts. Its hash over ids, labels, lineage and splits stands
in the spec, so that other faces are refused and not mixed in; where their pictures stand is not hashed, since a copy of
the dataset serves as well.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthfer.config import ConfigError
from synthfer.expressions import EXPRESSIONS
from synthfer.sample import ATTRIBUTES, SCHEMA, seed_of
from synthfer.store.dataset_ref import DatasetRef, open_ref
from synthfer.store.image_reader import SampleRef
from synthfer.store.objects import ObjectStore
from synthfer.store.view import View

KEY = "_faces.parquet"
_URIS = b"synthfer.faces"
INHERITED = tuple(name for name in ATTRIBUTES if name not in ("cue", "intensity", "emotion"))
"""Attributes of the person and the picture; the others are of the expression, which is made anew."""

_FACTS = ("sample_id", "source_id", "label", "split", "attributes", "derived_from_real_identity")
_HASHED = (*_FACTS[:4], "real")
_PLACES = [("dataset", pa.int32()), ("unit", pa.int32()), ("place", pa.int32())]
_SCHEMA = pa.schema([*(SCHEMA.field(name) for name in _FACTS[:5]), ("real", pa.bool_()), *_PLACES])
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class FaceTable:
    """The faces in reading order. `uris` are those of their datasets when the table was made.

    `rows`: sample_id, source_id, label (0..6 or null), split, attributes, real (a real person's), and where the picture
    stands (dataset, unit, place). `trained_on` and `licences` are what their datasets say.
    """

    rows: pa.Table
    uris: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()
    licences: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    @cached_property
    def sha256(self) -> str:
        """Hex sha256 over what is hashed of all faces, in order."""
        digest = hashlib.sha256()
        columns = (self.rows[name].to_pylist() for name in _HASHED)
        for values in zip(*columns, strict=True):
            digest.update(repr(values).encode() + b"\n")
        return digest.hexdigest()

    @cached_property
    def labels(self) -> np.ndarray:
        """Expression of each face, int64 (n,), -1 for none."""
        found: np.ndarray = pc.fill_null(self.rows["label"], -1).to_numpy()
        return found

    @property
    def real(self) -> bool:
        """Whether any face is a real person's."""
        return bool(pc.any(self.rows["real"]).as_py())

    def place(self, number: int) -> SampleRef:
        """Where the picture of a face stands."""
        one = {name: self.rows[name][number].as_py() for name in ("dataset", "unit", "place", "sample_id")}
        return SampleRef(one["dataset"], one["unit"], one["place"], one["sample_id"])

    def lineage(self, number: int) -> dict[str, Any]:
        """What a row made from a face inherits: parent_id, source_id, split, attributes, real."""
        attributes = self.rows["attributes"][number].as_py() or {}
        return {
            "parent_id": self.rows["sample_id"][number].as_py(),
            "source_id": self.rows["source_id"][number].as_py(),
            "split": self.rows["split"][number].as_py(),
            "real": self.rows["real"][number].as_py(),
            "attributes": {name: attributes[name] for name in INHERITED if attributes.get(name) is not None},
        }

    def taken(self, numbers: np.ndarray) -> "FaceTable":
        """Some of the faces, in the order given."""
        return FaceTable(self.rows.take(pa.array(numbers)), self.uris, self.trained_on, self.licences)

    def identities(self) -> np.ndarray:
        """Which identity or original each face is of, int64 (n,): numbers in the order in which they first stand."""
        found: np.ndarray = pc.dictionary_encode(self.rows["source_id"].combine_chunks()).indices.to_numpy()
        return found.astype(np.int64)

    def write(self, store: ObjectStore) -> None:
        """Puts the table into a dataset, if it is not there yet."""
        sink = pa.BufferOutputStream()
        told = self.rows.replace_schema_metadata({_URIS: json.dumps(self.uris)})
        pq.write_table(told, sink, compression="zstd")
        store.put_new(KEY, sink.getvalue())


def stored(store: ObjectStore, sha256: str) -> FaceTable:
    """The table in a dataset; `ValueError` where it is not the one of this hash."""
    rows = pq.read_table(pa.BufferReader(store.get(KEY)))
    table = FaceTable(rows.cast(_SCHEMA), tuple(json.loads((rows.schema.metadata or {}).get(_URIS, b"[]"))))
    if table.sha256 != sha256:
        raise ValueError(f"{store.uri}/{KEY} holds other faces than the plan was made of")
    return table


def open_faces(key: str, uri: str, splits: Sequence[str], labels: Sequence[str] = ()) -> FaceTable:
    """The accepted faces of a sealed dataset or a view that are of these splits and, where given, of these labels.

    `key` is the config's, for errors. `ConfigError`: there is no such dataset, it is not whole, or has no such face.
    """
    try:
        named = open_ref(uri)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"{key}: {error}") from None
    rows = pa.Table.from_batches(_accepted(named), _SCHEMA)
    wanted = pc.is_in(rows["split"], value_set=pa.array(list(splits)))
    if labels:
        wanted = pc.and_(wanted, pc.is_in(rows["label"], value_set=pa.array([*map(EXPRESSIONS.index, labels)])))
    found = rows.filter(pc.fill_null(wanted, False))
    if not found.num_rows:
        there = ", ".join(sorted(pc.unique(rows["split"]).to_pylist())) or "no accepted face at all"
        of = f" labelled {' or '.join(labels)}" if labels else ""
        raise ConfigError(f"{key}: {named.uri} has no face of split {' or '.join(splits)}{of}; it has {there}")
    producers = [dataset.spec.producer for dataset in named.datasets]
    return FaceTable(
        found,
        tuple(dataset.uri for dataset in named.datasets),
        tuple(sorted({pair for producer in producers for pair in producer.get("trained_on", ())})),
        tuple(sorted({str(producer["licence"]) for producer in producers if producer.get("licence")})),
    )


def _accepted(named: DatasetRef) -> Iterator[pa.RecordBatch]:
    """The accepted rows of all datasets, with their places."""
    view = View(named.view) if named.view else None
    columns = [*_FACTS, "decision"]
    for number, dataset in enumerate(named.datasets):
        start, size = 0, dataset.spec.unit_size
        for batch in view.scan_dataset(dataset, columns) if view else dataset.scan(columns):
            places = np.arange(start, start + batch.num_rows)
            start += batch.num_rows
            facts = [batch[name] for name in _FACTS[:5]] + [pc.fill_null(batch["derived_from_real_identity"], False)]
            where = (np.full(len(places), number), places // size, places % size)
            found = pa.record_batch([*facts, *(pa.array(part, pa.int32()) for part in where)], schema=_SCHEMA)
            yield found.filter(pc.equal(batch["decision"], "accepted"))


def drawn(ids: Sequence[str], seed: int, what: str) -> np.ndarray:
    """The numbers 0..n-1 in an order that the seed and the ids decide, whatever order they stand in: int64 (n,)."""
    keys = np.array([seed_of(seed, what, one) for one in ids], np.int64)
    return np.argsort(keys, kind="stable")


def shuffled_nearby(count: int, seed: int) -> np.ndarray:
    """The numbers 0..count-1 mixed within blocks, int64: neighbours in reading order stay near each other.

    So a unit reads few shards of the faces, and labels that follow reading order are not tied to those that are made.
    """
    order = np.arange(count)
    for block, start in enumerate(range(0, count, _BLOCK)):
        np.random.default_rng(seed_of(seed, "block", block)).shuffle(order[start : start + _BLOCK])
    return order
