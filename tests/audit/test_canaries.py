"""The audit's self-test: what is missed is a warning or a failure by how much, and shuffled labels give chance."""

import numpy as np
import pytest

from synthfer.audit.canaries import add, copies_of, count, planted_copies
from synthfer.audit.copies import KINDS, CopyScan
from synthfer.audit.features import of_pictures
from synthfer.audit.near_duplicates import Levels, Limits, compare
from synthfer.embedders import build
from tests.audit.datasets import faces

CHANCE = {"accuracy": 0.15, "chance": 0.14, "limit": 0.05}
NOT_JUDGED = dict.fromkeys(CHANCE, float("nan"))


def found(**hits: int) -> dict[str, tuple[int, int]]:
    return {kind: (100, hits.get(kind, 100)) for kind in KINDS}


@pytest.mark.parametrize(
    ("hits", "status"),
    [({}, "pass"), ({"crop": 90}, "pass"), ({"crop": 89}, "warn"), ({"crop": 75}, "warn"), ({"crop": 74}, "fail"),
     ({"all": 0}, "pass")],
)  # fmt: skip
def test_a_kind_below_the_bar_is_named_with_its_share(hits, status):
    told = planted_copies(found(**hits), CHANCE)
    assert told.status == status
    assert status == "pass" or f"crop {hits['crop']}%" in told.message
    assert told.numbers["found_crop"] == hits.get("crop", 100) / 100


def test_labels_that_survive_shuffling_fail_even_where_nothing_was_planted_or_something_was_missed():
    astray = {"accuracy": 0.5, "chance": 0.14, "limit": 0.05}
    for planted in ({}, found(), found(crop=80)):
        told = planted_copies(planted, astray)
        assert told.status == "fail"
        assert "Shuffled labels score 50.0%" in told.message
    assert "crop 80%" in told.message


def test_nothing_is_said_of_labels_that_could_not_be_shuffled():
    told = planted_copies(found(), NOT_JUDGED)
    assert told.status == "pass"
    assert "nan" not in told.threshold
    assert not any(name.startswith("shuffled") for name in told.numbers)
    assert planted_copies({}, NOT_JUDGED).status == "skipped"


def test_planted_copies_are_counted_where_their_own_training_row_is_found():
    known, embedder = faces(range(40)), build("patches")
    rows = [3, 17, 30]
    planted = copies_of([known[row] for row in rows], rows, embedder, seed=0)
    assert len(planted) == len(KINDS) * len(rows)
    whole = of_pictures(iter(known), embedder)
    levels, scan = Levels(Limits(), 2.0, 2.0), CopyScan()
    parts = [whole[:25], whole[25:]]
    seen = count(compare(parts, [0, 25], planted, levels, scan), rows)
    assert seen["exact"] == seen["mirror"] == (3, 3)
    others = count(compare([whole], [100], planted, levels, scan), rows)
    assert sum(hits for _, hits in others.values()) == 0
    assert add([seen, others])["exact"] == (6, 3)


def test_features_do_not_depend_on_how_many_pictures_are_held_at_once():
    pictures, embedder = faces(range(70)), build("patches")
    whole, half = of_pictures(pictures, embedder), of_pictures(iter(pictures[35:]), embedder)
    assert np.array_equal(whole.hashes[35:], half.hashes)
    assert np.array_equal(whole.grey[35:], half.grey)
    assert np.array_equal(whole.vectors[35:], half.vectors)
