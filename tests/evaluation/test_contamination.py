"""Every way in which a candidate may have met the test rows is found and told, and nothing else is."""

import numpy as np
import pyarrow as pa
import pytest

from synthfer.evaluation import contamination, inputs
from tests.evaluation.matrix_inputs import a_test_set, candidate, facts, labels, pairs, seen

TEST = a_test_set()
STRANGERS = facts("expw", labels(50), split="train")


def met(one, audited=None, share=0.0, test=TEST, covered=()):
    audits = contamination.Audits(pairs=pairs() if audited is None else audited, covered=covered)
    return contamination.overlap(one, test, audits, audits.cover(test), share)


def trained_with(rows):
    """What was seen: strangers and these changed rows of the test set."""
    return seen(pa.concat_tables([STRANGERS, rows]))


def changed(rows, **columns):
    """The first test rows as training rows that keep only what `columns` say of them."""
    table = facts("digiface", labels(rows), split="train")
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    return table


def test_strangers_have_nothing_in_common():
    found = met(candidate(seen=seen(STRANGERS)))
    assert not found.flagged.any()
    assert found.reasons == ()
    verdict = contamination.training_overlap(candidate(seen=seen(STRANGERS)), found)
    assert (verdict.guard, verdict.status) == ("G7", "pass")


@pytest.mark.parametrize(
    ("columns", "how"),
    [
        ({"sample_id": "sample_id"}, "as the same sample"),
        ({"source_id": "source_id"}, "by identity or original"),
        ({"parent_id": "sample_id"}, "as the same sample or its original"),
        ({"pixels_hash": "pixels_hash"}, "by their pixels"),
    ],
)
def test_rows_that_were_seen_are_found_by_each_tie(columns, how):
    theirs = {name: TEST.facts[of][:4].to_pylist() for name, of in columns.items()}
    one = candidate(seen=trained_with(changed(4, **theirs)))
    found = met(one)
    assert np.flatnonzero(found.related).tolist() == [0, 1, 2, 3]
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith("4 of 300 test rows are related to its training rows: ")
    assert f"4 {how}" in found.reasons[0]
    verdict = contamination.training_overlap(one, found)
    assert (verdict.status, verdict.numbers) == ("fail", {"tied_rows": 4, "copied_rows": 0})
    assert verdict.message == found.reasons[0]


def test_each_tie_is_counted_by_itself():
    one = candidate(
        seen=trained_with(
            changed(3, pixels_hash=[*TEST.facts["pixels_hash"][:2].to_pylist(), "x"],
                    parent_id=[None, None, TEST.facts["sample_id"][7].as_py()])
        )
    )  # fmt: skip
    found = met(one)
    assert np.flatnonzero(found.related).tolist() == [0, 1, 7]
    assert "2 by their pixels" in found.reasons[0]
    assert "1 as the same sample or its original" in found.reasons[0]


def test_a_declared_split_of_the_test_rows_is_found():
    one = candidate(trained_on=("expw:train", "rafdb:test"))
    found = met(one)
    assert "learned from rafdb:test, and 300 of 300 test rows are from there" in found.reasons[0]
    assert not found.flagged.any()  # which rows is not known
    assert met(candidate(trained_on=("rafdb:train",))).reasons == ()
    assert met(candidate(trained_on=("rafdb:val", "expw:test"))).reasons == ()


def test_ancestors_count_even_where_the_own_rows_are_known():
    known = {"seen": seen(STRANGERS), "trained_on": ("rafdb:test",)}
    assert met(candidate(**known)).reasons  # nobody says that it was not the teacher's
    assert met(candidate(**known, ancestors=())).reasons == ()  # other rows of this split, as its list shows
    assert "learned from rafdb:test" in met(candidate(seen=seen(STRANGERS), ancestors=("rafdb:test",))).reasons[0]
    assert met(candidate(trained_on=(), ancestors=("rafdb:test",))).reasons


def test_part_of_a_test_set_is_enough():
    mixed = a_test_set(split=["train"] * 10 + ["test"] * 290)
    (reason,) = met(candidate(trained_on=("rafdb:train",)), test=mixed).reasons
    assert "10 of 300" in reason


def test_other_labels_of_the_same_pictures_are_the_same_pictures():
    found = met(candidate(trained_on=("fer2013:test",)), test=a_test_set("ferplus"))
    assert "declared to have learned from fer2013:test" in found.reasons[0]


