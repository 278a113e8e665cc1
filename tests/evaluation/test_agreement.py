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


def test_too_few_rows_are_not_judged():
    few = np.zeros(10, np.int64)
    assert class_order(few, few, "it").status == "skipped"
    assert copies_score(few, few, np.ones(10, bool), "it").status == "skipped"


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
    with pytest.raises(ValueError, match="no answer for 1 of 2"):
        read_answers(file, test)
    pq.write_table(pa.table({"id": ids}), file)
    with pytest.raises(ValueError, match="needs sample_id"):
        read_answers(file, test)
    with pytest.raises(ValueError, match="no file"):
        read_answers(str(tmp_path / "absent.parquet"), test)
