"""Views: a selection over sealed datasets, hashed, refused where anything under it has changed."""

import json

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthfer.canonical import sha256
from synthfer.store import Dataset
from synthfer.store.view import SCHEMA, View, view_hash_of
from tests.store.tables import filled, ids_of, spec_of


def selection(ids: list[str], decision: str = "rejected") -> pa.Table:
    n = len(ids)
    return pa.table([ids, [decision] * n, ["a copy"] * n, [0.5] * n], schema=SCHEMA)


def decided(view: View, where: pc.Expression | None = None) -> dict[str, tuple]:
    batches = view.scan(["sample_id", "decision", "reason"], where)
    return {row["sample_id"]: tuple(row.values())[1:] for batch in batches for row in batch.to_pylist()}


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return filled(str(tmp_path / "dataset"))


def test_named_rows_change_and_all_others_stay(store_uri, dataset):
    view = View.create(f"{store_uri}-view", [dataset], selection(ids_of([3, 7])), {"by": "a test"})
    own = {r["sample_id"]: r["decision"] for b in dataset.scan(["sample_id", "decision"]) for r in b.to_pylist()}
    seen = decided(view)
    assert {key: row for key, row in seen.items() if row[0] != own[key]} == dict.fromkeys(
        ids_of([3, 7]), ("rejected", "a copy", 0.5)
    )
    assert len(seen) == len(own) == 15
    assert sum(weight for *_, weight in seen.values()) == 14


def test_a_failed_row_has_no_picture_to_accept(dataset, tmp_path):
    ids = [r["sample_id"] for b in dataset.scan(["sample_id", "decision"]) for r in b.to_pylist()
           if r["decision"] == "failed"]  # fmt: skip
    seen = decided(View.create(str(tmp_path / "view"), [dataset], selection(ids_of([0]) + ids, "accepted"), {}))
    assert ids
    assert {seen[key][0] for key in ids} == {"failed"}
    assert seen[ids_of([0])[0]] == ("accepted", "a copy", 0.5)


def test_what_a_killed_writer_left_is_replaced(dataset, tmp_path):
    dead = View.create(str(tmp_path / "view"), [dataset], selection(ids_of([3])), {})
    (tmp_path / "view" / "_view.json").unlink()
    view = View.create(str(tmp_path / "view"), [dataset], selection(ids_of([4])), {})
    assert view.view_hash != dead.view_hash
    assert View(view.uri).selection["sample_id"].to_pylist() == ids_of([4])
    (tmp_path / "view" / "selection.parquet").unlink()
    with pytest.raises(ValueError, match="is missing"):
        View(view.uri)


def test_an_id_that_two_datasets_hold_is_decided_in_both(dataset, tmp_path):
    twin = filled(str(tmp_path / "twin"))
    view = View.create(str(tmp_path / "view"), [dataset, twin], selection(ids_of([3])), {})
    rows = [row for batch in view.scan(["sample_id", "decision"]) for row in batch.to_pylist()]
    assert len(rows) == 30
    assert [row["decision"] for row in rows if row["sample_id"] == ids_of([3])[0]] == ["rejected"] * 2


def test_a_filter_sees_the_views_decision(dataset, tmp_path):
    view = View.create(str(tmp_path / "view"), [dataset], selection(ids_of([3])), {})
    assert ids_of([3])[0] not in decided(view, pc.field("decision") == "accepted")


def test_images_come_from_the_dataset(dataset, tmp_path):
    view = View.create(str(tmp_path / "view"), [dataset], selection([]), {})
    [batch, *_] = view.scan(["image"])
    assert batch.schema.names == ["image", "weight"]
    assert batch.to_pylist()[0]["image"]["bytes"]


def test_the_hash_follows_from_selection_and_datasets_alone(dataset, tmp_path):
    first = View.create(str(tmp_path / "a"), [dataset], selection(ids_of([3, 7])), {"by": "one"})
    same = View.create(str(tmp_path / "b"), [dataset], selection(ids_of([7, 3])), {"by": "two"})
    other = View.create(str(tmp_path / "c"), [dataset], selection(ids_of([3])), {"by": "one"})
    assert first.view_hash == same.view_hash != other.view_hash


@given(
    st.lists(st.text(), max_size=9, unique=True),
    st.lists(st.none() | st.text(), min_size=9, max_size=9),
    st.lists(st.floats(0, allow_nan=False, allow_infinity=False) | st.just(-0.0), min_size=9, max_size=9),
)
def test_the_hash_is_that_of_the_rows_canonical_json(ids, reasons, weights):
    n = len(ids)
    rows = pa.table([ids, ["rejected"] * n, reasons[:n], weights[:n]], schema=SCHEMA)
    for table in (rows, pa.concat_tables([rows.slice(0, n // 2), rows.slice(n // 2)])):
        assert view_hash_of(["0" * 64], table) == sha256([["0" * 64], sha256(rows.to_pylist())])


def test_the_hash_of_many_rows_is_that_of_their_canonical_json():
    rows = selection(ids_of(range(200_000)))
    assert view_hash_of([], rows) == sha256([[], sha256(rows.to_pylist())])


def test_a_view_needs_a_dataset(tmp_path):
    with pytest.raises(ValueError, match="needs at least one"):
        View.create(str(tmp_path / "view"), [], selection([]), {})


def test_making_it_again_gives_it_back_and_another_is_refused(dataset, tmp_path):
    made = View.create(str(tmp_path / "view"), [dataset], selection(ids_of([3])), {})
    assert View.create(str(tmp_path / "view"), [dataset], selection(ids_of([3])), {}).view_hash == made.view_hash
    with pytest.raises(ValueError, match="another view"):
        View.create(str(tmp_path / "view"), [dataset], selection(ids_of([4])), {})


def test_what_is_wrong_with_a_selection_is_named(dataset, tmp_path):
    uri = str(tmp_path / "view")
    with pytest.raises(ValueError, match="twice"):
        View.create(uri, [dataset], selection(ids_of([3, 3])), {})
    with pytest.raises(ValueError, match="decision is not one of"):
        View.create(uri, [dataset], selection(ids_of([3]), "perhaps"), {})
    with pytest.raises(ValueError, match="weight is missing"):
        View.create(uri, [dataset], selection([]).drop_columns(["weight"]), {})
    with pytest.raises(ValueError, match="not complete"):
        View.create(uri, [filled(str(tmp_path / "open"), seal=False)], selection([]), {})
    with pytest.raises(FileNotFoundError, match="no view at"):
        View(uri)


def test_a_view_of_another_dataset_at_the_same_place_is_refused(dataset, tmp_path):
    view = View.create(str(tmp_path / "view"), [dataset], selection([]), {})
    filled(str(tmp_path / "other"), spec_of(rows=10))
    (tmp_path / "dataset").rename(tmp_path / "away")
    (tmp_path / "other").rename(tmp_path / "dataset")
    with pytest.raises(ValueError, match="is not the dataset that the view"):
        decided(view)


def test_a_changed_selection_is_refused(dataset, tmp_path):
    View.create(str(tmp_path / "view"), [dataset], selection([]), {})
    contract = tmp_path / "view" / "_view.json"
    contract.write_text(json.dumps(json.loads(contract.read_text()) | {"selection_sha256": "0" * 64}))
    with pytest.raises(ValueError, match="was changed after"):
        View(str(tmp_path / "view"))