def test_audited_copies_are_flagged_where_the_candidate_saw_their_other_half():
    ours, theirs = TEST.facts["sample_id"].to_pylist(), STRANGERS["sample_id"].to_pylist()
    audits = pairs(
        ("G5", "fail", theirs[0], ours[10]),
        ("G3", "fail", theirs[1], ours[11]),
        ("G3", "fail", theirs[2], ours[11]),
        ("G5", "warn", theirs[3], ours[12]),
        ("G5", "fail", "another training set's row", ours[13]),
        ("G5", "fail", theirs[4], "another test set's row"),
        ("G2", "fail", ours[14], theirs[5]),  # the audit called training data what is the test set here
    )
    one = candidate(seen=seen(STRANGERS))
    found = met(one, audits)
    assert np.flatnonzero(found.copied).tolist() == [10, 11, 14]
    assert not found.related.any()
    assert found.reasons == ("An audit found copies of 3 of 300 test rows in its training data.",)
    assert contamination.training_overlap(one, found).numbers == {"tied_rows": 0, "copied_rows": 3}
    assert met(one, audits, share=0.01).reasons == ()  # 1 % is not more than 1 %
    assert met(one, audits, share=0.0099).reasons
    assert not met(candidate(seen=None), audits).copied.any()
    assert not met(one, pairs()).copied.any()


def g7(one, *given, **more):
    return contamination.training_overlap(one, met(one, *given, **more))


def test_a_clean_cell_says_whether_copies_were_searched_for():
    """An audit that found nothing has no pair: it is known by hash and splits of what it looked at."""
    one, unsearched = candidate(seen=seen(STRANGERS)), "Near copies were not searched for"
    whole = a_test_set(split=["test"] * 200 + ["val"] * 100)
    both = inputs.TestSet(name="rafdb", uri=whole.uri, hash=whole.hash, splits=("val", "test"), facts=whole.facts)
    for test, covered, searched in (
        (TEST, (), False),
        (TEST, {(TEST.hash, "test")}, True),
        (TEST, {(TEST.hash, "val")}, False),
        (TEST, {("hash of another", "test")}, False),
        (both, {(both.hash, "test")}, False),
        (both, {(both.hash, "test"), (both.hash, "val"), ("hash of another", "test")}, True),
    ):
        verdict = g7(one, test=test, covered=covered)
        assert (verdict.status, unsearched in verdict.message) == ("pass", not searched)
    ours = TEST.facts["sample_id"][3].as_py()
    for row, searched in ((("G3", "warn", "x", ours), True), (("G3", "warn", ours, "x"), False), (("G3",) * 4, False)):
        assert (unsearched in g7(one, pairs(row)).message) is not searched


def test_copies_cannot_be_told_of_who_keeps_no_list_of_its_rows():
    """An audit's training rows may be anyone's."""
    covered = {(TEST.hash, "test")}
    assert "Near copies cannot be attributed" in g7(candidate(), covered=covered).message
    assert "Near copies" not in g7(candidate(seen=seen(STRANGERS)), covered=covered).message


def test_nothing_known_is_a_warning():
    one = candidate(trained_on=())
    verdict = contamination.training_overlap(one, met(one))
    assert verdict.status == "warn"
    assert "declare trained_on" in verdict.message


def test_a_score_above_the_ceiling_is_not_believed():
    told = {score: contamination.plausible_score(score, TEST, 0.955) for score in (0.954, 0.955, 0.956)}
    assert [verdict.status for verdict in told.values()] == ["pass", "pass", "fail"]
    assert told[0.956].guard == "G8"
    assert "95.6% is above the ceiling of 95.5%" in told[0.956].message
    assert "jobs/audit.py train=TRAINING_DATA test=out/rafdb test_splits=[test]" in told[0.956].message
    assert contamination.plausible_score(1.0, TEST, None).status == "skipped"


def test_the_ceiling_of_several_collections_is_their_mean_by_rows():
    both = a_test_set(source=["rafdb"] * 75 + ["expw"] * 225)
    ceilings = {"rafdb": 0.9, "expw": 0.7}
    assert contamination.ceiling_of(TEST, ceilings) == pytest.approx(0.9)
    assert contamination.ceiling_of(both, ceilings) == pytest.approx(0.25 * 0.9 + 0.75 * 0.7)
    assert contamination.ceiling_of(both, {"rafdb": 0.9}) is None


@pytest.mark.parametrize(("selection", "status"), [("validation", "pass"), ("unknown", "warn"), ("test", "fail")])
def test_what_a_checkpoint_was_chosen_on(selection, status):
    verdict = contamination.checkpoint_selection(candidate(selection=selection))
    assert (verdict.guard, verdict.status) == ("G10", status)
