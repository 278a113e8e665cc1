"""A dataset or view that somebody named, and its accepted rows in parts: what training, audit and evaluation read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer import images
from synthfer.sample import SCHEMA
from synthfer.store.dataset import Dataset
from synthfer.store.view import View


@dataclass(frozen=True, slots=True)
class UnitRange:
    """Some units of one dataset, seen through a view where `view` is given."""

    dataset: str
    units: tuple[int, ...]
    view: str | None = None

    def batches(self, columns: Sequence[str], splits: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The accepted rows of these splits, in order, a few at a time."""
        return self.batches_of(Dataset(self.dataset), View(self.view) if self.view else None, columns, splits)

    def batches_of(
        self, dataset: Dataset, view: View | None, columns: Sequence[str], splits: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """The same from its dataset and view as somebody has opened them, which takes long for a large view."""
        where = (pc.field("decision") == "accepted") & pc.field("split").isin(list(splits))
        needed = [*columns, *(name for name in ("decision", "split") if name not in columns)]
        if view:
            found = view.scan_dataset(dataset, needed, where, self.units)
        else:
            found = dataset.scan(needed, where, self.units)
        return (batch.select(list(columns)) for batch in found)

    def rows(self, columns: Sequence[str], splits: Sequence[str]) -> pa.Table:
        """The same as one table."""
        return pa.Table.from_batches(self.batches(columns, splits), pa.schema([SCHEMA.field(name) for name in columns]))

    def decode(self, sample_id: str, body: bytes) -> np.ndarray:
        """The picture of one of its rows, uint8 (H, W, 3); `ValueError` names the sample if it cannot be read."""
        try:
            return images.decode(body)
        except ValueError as error:
            raise ValueError(f"{self.dataset}, sample {sample_id}: {error}; leave it out by a view") from error


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """A dataset or view that was named: its URI, the hash of its content, and the datasets that it shows."""

    uri: str
    hash: str
    datasets: tuple[Dataset, ...]
    view: str | None


def open_ref(uri: str) -> DatasetRef:
    """Opens a sealed dataset or a view; `ValueError` or `FileNotFoundError` say what is wrong with it."""
    if View.exists(uri):
        view = View(uri)
        return DatasetRef(view.uri, view.view_hash, tuple(view.datasets), view.uri)
    dataset = Dataset(uri)
    if dataset.manifest is None:
        raise ValueError(f"{dataset.uri} is not complete: run the job that makes it again")
    return DatasetRef(dataset.uri, dataset.manifest.manifest_hash, (dataset,), None)


def unit_ranges(origins: Sequence[DatasetRef], rows: int) -> Iterator[UnitRange]:
    """All units of all datasets, in order, in parts of about `rows` rows."""
    for named in origins:
        for dataset in named.datasets:
            per_part = max(1, rows // dataset.spec.unit_size)
            for first in range(0, dataset.spec.units, per_part):
                units = range(first, min(first + per_part, dataset.spec.units))
                yield UnitRange(dataset.uri, tuple(units), named.view)
