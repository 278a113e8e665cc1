"""Guards on answers: a wrong class order is found, chance is not taken for one, a score carried by copies is told."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthfer.evaluation.agreement import (
    class_order,
    copies_score,
    nearest_answers,
    read_answers,
    shuffled_accuracy,
    wilson_half_width,
)
from tests.evaluation.made_sides import side


def noisy(labels: np.ndarray, right: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < right, labels, rng.integers(0, 7, len(labels)))


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 7, 1500)


def test_a_right_order_passes_and_a_wrong_one_is_named(labels):
    answers = noisy(labels, 0.4, 1)
    assert class_order(answers, labels, "it").status == "pass"
    shifted = (answers + 1) % 7
    verdict = class_order(shifted, labels, "it")
    assert verdict.status == "fail"
    assert "disgust for anger" in verdict.message


@pytest.mark.parametrize("seed", range(8))
def test_chance_is_not_taken_for_another_order(labels, seed):
    answers = np.random.default_rng(seed + 50).integers(0, 7, len(labels))
    assert class_order(answers, labels, "it").status == "pass"


def test_one_class_alone_tells_nothing_of_the_order(labels):
    one = np.full(1500, 2)
    mostly_another = np.where(np.arange(1500) % 3 > 0, 6, 2)
    assert class_order(mostly_another, one, "it").status == "pass"
    assert class_order(one, labels, "it").status == "pass"
    assert class_order(one, np.where(labels > 2, 4, 6), "it").status == "pass"


@pytest.mark.parametrize("seed", range(4))
def test_training_data_of_other_shares_is_not_taken_for_another_order(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(7, 1500, p=[0.7, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05])
    guesses = rng.choice(7, 1500, p=[0.05, 0.05, 0.05, 0.7, 0.05, 0.05, 0.05])
    answers = np.where(rng.random(1500) < 0.15, labels, guesses)
    assert class_order(answers, labels, "it").status == "pass"


@pytest.mark.parametrize("seed", range(4))
def test_a_wrong_order_is_found_in_unequal_shares_and_in_rows_that_take_turns(seed):
    rng = np.random.default_rng(seed)
    unequal = rng.choice(7, 1500, p=[0.3, 0.02, 0.1, 0.25, 0.13, 0.1, 0.1])
    in_turns = np.arange(1500) % 2 * 3
    for labels in (unequal, in_turns):
        verdict = class_order((noisy(labels, 0.5, seed + 9) + 3) % 7, labels, "it")
        assert verdict.status == "fail"
        assert "happy for anger" in verdict.message


def test_classes_that_nobody_answers_are_not_said_to_be_swapped():
    labels = np.random.default_rng(0).choice([3, 5], 500)
    verdict = class_order(8 - noisy(labels, 1.0, 0), labels, "it")
    assert verdict.status == "fail"
    assert verdict.message.endswith(": happy for sad, sad for happy.")


def test_too_few_rows_are_not_judged():
    few = np.zeros(10, np.int64)
    assert class_order(few, few, "it").status == "skipped"
    assert copies_score(few, few, np.ones(10, bool), "it").status == "skipped"


def test_answers_that_no_order_makes_fit_only_warn():
    """A classifier that is lost takes one expression for another; that is no mistake in the order of its classes."""
    labels = np.arange(7000) % 7
    lost = np.where(np.random.default_rng(0).random(7000) < 0.12, (labels + 1) % 7, labels[::-1] * 0)
    verdict = class_order(lost, labels, "it")
    assert verdict.status == "warn" and "rather a gap between collections" in verdict.message
    assert 0 < verdict.numbers["kappa_of_order"] < 0.2
    mostly = np.where(np.random.default_rng(0).random(7000) < 0.5, (labels + 1) % 7, 0)
    assert class_order(mostly, labels, "it").status == "fail"


def test_a_score_that_copies_carry_fails(labels):
    flagged = np.arange(len(labels)) < 300
    answers = np.where(flagged, labels, noisy(labels, 0.3, 2))
    verdict = copies_score(answers, labels, flagged, "it")
    right = answers == labels
    assert verdict.status == "fail"
    assert verdict.numbers["accuracy"] == pytest.approx(right.mean())
    assert verdict.numbers["accuracy_without_flagged"] == pytest.approx(right[300:].mean())
    assert verdict.numbers["accuracy_on_flagged"] == 1.0
    assert copies_score(noisy(labels, 0.3, 2), labels, flagged, "it").status == "pass"


def test_the_interval_is_wilsons():
    # Half of the interval for 92 % of 3,068, as published for RAF-DB.
    assert wilson_half_width(0.92, 3068) == pytest.approx(0.0096, abs=1e-4)


def test_shuffled_labels_give_chance(labels):
    train = np.random.default_rng(3).integers(0, 7, 4000)
    nearest = np.random.default_rng(4).integers(0, 4000, len(labels))
    train[nearest] = labels
    assert (nearest_answers(nearest, train) == labels).mean() > 0.8
    told = shuffled_accuracy(nearest, train, labels, seed=0)
    assert abs(told["accuracy"] - told["chance"]) < told["limit"] < 0.1


@pytest.mark.parametrize("seed", range(12))
def test_one_training_row_that_answers_for_most_is_not_taken_for_a_leak(seed):
    rng = np.random.default_rng(seed)
    train, test = rng.integers(0, 7, 600), np.full(1000, 4)
    nearest = np.where(np.arange(1000) < 800, 0, rng.integers(1, 600, 1000))
    told = shuffled_accuracy(nearest, train, test, seed)
    assert abs(told["accuracy"] - told["chance"]) <= told["limit"]


def test_no_neighbour_gives_no_answer():
    assert nearest_answers(np.array([-1, 0]), np.array([3])).tolist() == [-1, 3]
    assert np.isnan(shuffled_accuracy(np.array([-1]), np.array([3]), np.array([2]), 0)["accuracy"])


def test_answers_are_read_by_id_as_names_indices_or_probabilities(tmp_path):
    test, file = side("test", {}, {}), str(tmp_path / "p.parquet")
    ids = ["test1", "test0"]
    for column, values in {
        "predicted": ["happy", "anger"],
        "label_probs": [[0, 0, 0, 1, 0, 0, 0], [1, *[0] * 6]],
    }.items():
        pq.write_table(pa.table({"sample_id": ids, column: values}), file)
        assert read_answers(file, test).tolist() == [0, 3]
    pq.write_table(pa.table({"sample_id": ids[:1], "predicted": [3]}), file)
    with pytest.raises(ValueError, match=r"no answer for 1 of 2 labelled test rows \(test0 is the first\)"):
        read_answers(file, test)
    pq.write_table(pa.table({"id": ids}), file)
    with pytest.raises(ValueError, match="needs sample_id"):
        read_answers(file, test)
    with pytest.raises(ValueError, match="no file"):
        read_answers(str(tmp_path / "absent.parquet"), test)


def answers_of(tmp_path, test, ids: list[str], **column: list) -> list[int]:
    file = tmp_path / "p.parquet"
    pq.write_table(pa.table({"sample_id": ids, **column}), file)
    return read_answers(str(file), test).tolist()


def test_other_samples_and_unlabelled_rows_need_no_answer(tmp_path):
    test = side("test", {}, {"label": None}, {"label": None})
    ids = ["elsewhere", "test2", "test0"]
    assert answers_of(tmp_path, test, ids, predicted=[6, 5, 4]) == [4, -1, 5]
    assert answers_of(tmp_path, test, ids, predicted=[None, None, 4]) == [4, -1, -1]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"predicted": [7, 0]}, "7 is no expression"),
        ({"predicted": [-1, 0]}, "-1 is no expression"),
        ({"predicted": [2.5, 0.0]}, r"2\.5 is no expression"),
        ({"predicted": ["glad", "sad"]}, "unknown expression 'glad'"),
        ({"predicted": [None, 0]}, "no answer for 1 of 2"),
        ({"label_probs": [None, [1.0] * 7]}, "no answer for 1 of 2"),
        ({"label_probs": [[0.1] * 8, [1.0] * 7]}, "are not 7 numbers"),
        ({"label_probs": [[float("nan"), *[0.1] * 6], [1.0] * 7]}, "are not 7 numbers"),
    ],
)
def test_an_answer_that_is_none_is_named(tmp_path, column, message):
    with pytest.raises(ValueError, match=message):
        answers_of(tmp_path, side("test", {}, {}), ["test0", "test1"], **column)


def test_two_answers_for_one_sample_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"stands twice in .*p\.parquet"):
        answers_of(tmp_path, side("test", {}), ["test0", "test0"], predicted=[1, 2])
    with pytest.raises(ValueError, match="stands twice in the test data"):
        answers_of(tmp_path, side("test", *[{"sample_id": "a"}] * 2), ["a"], predicted=[1])
    (tmp_path / "p.parquet").write_text("no table")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read_answers(str(tmp_path / "p.parquet"), side("test", {}))
