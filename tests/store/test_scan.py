"""Scans: only what is asked for is read, in plan order, before and after the seal."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from synthfer.sample import METADATA_COLUMNS, SCHEMA
from synthfer.store import Dataset
from synthfer.store.objects import RangeReader
from tests.store.tables import filled, ids_of, spec_of, table_of


class CountingStore:
    """A store that counts the bytes that leave it."""

    def __init__(self, store) -> None:
        self._store, self.read = store, 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def get(self, key, start=0, end=None):
        body = self._store.get(key, start, end)
        self.read += len(body)
        return body

    def open(self, key, size=None):
        size = self._store.stat(key).size
        return pa.PythonFile(RangeReader(lambda a, b: self.get(key, a, b), size), mode="r")


def rows_of(batches) -> list[dict]:
    return [row for batch in batches for row in batch.to_pylist()]


def test_a_scan_is_in_plan_order_before_and_after_the_seal(store_uri):
    dataset = filled(store_uri, seal=False)
    assert [row["sample_id"] for row in rows_of(dataset.scan(["sample_id"]))] == ids_of(range(15))
    dataset.seal()
    dataset = Dataset.open(store_uri)
    assert [row["sample_id"] for row in rows_of(dataset.scan(["sample_id"]))] == ids_of(range(15))
    assert [row["sample_id"] for row in rows_of(dataset.scan(["sample_id"], units=[2, 0]))] == ids_of(
        [*range(6), 12, 13, 14]
    )
    assert pa.Table.from_batches(dataset.scan(SCHEMA.names)).equals(table_of(range(15)).combine_chunks())
    assert next(dataset.scan()).schema.names == list(METADATA_COLUMNS)


def test_a_scan_of_committed_units_only(tmp_path):
    dataset = Dataset.create(str(tmp_path), spec_of())
    assert rows_of(dataset.scan()) == []
    dataset.commit(1, table_of(range(6, 12)), {})
    assert len(rows_of(dataset.scan())) == 6
    with pytest.raises(ValueError, match=r"units \[0\]"):
        dataset.scan(units=[0, 1])


def test_where_filters_by_any_column_without_reading_pictures(store_uri):
    dataset = filled(store_uri, side=300)  # 270 kB a picture
    dataset.store = CountingStore(dataset.store)
    rows = rows_of(dataset.scan(["sample_id"], where=(pc.field("decision") == "failed") & (pc.field("seed") > 4)))
    assert [row["sample_id"] for row in rows] == ids_of([9, 14])
    metadata, pictures = dataset.store.read, dataset.manifest.bytes
    assert metadata < 80_000 * dataset.spec.units < pictures / 4
    rows = rows_of(dataset.scan(["image"], where=pc.field("label") == 3))
    assert len(rows) == 2
    assert dataset.store.read - metadata == pictures


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"columns": ["lable"]}, "did you mean 'label'"),
        ({"where": pc.field("nothing") == 1}, "nothing"),
        ({"where": pc.field("label") == "anger"}, "does not fit"),
        ({"units": [99]}, "99"),
    ],
)
def test_wrong_questions_are_refused(tmp_path, question, message):
    dataset = filled(str(tmp_path))
    with pytest.raises(ValueError, match=message):
        list(dataset.scan(**question))
