"""Predictions for test rows: read by sample id from files, or taken from the nearest training row."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthfer.audit.predictions import nearest_labels, read_predictions, shuffled_accuracy
from tests.audit.splits import side


def noisy(labels: np.ndarray, right: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < right, labels, rng.integers(0, 7, len(labels)))


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 7, 1500)


def test_shuffled_labels_give_chance(labels):
    train = np.random.default_rng(3).integers(0, 7, 4000)
    nearest = np.random.default_rng(4).integers(0, 4000, len(labels))
    train[nearest] = labels
    assert (nearest_labels(nearest, train) == labels).mean() > 0.8
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
    assert nearest_labels(np.array([-1, 0]), np.array([3])).tolist() == [-1, 3]
    assert np.isnan(shuffled_accuracy(np.array([-1]), np.array([3]), np.array([2]), 0)["accuracy"])


def test_answers_are_read_by_id_as_names_indices_or_probabilities(tmp_path):
    test, file = side("test", {}, {}), str(tmp_path / "p.parquet")
    ids = ["test1", "test0"]
    for column, values in {
        "predicted": ["happy", "anger"],
        "label_probs": [[0, 0, 0, 1, 0, 0, 0], [1, *[0] * 6]],
    }.items():
        pq.write_table(pa.table({"sample_id": ids, column: values}), file)
        assert read_predictions(file, test).tolist() == [0, 3]
    pq.write_table(pa.table({"sample_id": ids[:1], "predicted": [3]}), file)
    with pytest.raises(ValueError, match=r"no prediction for 1 of 2 labelled test rows \(test0 is the first\)"):
        read_predictions(file, test)
    pq.write_table(pa.table({"id": ids}), file)
    with pytest.raises(ValueError, match="needs sample_id"):
        read_predictions(file, test)
    with pytest.raises(ValueError, match="no file"):
        read_predictions(str(tmp_path / "absent.parquet"), test)


def answers_of(tmp_path, test, ids: list[str], **column: list) -> list[int]:
    file = tmp_path / "p.parquet"
    pq.write_table(pa.table({"sample_id": ids, **column}), file)
    return read_predictions(str(file), test).tolist()


def test_other_samples_and_unlabelled_rows_need_no_answer(tmp_path):
    test = side("test", {}, {"label": None}, {"label": None})
    ids = ["elsewhere", "test2", "test0"]
    assert answers_of(tmp_path, test, ids, predicted=[6, 5, 4]) == [4, -1, 5]
    assert answers_of(tmp_path, test, ids, predicted=[None, None, 4]) == [4, -1, -1]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"predicted": [7, 0]}, "7 is not an expression"),
        ({"predicted": [-1, 0]}, "-1 is not an expression"),
        ({"predicted": [2.5, 0.0]}, r"2\.5 is not an expression"),
        ({"predicted": ["glad", "sad"]}, "unknown expression 'glad'"),
        ({"predicted": [None, 0]}, "no prediction for 1 of 2"),
        ({"label_probs": [None, [1.0] * 7]}, "no prediction for 1 of 2"),
        ({"label_probs": [[0.1] * 8, [1.0] * 7]}, "are not 7 numbers"),
        ({"label_probs": [[float("nan"), *[0.1] * 6], [1.0] * 7]}, "are not 7 numbers"),
    ],
)
def test_an_answer_that_is_none_is_named(tmp_path, column, message):
    with pytest.raises(ValueError, match=message):
        answers_of(tmp_path, side("test", {}, {}), ["test0", "test1"], **column)


def test_two_answers_for_one_sample_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"occurs twice in .*p\.parquet"):
        answers_of(tmp_path, side("test", {}), ["test0", "test0"], predicted=[1, 2])
    with pytest.raises(ValueError, match="occurs twice in the test data"):
        answers_of(tmp_path, side("test", *[{"sample_id": "a"}] * 2), ["a"], predicted=[1])
    (tmp_path / "p.parquet").write_text("no table")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read_predictions(str(tmp_path / "p.parquet"), side("test", {}))
