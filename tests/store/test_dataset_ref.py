"""Datasets and views by their URIs, and their accepted rows in ranges of units."""

import pyarrow as pa
import pytest

from synthfer.store import Dataset, View
from synthfer.store.dataset_ref import open_ref, unit_ranges
from synthfer.store.view import SCHEMA
from tests.store.tables import filled, ids_of, spec_of


@pytest.mark.parametrize(("rows", "units"), [(1, [(0,), (1,), (2,)]), (12, [(0, 1), (2,)]), (2**30, [(0, 1, 2)])])
def test_ranges_hold_every_accepted_row_once(tmp_path, rows, units):
    dataset = filled(str(tmp_path))
    ref = open_ref(dataset.uri)
    assert (ref.uri, ref.hash, ref.view) == (dataset.uri, dataset.manifest.manifest_hash, None)
    ranges = list(unit_ranges([ref], rows))
    assert [one.units for one in ranges] == units
    table = pa.concat_tables(one.rows(["sample_id"], ["train"]) for one in ranges)
    assert table["sample_id"].to_pylist() == ids_of(row for row in range(15) if row % 5 != 4 and row % 7 != 6)
    assert ranges[0].rows(["sample_id"], ["test"]).num_rows == 0


def test_a_view_decides_which_rows_are_accepted(tmp_path):
    dataset = filled(str(tmp_path / "dataset"))
    selection = pa.table([ids_of([3]), ["rejected"], ["a copy"], [1.0]], schema=SCHEMA)
    view = View.create(str(tmp_path / "view"), [dataset], selection, {})
    ref = open_ref(view.uri)
    assert (ref.hash, ref.view) == (view.view_hash, view.uri)
    (one,) = unit_ranges([ref], 2**30)
    assert ids_of([3])[0] not in one.rows(["sample_id"], ["train"])["sample_id"].to_pylist()


def test_what_cannot_be_read_says_what_to_do(tmp_path):
    unsealed = Dataset.create(str(tmp_path / "unsealed"), spec_of())
    with pytest.raises(ValueError, match="is not complete: run the job that makes it again"):
        open_ref(unsealed.uri)
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        open_ref(str(tmp_path / "none"))
    (one,) = unit_ranges([open_ref(filled(str(tmp_path / "sealed")).uri)], 2**30)
    with pytest.raises(ValueError, match=r"sealed, sample abc: .*leave it out by a view"):
        one.decode("abc", b"not an image")
