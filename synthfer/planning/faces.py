"""The faces that a plan edits or varies: a table read from a dataset or view, and stored in the dataset that is made.

Its hash over ids, labels, lineage and splits stands in the spec, so that a run with other faces is refused. Where their
pictures are stored is not hashed, since a copy of the dataset serves as well.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthfer.documents import read_json
from synthfer.expressions import EXPRESSIONS
from synthfer.sample import ATTRIBUTES, SCHEMA, seed_of
from synthfer.schema import ConfigError
from synthfer.store.dataset_ref import DatasetRef, open_ref
from synthfer.store.image_reader import SampleRef
from synthfer.store.objects import ObjectStore, read_object
from synthfer.store.parquet import Limits, read_table
from synthfer.store.shard import check_values
from synthfer.store.view import View

KEY = "_faces.parquet"
_URIS = b"synthfer.faces"
INHERITED = tuple(name for name in ATTRIBUTES if name not in ("cue", "intensity", "emotion"))
"""Attributes of the person and the picture, which an edit keeps; the others belong to the expression, which changes."""

_FACTS = ("sample_id", "source_id", "label", "split", "attributes", "derived_from_real_identity")
_HASHED = (*_FACTS[:4], "real")
_LOCATION = [("dataset", pa.int32()), ("unit", pa.int32()), ("place", pa.int32())]
_SCHEMA = pa.schema([*(SCHEMA.field(name) for name in _FACTS[:5]), ("real", pa.bool_()), *_LOCATION])
_BLOCK = 4096
_LIMITS = Limits(2 * 10**7, 2**31)
"""Every worker holds the table in memory; a face takes some hundred bytes there."""


@dataclass(frozen=True, eq=False)
class FaceTable:
    """The faces in reading order. `uris` are those of their datasets when the table was made.

    `rows`: sample_id, source_id, label (0..6 or null), split, attributes, real (of a real person), and the location of
    the picture: number of its dataset, unit, place in the unit. `trained_on` and `licences` come from their datasets.
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
        labels: np.ndarray = pc.fill_null(self.rows["label"], -1).to_numpy()
        return labels

    @property
    def real(self) -> bool:
        """Whether any face is a real person's."""
        return bool(pc.any(self.rows["real"]).as_py())

    def image_ref(self, number: int) -> SampleRef:
        """Where the picture of a face is stored."""
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

    def subset(self, numbers: np.ndarray) -> "FaceTable":
        """Some of the faces, in the order given."""
        return FaceTable(self.rows.take(pa.array(numbers)), self.uris, self.trained_on, self.licences)

    def identities(self) -> np.ndarray:
        """The identity, or original, of each face, int64 (n,): numbered in the order of their first face."""
        indices: np.ndarray = pc.dictionary_encode(self.rows["source_id"].combine_chunks()).indices.to_numpy()
        return indices.astype(np.int64)

    def usage(self, uses: Mapping[str, tuple[int, int, int]]) -> dict[str, Any]:
        """JSON for a dry run: how many faces and identities there are, and how often those of each class are used.

        `uses`: class name -> (faces, least and most uses of one of them).
        """
        return {
            "faces": len(self),
            "identities": int(self.identities().max(initial=-1) + 1),
            "of_real_persons": self.real,
            "uses": {name: {"faces": count, "each": [least, most]} for name, (count, least, most) in uses.items()},
        }

    def write(self, store: ObjectStore) -> None:
        """Store the table in a dataset; `ValueError` where the one that is there does not have the same faces."""
        sink = pa.BufferOutputStream()
        rows = self.rows.replace_schema_metadata({_URIS: json.dumps(self.uris)})
        pq.write_table(rows, sink, compression="zstd")
        if not store.put_new(KEY, sink.getvalue()):
            stored, names = read_faces(store, self.sha256), (*_FACTS[:5], "real")
            if not stored.rows.select(names).equals(self.rows.select(names)):
                raise ValueError(
                    f"{store.uri}/{KEY} holds other attributes than those of the faces: it was changed since"
                )


