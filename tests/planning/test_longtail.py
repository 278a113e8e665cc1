"""The profile of a long tail, and the view that shows it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthfer.planning.longtail import long_tail, profile
from synthfer.store import Dataset, View
from synthfer.store.dataset_ref import open_ref
from tests.audit.datasets import dataset, faces


def test_the_profile_falls_by_a_constant_factor():
    assert profile(np.full(7, 1024), 64).tolist() == [1024, 512, 256, 128, 64, 32, 16]
    assert profile(np.array([10, 4000, 800]), 100).tolist() == [10, 4000, 400]


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=8), st.floats(1, 1000))
def test_no_class_is_lost_and_the_order_stays(counts, ratio):
    kept = profile(np.array(counts), ratio)
    assert (kept >= 1).all() and (kept <= counts).all()
    assert kept.max() == max(counts)
    order = np.argsort(-np.array(counts), kind="stable")
    assert (np.diff(kept[order]) <= 0).all()


def test_a_view_of_a_long_tail_leaves_other_splits_alone(tmp_path):
    splits = ["train"] * 42 + ["test"] * 14
    uri = dataset(tmp_path / "faces", faces(range(56)), splits)
    selection = long_tail(open_ref(uri), 6, seed=1)
    View.create(str(tmp_path / "tail"), [Dataset(uri)], selection, {"job": "test"})
    rows = [
        row for batch in View(str(tmp_path / "tail")).scan(["label", "split", "decision"]) for row in batch.to_pylist()
    ]
    kept = [[r["label"] for r in rows if r["decision"] == "accepted" and r["split"] == s] for s in ("train", "test")]
    assert np.bincount(kept[0]).tolist() == profile(np.full(7, 6), 6).tolist() == [6, 4, 3, 2, 2, 1, 1]
    assert np.bincount(kept[1]).tolist() == [2] * 7
    assert selection.equals(long_tail(open_ref(uri), 6, seed=1)) and not selection.equals(
        long_tail(open_ref(uri), 6, seed=2)
    )


def test_a_long_tail_of_nothing_is_refused(tmp_path):
    uri = dataset(tmp_path / "faces", faces(range(7)), "test")
    with pytest.raises(ValueError, match="no accepted labelled row of split train"):
        long_tail(open_ref(uri), 6, seed=1)
