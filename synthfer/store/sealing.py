"""Sealing: once every unit is committed, write the manifest, the dataset card and, last, `_SUCCESS`.

Sealing can be interrupted anywhere and done again, and two jobs can seal at once: all of them write the same bytes,
and the first one's stay.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from synthfer.store.card import README, dataset_card
from synthfer.store.manifest import MANIFEST, MAX_BYTES, SUCCESS, Manifest, encode_shards, parse_shards, totals
from synthfer.store.objects import ConditionalCreate, ObjectStore, read_object
from synthfer.store.shard import Counts, DamagedShard, Receipt, add_counts, read_receipt
from synthfer.store.spec import Spec
from synthfer.store.threads import ordered_thread_map

log = logging.getLogger(__name__)

_THREADS = 32
_SETTLE_S = 2.0


class Incomplete(RuntimeError):
    """Units are missing, so the dataset cannot be sealed: run the same job again."""


def seal(
    store: ObjectStore,
    spec: Spec,
    conditional_create: ConditionalCreate,
    receipts: Iterable[Receipt] = (),
    progress: Callable[[int, int], None] | None = None,
    approve: Callable[[Counts], None] | None = None,
) -> Manifest:
    """Confirm every unit, then write what makes the dataset complete. See `Dataset.seal`."""
    known = {receipt.unit: receipt for receipt in receipts}
    confirmed = _confirm(store, spec, known, progress)
    if conditional_create != "atomic":
        confirmed = _settled(store, spec, confirmed)
    if approve:
        approve(add_counts(receipt.counts for receipt in confirmed.values()))
    table = encode_shards(spec, confirmed)
    if not store.put_new(MANIFEST, table):
        stored, where = read_object(store, MANIFEST, MAX_BYTES), f"{store.uri}/{MANIFEST}"
        _check_same(store, parse_shards(stored, where, spec), parse_shards(table.to_pybytes(), where, spec))
        table = stored  # another version of Parquet may have written the same table as other bytes
    manifest = totals(spec, confirmed, table)
    store.put_new(README, dataset_card(spec, manifest).encode())
    store.put_new(SUCCESS, json.dumps(manifest.to_json(), indent=1).encode())
    if not manifest.accepted:
        log.warning(
            "%s: none of its %d rows is accepted; its page (jobs/gallery.py) shows why", store.uri, manifest.rows
        )
    return manifest


def _confirm(
    store: ObjectStore, spec: Spec, known: Mapping[int, Receipt], progress: Callable[[int, int], None] | None
) -> dict[int, Receipt]:
    """The receipt of every unit, each confirmed by asking for that very object: a listing may be stale."""

    def confirm(unit: int) -> Receipt | None:
        receipt = known.get(unit)
        if receipt is not None:
            stat = store.stat(spec.key(unit))
            if stat is None or (stat.size == receipt.bytes and stat.sha256 in (None, receipt.sha256)):
                return receipt if stat else None
        return read_receipt(store, spec, unit)

    confirmed: dict[int, Receipt] = {}
    missing = []
    for unit, receipt in enumerate(ordered_thread_map(confirm, range(spec.units), _THREADS)):
        if receipt is None:
            missing.append(unit)
        else:
            confirmed[unit] = receipt
        if progress:
            progress(unit + 1, spec.units)
    if missing:
        raise Incomplete(
            f"{len(missing)} of {spec.units} units of {store.uri} are missing (the first: "
            f"{', '.join(map(str, missing[:8]))}). Run the same job again: it makes only those."
        )
    return confirmed


def _settled(store: ObjectStore, spec: Spec, confirmed: dict[int, Receipt]) -> dict[int, Receipt]:
    """The receipts once they stay the same: without atomic creates a racing writer may replace a shard late."""
    while True:
        time.sleep(_SETTLE_S)
        again = _confirm(store, spec, confirmed, None)
        if again == confirmed:
            return confirmed
        log.warning("%s: shards were replaced during the seal; confirming all of them again", store.uri)
        confirmed = again


def _check_same(store: ObjectStore, stored: pa.Table, ours: pa.Table) -> None:
    if stored.equals(ours):
        return
    pairs = zip(stored.to_pylist(), ours.to_pylist(), strict=False)
    units = ", ".join([str(own["unit"]) for theirs, own in pairs if theirs != own][:8])
    raise DamagedShard(
        f"{store.uri}/{MANIFEST} does not describe what is stored; units that differ: {units or 'all'}. A shard was "
        "changed after it was written: `python jobs/dataset.py verify` shows which."
    )
