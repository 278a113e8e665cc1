"""A view: a selection over sealed datasets, sample by sample, with reasons and weights; no image is copied.

    <view>/selection.parquet    sample_id, decision, reason, weight: the rows that the view decides about
    <view>/_view.json           written last: the datasets with their manifest_hash, what made the view, its hash

A row that the selection does not name keeps the decision that it has in its dataset, with weight 1; a failed row has
no image and stays failed. An id that several of the datasets hold is decided in all of them. The view_hash follows
from the datasets' manifest hashes and the selection, so that a result can state exactly which samples it used.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthfer.canonical import canonical_json, sha256
from synthfer.documents import MAX_JSON_BYTES, parse, read_json
from synthfer.sample import DECISIONS, METADATA_COLUMNS
from synthfer.schema import REQUIRED, option
from synthfer.store.backends import open_store
from synthfer.store.dataset import Dataset
from synthfer.store.objects import ObjectStore, read_object
from synthfer.store.parquet import Limits, read_table

CONTRACT, SELECTION = "_view.json", "selection.parquet"
SCHEMA = pa.schema(
    [("sample_id", pa.string()), ("decision", pa.string()), ("reason", pa.string()), ("weight", pa.float64())]
)
_FORMAT = "synthfer-view/1"
_NEEDED = ("sample_id", "decision", "reason")
_ESCAPED = r'["\\\x00-\x1f]'
"""Characters that JSON writes in another way."""
MAX_DATASETS = 1_000
"""Each is opened, one request after another."""
_LIMITS = Limits(2 * 10**7, 2**31)
"""A selection is held in memory; a row takes about a hundred bytes there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    uri: str
    manifest_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contract:
    """What `_view.json` holds."""

    format: str = option(REQUIRED, "the version of the files", choices=(_FORMAT,))
    datasets: list[_Source] = option(REQUIRED, "the datasets with their manifest_hash")
    made_by: dict[str, Any] = option(REQUIRED, "what made the view")
    selection_sha256: str = option(REQUIRED, "sha256 of the selection's file")
    view_hash: str = option(REQUIRED, "the hash of datasets and selection")