def read_faces(store: ObjectStore, sha256: str) -> FaceTable:
    """The table stored in a dataset; `ValueError` names the object where it is damaged or does not have this hash."""
    where = f"{store.uri}/{KEY}"
    try:
        body = read_object(store, KEY, _LIMITS.unpacked)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where} is missing: run the job that made the dataset again") from error
    rows = read_table(body, where, _SCHEMA, _LIMITS)
    uris = read_json((rows.schema.metadata or {}).get(_URIS, b"[]"), f"{where}, {_URIS.decode()}")
    if not isinstance(uris, list) or not all(isinstance(uri, str) for uri in uris):
        raise ValueError(f"{where} does not list the datasets of its faces as texts")
    if problem := _problem(rows, len(uris)):
        raise ValueError(f"{where} {problem}")
    table = FaceTable(rows, tuple(uris))
    if table.sha256 != sha256:
        raise ValueError(f"{where} holds other faces than those the plan was made with: it was changed since")
    return table


def _problem(rows: pa.Table, datasets: int) -> str | None:
    """What is wrong with the values of a stored table; None for a sound one."""
    if any(rows[name].null_count for name in ("sample_id", "split", "real", "dataset", "unit", "place")):
        return "has a face without id, split or place"
    try:
        check_values({name: rows[name] for name in ("label", "split")})
    except ValueError as error:
        return f"has faces that cannot be: {error}"
    numbers = [pc.min_max(rows[name]).as_py() for name in ("dataset", "unit", "place")] if len(rows) else []
    if any(span["min"] < 0 for span in numbers) or (numbers and numbers[0]["max"] >= max(1, datasets)):
        return "has a face in no dataset that it lists"
    return None


def open_faces(key: str, uri: str, splits: Sequence[str], labels: Sequence[str] = ()) -> FaceTable:
    """The accepted faces of a sealed dataset or a view that are of these splits and, where given, of these labels.

    `key` is the config's, for errors. `ConfigError`: there is no such dataset, it is not complete, or has no such face.
    """
    try:
        ref = open_ref(uri)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"{key}: {error}") from None
    rows = pa.Table.from_batches(_accepted(ref), _SCHEMA)
    wanted = pc.is_in(rows["split"], value_set=pa.array(list(splits)))
    if labels:
        wanted = pc.and_(wanted, pc.is_in(rows["label"], value_set=pa.array([*map(EXPRESSIONS.index, labels)])))
    chosen = rows.filter(pc.fill_null(wanted, False))
    if not chosen.num_rows:
        splits_there = ", ".join(sorted(pc.unique(rows["split"]).to_pylist())) or "no accepted face at all"
        of = f" labelled {' or '.join(labels)}" if labels else ""
        raise ConfigError(f"{key}: {ref.uri} has no face of split {' or '.join(splits)}{of}; it has {splits_there}")
    producers = [dataset.spec.producer for dataset in ref.datasets]
    return FaceTable(
        chosen,
        tuple(dataset.uri for dataset in ref.datasets),
        tuple(sorted({pair for producer in producers for pair in producer.get("trained_on", ())})),
        tuple(sorted({str(producer["licence"]) for producer in producers if producer.get("licence")})),
    )


def _accepted(ref: DatasetRef) -> Iterator[pa.RecordBatch]:
    """The accepted rows of all datasets, with the location of each one's picture."""
    view = View(ref.view) if ref.view else None
    columns = [*_FACTS, "decision"]
    for number, dataset in enumerate(ref.datasets):
        start, size = 0, dataset.spec.unit_size
        for batch in view.scan_dataset(dataset, columns) if view else dataset.scan(columns):
            places = np.arange(start, start + batch.num_rows)
            start += batch.num_rows
            facts = [batch[name] for name in _FACTS[:5]] + [pc.fill_null(batch["derived_from_real_identity"], False)]
            location = (np.full(len(places), number), places // size, places % size)
            rows = pa.record_batch([*facts, *(pa.array(part, pa.int32()) for part in location)], schema=_SCHEMA)
            yield rows.filter(pc.equal(batch["decision"], "accepted"))


def seeded_order(ids: Sequence[str], seed: int, purpose: str) -> np.ndarray:
    """The numbers 0..n-1, int64 (n,), sorted by a hash of seed, purpose and each one's id."""
    keys = np.array([seed_of(seed, purpose, one) for one in ids], np.int64)
    return np.argsort(keys, kind="stable")


def block_shuffle(count: int, seed: int) -> np.ndarray:
    """The numbers 0..count-1 shuffled within blocks, int64: neighbours in reading order stay near each other.

    So a unit reads few shards of the faces. The shuffling keeps the order of the faces' own labels from lining up with
    the order of the planned expressions.
    """
    order = np.arange(count)
    for block, start in enumerate(range(0, count, _BLOCK)):
        np.random.default_rng(seed_of(seed, "block", block)).shuffle(order[start : start + _BLOCK])
    return order
