"""Guard G1: descendants of test samples and shared identities are found, strangers are not."""

from synthfer.audit.evidence import flagged, table
from synthfer.audit.lineage import shared_lineage
from tests.audit.splits import sides


def found(train: list[dict], test: list[dict]) -> tuple[str, list[tuple]]:
    both = sides(train, test)
    verdict, groups = shared_lineage(both)
    rows = table(groups, both).to_pylist()
    return verdict.status, [(row["left_sample_id"], row["right_sample_id"], row["detail"]) for row in rows]


def test_strangers_pass():
    assert found([{}, {}], [{}, {}]) == ("pass", [])


def test_a_child_a_grandchild_and_a_sibling_of_a_test_sample_fail():
    status, pairs = found(
        [{"parent_id": "test0"}, {"parent_id": "elsewhere", "source_id": "test1"}, {"source_id": "person"}, {}],
        [{}, {}, {"source_id": "person"}],
    )
    assert status == "fail"
    assert pairs == [
        ("train0", "test0", "was made from it"),
        ("train1", "test1", "descends from it"),
        ("train2", "test2", "shares its identity or original"),
    ]


def test_a_test_sample_that_was_made_from_a_training_sample_fails():
    unknown = {"source_id": None}
    status, pairs = found([unknown, unknown, unknown], [{"parent_id": "train1", **unknown}, {"source_id": "train2"}])
    assert status == "fail"
    assert pairs == [("train1", "test0", "is what it was made from"), ("train2", "test1", "is what it descends from")]


def test_two_children_of_one_absent_parent_fail():
    child = {"source_id": None, "parent_id": "absent"}
    assert found([child], [{}, child]) == ("fail", [("train0", "test1", "was made from the same sample")])


def test_the_same_sample_on_both_sides_is_said_once():
    status, pairs = found([{"sample_id": "x", "source_id": "x"}], [{"sample_id": "x", "source_id": "x"}])
    assert (status, pairs) == ("fail", [("x", "x", "is the same sample")])


def test_every_row_of_a_shared_identity_is_flagged_with_few_pairs():
    both = sides([{"source_id": "p"}] * 40, [{"source_id": "p"}] * 30 + [{}])
    verdict, groups = shared_lineage(both)
    marks = flagged(groups, both)
    assert (marks["train"].sum(), marks["test"].sum()) == (40, 30)
    assert sum(map(len, groups)) < 80
    assert verdict.numbers == {"train_rows": 40, "test_rows": 30}


def test_nulls_are_no_kin():
    assert found([{"source_id": None, "parent_id": None}], [{"source_id": None, "parent_id": None}])[0] == "pass"


def test_an_empty_side_is_no_crash():
    assert found([], [{}])[0] == "pass"