class View:
    """An existing view at a folder or s3:// URI. `FileNotFoundError`: there is none; `ValueError`: it is damaged."""

    def __init__(self, uri: str) -> None:
        self.store: ObjectStore = open_store(uri)
        self.uri = self.store.uri
        contract = _read_contract(self.store)
        where = f"{self.uri}/{SELECTION}"
        try:
            body = read_object(self.store, SELECTION, _LIMITS.unpacked)
        except FileNotFoundError as error:
            raise ValueError(f"{where} is missing: make the view again") from error
        if hashlib.sha256(body).hexdigest() != contract.selection_sha256:
            raise ValueError(f"{where} was changed after the view was made")
        self.made_by: dict[str, Any] = contract.made_by
        self.view_hash: str = contract.view_hash
        self.selection = _read_selection(body, where)
        self._sources = contract.datasets
        if self.view_hash != view_hash_of([source.manifest_hash for source in self._sources], self.selection):
            raise ValueError(
                f"{self.uri}/{CONTRACT} was edited: its view_hash is not that of its datasets and its selection. "
                "Restore the file, or make the view again"
            )

    @classmethod
    def create(cls, uri: str, datasets: Sequence[Dataset], selection: pa.Table, made_by: Mapping[str, Any]) -> "View":
        """A new view, or the existing one if it is the same.

        `selection` has the columns of `SCHEMA`, each id once; `made_by` is JSON. `ValueError` names a dataset that is
        not sealed, a selection that is wrong, or another view at the same URI.
        """
        _check(selection)
        selection = selection.select(SCHEMA.names).cast(SCHEMA).sort_by("sample_id")
        sources = [_source(dataset) for dataset in datasets]
        _check_sources([source["uri"] for source in sources], f"the view at {uri}")
        sink = pa.BufferOutputStream()
        pq.write_table(selection, sink, compression="zstd", write_page_checksum=True)
        body = sink.getvalue()
        digest = hashlib.sha256(body).hexdigest()
        contract = {
            "format": _FORMAT,
            "datasets": sources,
            "made_by": dict(made_by),
            "selection_sha256": digest,
            "view_hash": view_hash_of([source["manifest_hash"] for source in sources], selection),
        }
        store = open_store(uri)
        if not store.put_new(SELECTION, body) and store.stat(CONTRACT) is None:
            # Left by a writer that was killed before it wrote _view.json: nothing refers to it.
            store.delete(SELECTION)
            store.put_new(SELECTION, body)
        store.put_new(CONTRACT, json.dumps(contract, indent=1).encode())
        view = cls(uri)
        if view.view_hash != contract["view_hash"]:
            raise ValueError(f"there is another view at {view.uri}: choose another URI, or remove that view first")
        return view

    @staticmethod
    def exists(uri: str) -> bool:
        """Whether there is a view at the URI."""
        return open_store(uri).stat(CONTRACT) is not None

    @cached_property
    def datasets(self) -> list[Dataset]:
        """The datasets behind the view; `ValueError` if one of them holds other samples now."""
        datasets = [Dataset(source.uri) for source in self._sources]
        for dataset, source in zip(datasets, self._sources, strict=True):
            if dataset.manifest is None or dataset.manifest.manifest_hash != source.manifest_hash:
                raise ValueError(
                    f"{dataset.uri} is not the dataset that the view {self.uri} was made from: put that dataset back, "
                    "or make the view again"
                )
        return datasets

    def narrowed(self, selection: pa.Table) -> pa.Table:
        """`selection`, and this view's own decisions for the samples that it does not name."""
        selection = selection.select(SCHEMA.names).cast(SCHEMA)
        known = pc.is_in(self.selection["sample_id"], value_set=selection["sample_id"].combine_chunks())
        return pa.concat_tables([selection, self.selection.filter(pc.invert(known))])

    def scan(
        self, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of all datasets in order, with the view's decision and reason, and its `weight` as last column.

        `columns=None` is every column but the image.
        """
        for dataset in self.datasets:
            yield from self.scan_dataset(dataset, columns, where)

    def scan_dataset(
        self,
        dataset: Dataset,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
        units: Sequence[int] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The same for one of the datasets, or some of its units."""
        requested = list(METADATA_COLUMNS if columns is None else columns)
        read = [*requested, *(name for name in _NEEDED if name not in requested)]
        for batch in dataset.scan(read, units=units):
            decided = self._decide(pa.Table.from_batches([batch]))
            decided = decided if where is None else decided.filter(where)
            yield from decided.select([*requested, "weight"]).to_batches()

    @cached_property
    def _selected_ids(self) -> np.ndarray:
        """The ids of the selection, ascending, as an object array."""
        ids: np.ndarray = self.selection["sample_id"].to_numpy(zero_copy_only=False)
        return ids

    def _decide(self, table: pa.Table) -> pa.Table:
        """The table with the view's decision, reason and weight in the rows that its selection names."""
        ids = table["sample_id"].to_numpy(zero_copy_only=False)
        index = np.searchsorted(self._selected_ids, ids)
        selected = index < len(self._selected_ids)
        selected[selected] = self._selected_ids[index[selected]] == ids[selected]
        failed = pc.equal(table["decision"], "failed").to_numpy()
        decided = pa.array(selected & ~failed)
        selection = self.selection.take(pa.array(np.where(selected, index, 0), mask=~selected))
        for name in ("decision", "reason"):
            column = pc.if_else(decided, selection[name], table[name])
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return table.append_column("weight", pc.if_else(decided, selection["weight"], 1.0))


def _source(dataset: Dataset) -> dict[str, str]:
    if dataset.manifest is None:
        raise ValueError(
            f"{dataset.uri} is not complete: run the job that makes it again; a view needs sealed datasets"
        )
    return {"uri": dataset.uri, "manifest_hash": dataset.manifest.manifest_hash}


def _read_contract(store: ObjectStore) -> _Contract:
    where = f"{store.uri}/{CONTRACT}"
    try:
        value = read_json(read_object(store, CONTRACT, MAX_JSON_BYTES), where)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no view at {store.uri} ({CONTRACT} is missing)") from error
    version = value.get("format") if isinstance(value, dict) else None
    if isinstance(version, str) and version != _FORMAT:
        raise ValueError(f"{where} has format {version[:80]!r}, not {_FORMAT!r}")
    if isinstance(value, dict) and isinstance(value.get("datasets"), list) and len(value["datasets"]) > MAX_DATASETS:
        raise ValueError(f"{where} names {len(value['datasets']):,} datasets, more than {MAX_DATASETS:,}")
    contract = parse(value, where, _Contract)
    _check_sources([source.uri for source in contract.datasets], where)
    return contract


def view_hash_of(manifest_hashes: Sequence[str], selection: pa.Table) -> str:
    """What a view's hash covers: the manifest hashes of its datasets in order, and the rows of its selection."""
    return sha256([list(manifest_hashes), _rows_sha256(selection)])


def _rows_sha256(selection: pa.Table) -> str:
    """`canonical.sha256(selection.to_pylist())`, a column at a time: a second, not ten, for a million rows."""
    digest, names = hashlib.sha256(b"["), sorted(SCHEMA.names)
    for number, batch in enumerate(filter(len, selection.to_batches(max_chunksize=1 << 16))):
        parts = [part for name in names for part in (f',"{name}":', _json_texts(batch[name]))]
        rows = _joined(f'{{"{names[0]}":', *parts[1:], "}")
        digest.update(b"," if number else b"")
        digest.update(",".join(rows.to_pylist()).encode())
    digest.update(b"]")
    return digest.hexdigest()


def _json_texts(column: pa.Array) -> pa.Array:
    """Each value of a column of texts or numbers as JSON; texts of which nothing must be escaped never leave Arrow."""
    if not pa.types.is_floating(column.type):
        if not pc.any(pc.match_substring_regex(column, _ESCAPED)).as_py():
            return pc.fill_null(_joined('"', column.cast(pa.large_string()), '"'), "null")
        return pa.array([canonical_json(value).decode() for value in column.to_pylist()], pa.large_string())
    bits = column.view(pa.int64()).dictionary_encode()  # 0.0 and -0.0 are two values
    texts = [canonical_json(value).decode() for value in bits.dictionary.view(pa.float64()).to_pylist()]
    return pa.array(texts, pa.large_string()).take(bits.indices)


def _joined(*parts: Any) -> pa.Array:
    texts = [pa.scalar(part, pa.large_string()) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*texts, pa.scalar("", pa.large_string()))


def _check_sources(uris: Sequence[str], where: str) -> None:
    if not uris:
        raise ValueError(f"{where} names no dataset: a view needs at least one. Make the view again")
    if len(uris) > MAX_DATASETS:
        raise ValueError(f"{where} names {len(uris):,} datasets, more than {MAX_DATASETS:,}")
    if len(set(uris)) < len(uris):
        twice = max(uris, key=uris.count)[:200]
        raise ValueError(f"{where} names a dataset twice ({twice}): its rows would count twice")


def _read_selection(body: bytes, where: str) -> pa.Table:
    """The stored selection; `ValueError` names the object unless it is one that `View.create` writes."""
    table = read_table(body, where, SCHEMA, _LIMITS)
    ids = table["sample_id"].combine_chunks()
    try:
        _check(table)
        if len(ids) > 1 and not pc.all(pc.less(ids[:-1], ids[1:])).as_py():
            raise ValueError("its sample ids are not in order")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return table


def _check(selection: pa.Table) -> None:
    missing = [name for name in SCHEMA.names if name not in selection.column_names]
    if missing:
        raise ValueError(f"a selection needs the columns {', '.join(SCHEMA.names)}; {', '.join(missing)} is missing")
    for name in ("sample_id", "decision", "weight"):
        if selection[name].null_count:
            raise ValueError(f"a selection has a row without {name}")
    weights = selection["weight"].cast(pa.float64())
    if not pc.all(pc.and_(pc.is_finite(weights), pc.greater_equal(weights, 0)), min_count=0).as_py():
        raise ValueError("a selection has a weight that is no number from 0 up")
    if pc.count_distinct(selection["sample_id"]).as_py() != selection.num_rows:
        raise ValueError("a selection names a sample id twice")
    if not pc.all(pc.is_in(selection["decision"], value_set=pa.array(DECISIONS))).as_py() and selection.num_rows:
        raise ValueError(f"a selection's decision is not one of {', '.join(DECISIONS)}")
