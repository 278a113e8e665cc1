"""A dataset or view named by its URI, and its accepted rows, range by range: what training and evaluation read."""

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
    """Some units of one dataset, with the decisions of a view if `view` (its URI) is given."""

    dataset: str
    units: tuple[int, ...]
    view: str | None = None

    def batches(self, columns: Sequence[str], splits: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The accepted rows of these splits, in plan order, a few at a time."""
        return self.batches_from(Dataset(self.dataset), View(self.view) if self.view else None, columns, splits)

    def batches_from(
        self, dataset: Dataset, view: View | None, columns: Sequence[str], splits: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """The same from a dataset and a view that are open already: opening a large view takes long."""
        where = (pc.field("decision") == "accepted") & pc.field("split").isin(list(splits))
        needed = [*columns, *(name for name in ("decision", "split") if name not in columns)]
        if view:
            batches = view.scan_dataset(dataset, needed, where, self.units)
        else:
            batches = dataset.scan(needed, where, self.units)
        return (batch.select(list(columns)) for batch in batches)

    def rows(self, columns: Sequence[str], splits: Sequence[str]) -> pa.Table:
        """The same as one table."""
        return pa.Table.from_batches(self.batches(columns, splits), pa.schema([SCHEMA.field(name) for name in columns]))

    def decode(self, sample_id: str, body: bytes) -> np.ndarray:
        """The image of one of its rows, uint8 (H, W, 3); `ValueError` names the sample if it cannot be read."""
        try:
            return images.decode(body)
        except ValueError as error:
            raise ValueError(f"{self.dataset}, sample {sample_id}: {error}; leave it out by a view") from error


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """A dataset or view: its URI, the hash of its content, the datasets that it shows; `view` is the URI of a view."""

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


def unit_ranges(refs: Sequence[DatasetRef], rows: int) -> Iterator[UnitRange]:
    """All units of all datasets, in order, in ranges of about `rows` rows."""
    for ref in refs:
        for dataset in ref.datasets:
            units_per_range = max(1, rows // dataset.spec.unit_size)
            for first in range(0, dataset.spec.units, units_per_range):
                units = range(first, min(first + units_per_range, dataset.spec.units))
                yield UnitRange(dataset.uri, tuple(units), ref.view)
