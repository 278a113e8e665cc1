"""Guards G2 and G6 against a brute-force count written independently of them."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from synthfer.audit.duplicates import conflicting_labels, identical_pixels
from synthfer.audit.evidence import flagged, pairs, table
from synthfer.guards.verdict import Guard
from synthfer.store.dataset_ref import UnitRange
from tests.audit.splits import side, sides


def random_rows(n: int, seed: int, splits: tuple[str, ...]) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {"pixels_hash": f"{rng.integers(60):032x}", "label": int(rng.integers(7)), "split": str(rng.choice(splits))}
        for _ in range(n)
    ]


def brute_force(train: list[dict], test: list[dict]) -> dict[str, int]:
    rows = [{**row, "side": "train"} for row in train] + [{**row, "side": "test"} for row in test]
    groups: dict[str, list[dict]] = {}
    for row in rows:
        groups.setdefault(row["pixels_hash"], []).append(row)
    shared = [group for group in groups.values() if len(group) > 1]
    return {
        "groups": len(shared),
        "rows_in_groups": sum(map(len, shared)),
        "copies": sum(len(group) - 1 for group in shared),
        "groups_across_splits": sum(len({row["split"] for row in group}) > 1 for group in shared),
        "groups_across_sides": sum(len({row["side"] for row in group}) > 1 for group in shared),
        "groups_with_conflicting_labels": sum(
            any(a["label"] != b["label"] for a, b in combinations(group, 2)) for group in shared
        ),
    }


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_brute_force(seed):
    train, test = random_rows(80, seed, ("train",)), random_rows(40, seed + 100, ("val", "test"))
    verdict, groups = identical_pixels(sides(train, test))
    assert verdict.numbers == brute_force(train, test)
    both = sides(train, test)
    marks = flagged(groups, both)
    hashes = [{row["pixels_hash"] for row in rows} for rows in (train, test)]
    assert marks["train"].tolist() == [row["pixels_hash"] in hashes[1] for row in train]
    assert marks["test"].tolist() == [row["pixels_hash"] in hashes[0] for row in test]


def test_pairs_really_have_the_same_pixels():
    train, test = random_rows(80, 0, ("train",)), random_rows(40, 1, ("test",))
    both = sides(train, test)
    _, groups = identical_pixels(both)
    where = {f"train{i}": row for i, row in enumerate(train)} | {f"test{i}": row for i, row in enumerate(test)}
    rows = table(groups, both).to_pylist()
    assert rows
    for row in rows:
        assert row["left_sample_id"] != row["right_sample_id"]
        ends = where[row["left_sample_id"]], where[row["right_sample_id"]]
        assert ends[0]["pixels_hash"] == ends[1]["pixels_hash"]
        assert row["status"] == ("fail" if row["left_side"] != row["right_side"] else "warn")


def test_copies_within_a_side_are_a_warning():
    verdict, _ = identical_pixels(sides([{"pixels_hash": "a"}, {"pixels_hash": "a"}], [{}]))
    assert (verdict.status, verdict.numbers["copies"]) == ("warn", 1)


def test_no_copies_pass():
    assert identical_pixels(sides([{}, {}], [{}]))[0].status == "pass"


def test_conflicting_labels_are_counted_and_unlabelled_rows_are_not():
    rows = [{"pixels_hash": "a", "label": 1}, {"pixels_hash": "a", "label": 2}, {"pixels_hash": "a", "label": None}]
    both = sides(rows, [{}])
    verdict = conflicting_labels(both, identical_pixels(both)[1])
    assert (verdict.status, verdict.numbers) == ("warn", {"pairs": 2, "conflicting": 1})
    assert conflicting_labels(both, []).status == "pass"


def test_a_pair_that_two_guards_found_is_counted_once_and_a_confirmed_hash_counts():
    both = sides([{"label": 1}, {"label": 2}], [{"label": 1}, {"label": 3}])
    ends = ("train", "test")
    groups = [
        pairs(Guard.PERCEPTUAL_DUPLICATES, "fail", ends, np.array([[0, 1], [1, 1]]), 2.0, ""),
        pairs(Guard.TRANSFORMED_COPIES, "fail", ends, np.array([[0, 1], [0, 0]]), 0.95, ""),
        pairs(Guard.PERCEPTUAL_DUPLICATES, "warn", ends, np.array([[1, 0]]), 9.0, ""),
        pairs(Guard.EMBEDDING_DUPLICATES, "fail", ends, np.array([[1, 0]]), 0.9, ""),
    ]
    assert conflicting_labels(both, groups).numbers == {"pairs": 3, "conflicting": 2}


def test_rows_without_labels_conflict_with_nothing():
    verdict, groups = identical_pixels(
        sides([{"pixels_hash": "a", "label": None}], [{"pixels_hash": "a", "label": None}])
    )
    assert (verdict.status, verdict.numbers["groups_with_conflicting_labels"]) == ("fail", 0)
    assert sum(map(len, groups)) == 1


def test_each_row_of_a_table_names_its_own_dataset():
    row = [{}] * 3
    train = replace(side("train", *row), parts=(UnitRange("a", (0,)), UnitRange("b", (0,))), starts=np.array([0, 2, 3]))
    both = {"train": train, "test": side("test", *row)}
    found = table(
        [pairs(Guard.SHARED_LINEAGE, "fail", ("train", "test"), np.array([[0, 0], [2, 1], [1, 2]]), 1.0, "")], both
    )
    assert found["left_dataset"].to_pylist() == ["a", "b", "a"]
    assert found["right_dataset"].to_pylist() == ["test-data"] * 3
