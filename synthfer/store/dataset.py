"""A dataset, and the protocol by which each of its rows is written exactly once, whatever is killed and whenever.

The objects of a dataset, in the order in which they are written:

    _dataset.json                       first: format version, spec (plan, producer, image format, rows), its sha256
    _index.parquet, _faces.parquet      what the plan refers to, where it does: entries of a collection, faces to edit
    _shape.json                         the batch size, where a device was too small for the configured one
    data/train-00042-of-00250.parquet   one shard per unit, in any order: all rows of that unit
    _manifest.parquet                   when every unit is there: size, sha256, row count and counts of every shard
    README.md                           the dataset card
    _SUCCESS                            last: the totals and the manifest_hash

Three rules, from which all the rest follows:

1. There is one way to write, `ObjectStore.put_new(key, body)`: it creates a whole object if the key is free, and else
   changes nothing. In a folder it writes a hidden temporary file, flushes it to disk and hard-links it to its key. On
   S3 it is a single PUT with `If-None-Match: *`. No object of a dataset is ever renamed, appended to, overwritten or
   deleted (`gc` removes left-over temporary files and foreign objects, on request).
2. A unit is committed if, and only if, its object exists. Its key follows from its number. There is no log, lock or
   list of finished work that could disagree with the data: to resume is to list `data/` and make what is missing.
3. The rows of a unit follow from the spec: the same samples with the same ids, whoever makes them. Of two writers of
   one unit the first one's shard stays, and the second drops its own.

What a kill (kill -9, a preempted node, a power cut, a lost network) leaves, and what the same command does next time:

    the process dies ...                    the store then holds          the same command, run again
    --------------------------------------  ----------------------------  ------------------------------------------
    before _dataset.json is created         nothing (or a probe object)   starts
    after it                                the spec                      goes on; another spec: `SpecMismatch`
    while it generates or encodes a unit    the units committed so far    makes this unit again: all that was lost
    while it writes a shard                 the same; in a folder also a  makes this unit again; readers never see the
                                            hidden temporary file         temporary file, and `gc` removes it
    when the shard is stored, before the    the shard                     finds it in the listing; a writer whose
    writer or the driver hears of it                                      listing missed it gets False from `put_new`
                                                                          and reads the receipt of the stored shard
    with all units stored, before the seal  every shard                   confirms each by its key, then seals
    between _manifest.parquet and _SUCCESS  manifest, perhaps the card    builds the manifest again, compares it with
                                                                          the stored one, writes what is missing
    after _SUCCESS                          a sealed dataset              writes nothing

The same holds for two jobs that run at once, for a worker that everybody believed dead, and for a PUT that a network
delivers late: each of them finds the key free and commits a valid unit, or finds it taken and changes nothing.

- Nothing is lost: only an object that exists counts as done, none is ever deleted, and the seal asks for every unit by
  its key (not by a listing, which may be stale).
- Nothing is doubled: a sample id belongs to one unit, a unit has one key, and a key holds one object. Even a program
  that knows nothing of synthfer and reads `data/*.parquet` sees every row once, before and after the seal.
- Nothing is seen half: an object appears whole. Size, sha256 and the checksum of every page are checked on reading.
- Nothing changes afterwards: keys are written once, and the manifest's hashes show it if somebody else writes to them.
- The manifest_hash names the content: of every row its id, decision, pixels, label, soft label, split and lineage, in
  format `synthfer/2`. Datasets of `synthfer/1` are read, resumed and sealed as before, with the hash of their time,
  which covers ids, decisions and pixels alone. Contract, footers and `_SUCCESS` state the format, so that no shard of
  the one gets into a dataset of the other.
- Nothing is believed unseen: contract, footers, manifest and view are read with bounds and against schemas
  (`synthfer.documents`, `synthfer.store.parquet`), and what is no regular file, or a link to a folder, is refused.
- Costs: a kill costs at most the units in progress, two for each worker. Only `gc` compares clocks, so that clock
  skew does no harm.

Not every S3 server keeps rule 1, so `ObjectStore.probe` tries it when a dataset is created. The answer stands in
`_dataset.json`, and a weaker store is warned about; see `_WEAK_STORES` for what may then happen (never a lost or
doubled row). `tests/store/dataset/test_kill_points.py` kills a writer at every step above, in a folder and on an S3
server; `test_protocol_model.py` walks through every interleaving of two writers in a small model of the protocol.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.store.backends import open_store
from synthfer.store.contract import CONTRACT, read_contract, write_contract
from synthfer.store.manifest import Manifest, read_manifest, read_shards
from synthfer.store.objects import ObjectStore
from synthfer.store.scan import SealedShard, scan, select_units
from synthfer.store.sealing import seal
from synthfer.store.shard import Counts, DamagedShard, Receipt, check_table, encode, read_receipt
from synthfer.store.spec import DATA, Spec, SpecMismatch
from synthfer.store.verify import Finding, verify

log = logging.getLogger(__name__)

_WEAK_STORES = {
    "advisory": "it checks before it creates, so of two writers of one unit that meet within milliseconds the later "
    "may replace the earlier; sealing waits until nothing changes any more",
    "none": "it ignores the condition, so of two writers of one unit at the same time the later replaces the earlier; "
    "do not run two jobs on this dataset at once, and let all workers stop before sealing",
}


class Dataset:
    """An existing dataset at a folder or s3:// URI. Pickles without a connection; safe for threads.

    `FileNotFoundError`: there is none; `ValueError`: it is of another version, or damaged.
    """

    def __init__(self, uri: str) -> None:
        self.store: ObjectStore = open_store(uri)
        self.uri = self.store.uri
        self.spec, self.conditional_create = read_contract(self.store)
        self._manifest: Manifest | None = None
        self._shards: pa.Table | None = None

    @classmethod
    def open(cls, uri: str) -> "Dataset":
        """The same as `Dataset(uri)`."""
        return cls(uri)

    @classmethod
    def create(cls, uri: str, spec: Spec) -> "Dataset":
        """A new dataset, or the existing one if its spec is the same; else `SpecMismatch`."""
        store = open_store(uri)
        try:
            dataset = cls(uri)
        except FileNotFoundError:
            store.put_new(CONTRACT, write_contract(spec, store.probe()))
            dataset = cls(uri)
        if dataset.spec.sha256 != spec.sha256:
            raise SpecMismatch(dataset.uri, dataset.spec, spec)
        if dataset.conditional_create != "atomic":
            log.warning(
                "%s does not create objects atomically (%s): %s. No row is lost or doubled.",
                dataset.uri,
                dataset.conditional_create,
                _WEAK_STORES[dataset.conditional_create],
            )
        return dataset

    @staticmethod
    def exists(uri: str) -> bool:
        """Whether there is a dataset at the URI."""
        return open_store(uri).stat(CONTRACT) is not None

    def missing(self) -> np.ndarray:
        """Numbers of the units that are not committed (int64, ascending), from one listing."""
        absent = np.ones(self.spec.units, bool)
        for key, _ in self.store.list(DATA):
            unit = self.spec.unit_of(key)
            if unit is not None:
                absent[unit] = False
        return np.flatnonzero(absent)

    def is_committed(self, unit: int) -> bool:
        """Whether the unit is committed, by asking for its very object."""
        return self.store.stat(self.spec.key(unit)) is not None

    def commit(self, unit: int, table: pa.Table, notes: dict[str, Any]) -> Receipt:
        """Commit a unit's rows (`synthfer.sample.SCHEMA`, in plan order) exactly once.

        If another writer was first, its shard stays and its receipt comes back with `created=False`.
        `notes` is JSON for the shard's footer. `ValueError` if the table does not fit the unit.
        """
        key = self.spec.key(unit)
        try:
            check_table(table, len(self.spec.unit_rows(unit)))
            body, footer = encode(table, unit, self.spec, notes)
        except ValueError as error:
            raise ValueError(f"{self.uri}/{key} is not committed: {error}.") from error
        digest = hashlib.sha256(body).hexdigest()
        if self.store.put_new(key, body):
            return Receipt(unit, True, footer.rows, body.size, digest, footer.rows_hash, footer.counts)
        existing = read_receipt(self.store, self.spec, unit)
        if existing is None:
            raise DamagedShard(f"{self.uri}/{key} existed a moment ago and does not now: something deletes shards.")
        return existing

    def seal(
        self,
        receipts: Iterable[Receipt] = (),
        progress: Callable[[int, int], None] | None = None,
        approve: Callable[[Counts], None] | None = None,
    ) -> Manifest:
        """Write the manifest, the card and `_SUCCESS` once every unit is there; `Incomplete` names what is missing.

        Reads the footers of shards that `receipts` does not cover. `approve(counts)` gets the counts of the whole
        dataset and may raise to leave it unsealed. A sealed dataset returns its manifest.
        """
        return self.manifest or seal(self.store, self.spec, self.conditional_create, receipts, progress, approve)

    @property
    def manifest(self) -> Manifest | None:
        """Totals and manifest_hash of a sealed dataset, None before the seal."""
        if self._manifest is None:
            self._manifest = read_manifest(self.store, self.spec)
        return self._manifest

    @property
    def shards(self) -> pa.Table | None:
        """One row per shard in unit order (columns `manifest.SHARDS`), None before the seal."""
        if self._shards is None and self.manifest is not None:
            self._shards = read_shards(self.store, self.spec, self.manifest)
        return self._shards

    def scan(
        self,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
        units: Iterable[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Record batches in plan order: of all shards once sealed, else of those committed by now.

        `columns=None` is every column but the image, which is read only if it is named (`synthfer.sample.SCHEMA.names`
        is all columns). `DamagedShard` names a shard that is not what was committed.
        """
        table = self.shards
        if table is None:
            committed = set(range(self.spec.units)) - set(self.missing().tolist())
            return scan(
                self.store,
                self.spec,
                ((u, None) for u in select_units(self.spec, units, committed)),
                columns,
                where,
            )
        columns_of_shards = (table[name].to_pylist() for name in ("bytes", "sha256", "rows_hash"))
        sealed = [SealedShard(*values) for values in zip(*columns_of_shards, strict=True)]
        selected = select_units(self.spec, units, range(len(sealed)))
        return scan(self.store, self.spec, ((unit, sealed[unit]) for unit in selected), columns, where)

    def verify(
        self,
        progress: Callable[[int, int], None] | None = None,
        *,
        pixels: bool = False,
        expected_ids: Callable[[range], Sequence[str]] | None = None,
    ) -> list[Finding]:
        """What is wrong with the dataset; an empty list means that it is sound. Reads every byte of every shard.

        `pixels`: decode all images rather than a few of each shard. `expected_ids(rows)`: the sample ids of plan rows,
        if the caller can rebuild the plan. `progress(done, total)` counts shards.
        """
        return verify(self.store, self.spec, progress, pixels, expected_ids)

    def gc(self, delete: bool = False, min_age_s: float = 3600) -> list[str]:
        """What killed writers, probes and foreign uploads left behind `min_age_s` seconds ago; `delete` removes it."""
        return list(self.store.leftovers(min_age_s, delete))
