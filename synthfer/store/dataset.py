"""A dataset: a place with a contract (`_dataset.json`) and one shard per unit, each committed exactly once.

A unit has two states, absent and committed, and one transition, which the store makes: its key is created
by one PUT that succeeds only where nothing is. So a resume is a listing, two drivers are safe, and a kill
at any moment costs at most the unit in hand. Deterministic keys mean that even a raw glob over the folder
never sees a row twice.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import synthfer
from synthfer.store.manifest import (
    Incomplete,
    Manifest,
    Receipt,
    read_manifest,
    read_shards,
    receipt_of,
    seal,
)
from synthfer.store.objects import Conditional, ObjectStore, open_store
from synthfer.store.scan import SealedShard, scan, select_units
from synthfer.store.shard import Counts, DamagedShard, check_table, encode
from synthfer.store.spec import DATA, Spec, SpecMismatch
from synthfer.store.verify import Finding, gc, verify

__all__ = ["Dataset", "DamagedShard", "Finding", "Incomplete", "Manifest", "Receipt", "Spec", "SpecMismatch"]  # noqa: RUF022

log = logging.getLogger(__name__)

CONTRACT = "_dataset.json"
_FORMAT = "synthfer/1"
_WEAK = {
    "advisory": "it checks before it creates, so of two writers of one unit that meet within milliseconds the later "
    "may replace the earlier; sealing waits until nothing moves",
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
        contract = _read_contract(self.store)
        self.spec = Spec.from_json(contract["spec"])
        if self.spec.sha256 != contract["spec_sha256"]:
            raise ValueError(f"{self.uri}/{CONTRACT} was edited: its spec is not the one that was hashed.")
        self.conditional: Conditional = contract["store"]["conditional_create"]
        self._manifest: Manifest | None = None
        self._shards: pa.Table | None = None

    @classmethod
    def open(cls, uri: str) -> "Dataset":
        """The same as `Dataset(uri)`."""
        return cls(uri)

    @classmethod
    def create(cls, uri: str, spec: Spec) -> "Dataset":
        """A new dataset, or the one that is there if its spec is the same; else `SpecMismatch`."""
        store = open_store(uri)
        try:
            dataset = cls(uri)
        except FileNotFoundError:
            store.put_new(CONTRACT, _contract(spec, store.probe()))
            dataset = cls(uri)
        if dataset.spec.sha256 != spec.sha256:
            raise SpecMismatch(dataset.uri, dataset.spec, spec)
        if dataset.conditional != "atomic":
            log.warning(
                "%s does not create objects atomically (%s): %s. No row is lost or double.",
                dataset.uri,
                dataset.conditional,
                _WEAK[dataset.conditional],
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
        """Whether the unit's shard is there, by asking for that very object."""
        return self.store.stat(self.spec.key(unit)) is not None

    def commit(self, unit: int, table: pa.Table, notes: dict[str, Any]) -> Receipt:
        """Commit a unit's rows (`synthfer.sample.SCHEMA`, in plan order) exactly once.

        Where another writer was first, its shard stays and its receipt comes back with `created=False`.
        `notes` is JSON for the shard's footer. `ValueError` where the table is not that unit's.
        """
        key = self.spec.key(unit)
        try:
            check_table(table, len(self.spec.unit_rows(unit)))
        except ValueError as error:
            raise ValueError(f"{self.uri}/{key} is not committed: {error}.") from error
        body, footer = encode(table, unit, self.spec.sha256, notes)
        digest = hashlib.sha256(body).hexdigest()
        if self.store.put_new(key, body):
            return Receipt(unit, True, footer.rows, body.size, digest, footer.rows_hash, footer.counts)
        theirs = receipt_of(self.store, self.spec, unit)
        if theirs is None:
            raise DamagedShard(f"{self.uri}/{key} was there and is gone: something deletes shards.")
        return theirs

    def seal(
        self,
        receipts: Iterable[Receipt] = (),
        progress: Callable[[int, int], None] | None = None,
        approve: Callable[[Counts], None] | None = None,
    ) -> Manifest:
        """Write the manifest, the card and `_SUCCESS` once every unit is there; `Incomplete` names what is missing.

        Reads the footers of shards that `receipts` does not cover. `approve(counts)` sees the counts of the whole
        dataset and may raise to leave it unsealed. A sealed dataset gives its manifest back.
        """
        return self.manifest or seal(self.store, self.spec, self.conditional, receipts, progress, approve)

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
            self._shards = read_shards(self.store, self.manifest)
        return self._shards

    def scan(
        self,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
        units: Iterable[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Record batches in plan order: of all shards once sealed, else of those committed by now.

        `columns=None` is every column but the image; ask for `image` by name
        (`synthfer.sample.SCHEMA.names` is all). Pictures are not read unless asked for. `DamagedShard`
        names a shard that is not what was committed.
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
        facts = zip(*(table[name].to_pylist() for name in ("bytes", "sha256", "rows_hash")), strict=True)
        sealed = [SealedShard(*fact) for fact in facts]
        asked = select_units(self.spec, units, range(len(sealed)))
        return scan(self.store, self.spec, ((unit, sealed[unit]) for unit in asked), columns, where)

    def verify(
        self,
        progress: Callable[[int, int], None] | None = None,
        *,
        pixels: bool = False,
        expected_ids: Callable[[range], Sequence[str]] | None = None,
    ) -> list[Finding]:
        """What is wrong with the dataset; an empty list means sound. Reads every byte of every shard.

        `pixels`: decode all pictures rather than a sample of each shard. `expected_ids(rows)`: the sample
        ids of plan rows, where the caller can rebuild the plan. `progress(done, total)` counts shards.
        """
        return verify(self.store, self.spec, progress, pixels, expected_ids)

    def gc(self, delete: bool = False, min_age_s: float = 3600) -> list[str]:
        """Left-overs of killed writers, probes and strangers' uploads; `delete` removes them."""
        return gc(self.store, delete, min_age_s)


def _contract(spec: Spec, conditional: Conditional) -> bytes:
    return json.dumps(
        {
            "format": _FORMAT,
            "spec_sha256": spec.sha256,
            "totals": {"rows": spec.rows, "units": spec.units},
            "store": {"conditional_create": conditional},
            "created_by": f"synthfer {synthfer.__version__}",
            "spec": spec.to_json(),
        },
        indent=1,
    ).encode()


def _read_contract(store: ObjectStore) -> dict[str, Any]:
    where = f"{store.uri}/{CONTRACT}"
    try:
        contract: dict[str, Any] = json.loads(store.get(CONTRACT))
        known = contract["format"] == _FORMAT
        contract["spec"], contract["spec_sha256"], contract["store"]["conditional_create"]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no dataset at {store.uri} ({CONTRACT} is missing)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{where} cannot be read: {error!r}") from error
    if not known:
        raise ValueError(f"{where} has format {contract['format']!r}; this version of synthfer knows {_FORMAT!r}.")
    return contract
