"""Scores equal those of scikit-learn and of a pencil; parts add up; absent classes are left out."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.metrics import (
    METRICS,
    confusion,
    masked,
    precision,
    probability_sums,
    recall,
    scores,
)

ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


def answers(rows=800, right=0.6, seed=0, classes=7):
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, rows, p=rng.dirichlet(np.ones(classes)))
    return truth, np.where(rng.random(rows) < right, truth, rng.integers(0, classes, rows))


def softmax_rows(rows, classes, seed=0):
    powers = np.exp(2 * np.random.default_rng(seed).standard_normal((rows, classes)))
    return powers / powers.sum(1, keepdims=True)


def test_a_small_matrix_by_hand():
    told = scores(np.array([[3, 1], [2, 4]]), ("no", "yes"))
    assert (told.rows, told.support, told.accuracy) == (10, (4, 6), 0.7)
    assert told.recall == pytest.approx((3 / 4, 4 / 6))
    assert told.precision == pytest.approx((3 / 5, 4 / 5))
    assert told.f1 == pytest.approx((6 / 9, 8 / 11))
    assert told.balanced_accuracy == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert told.macro_f1 == pytest.approx((6 / 9 + 8 / 11) / 2)
    assert told.weighted_f1 == pytest.approx(0.4 * 6 / 9 + 0.6 * 8 / 11)
    assert told.cohen_kappa == pytest.approx((0.7 - 0.5) / 0.5)  # chance: .4 * .5 + .6 * .5


@pytest.mark.parametrize("right", [0.02, 0.5, 0.97])
def test_scores_are_those_of_scikit_learn(right):
    reference = pytest.importorskip("sklearn.metrics")
    for seed in range(4):
        truth, predicted = answers(right=right, seed=seed)
        present = sorted(set(truth.tolist()))
        told, one = scores(confusion(truth, predicted)), {"labels": present, "zero_division": 0}
        assert told.confusion == tuple(map(tuple, reference.confusion_matrix(truth, predicted, labels=range(7))))
        for name, expected in {
            "accuracy": reference.accuracy_score(truth, predicted),
            "balanced_accuracy": np.mean(reference.recall_score(truth, predicted, average=None, **one)),
            "macro_f1": reference.f1_score(truth, predicted, average="macro", **one),
            "weighted_f1": reference.f1_score(truth, predicted, average="weighted", **one),
            "cohen_kappa": reference.cohen_kappa_score(truth, predicted),
        }.items():
            assert getattr(told, name) == pytest.approx(expected, abs=1e-12), name
        columns = reference.precision_recall_fscore_support(truth, predicted, **one)
        for name, expected in zip(("precision", "recall", "f1", "support"), columns, strict=True):
            assert np.array(getattr(told, name))[present] == pytest.approx(expected, abs=1e-12), name


def test_a_class_without_rows_is_nan_and_left_out_of_means():
    counts = np.array([[5, 0, 1], [1, 3, 0], [0, 0, 0]])  # one answer names the third class
    told = scores(counts, ("a", "b", "c"))
    assert np.isnan([told.recall[2], told.precision[2], told.f1[2]]).all()
    assert told.balanced_accuracy == pytest.approx((5 / 6 + 3 / 4) / 2)
    assert told.accuracy == 0.8
    assert told.to_json()["recall"][2] is None
    json.dumps(told.to_json(), allow_nan=False)


def test_a_class_that_is_never_answered_has_precision_zero():
    counts = np.array([[5, 0], [5, 0]])
    assert precision(counts).tolist() == [0.5, 0]
    assert recall(counts).tolist() == [1, 0]


@pytest.mark.filterwarnings("error")
def test_no_rows_give_nan_everywhere():
    told = scores(np.zeros((7, 7), np.int64))
    assert all(np.isnan(getattr(told, name)) for name in METRICS)


@given(ROWS, st.randoms(use_true_random=False), st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_order_changes_nothing_and_parts_add_up(rows, random, cut):
    whole = confusion(*np.array(rows).T)
    mixed = random.sample(rows, len(rows))
    parts = [np.array(part, np.int64).reshape(-1, 2).T for part in (mixed[:cut], mixed[cut:])]
    added = sum(confusion(*part) for part in parts)
    assert (added == whole).all()
    assert added.dtype == np.int64
    assert scores(added).to_json() == scores(whole).to_json()


@given(ROWS, st.permutations(range(7)))
@settings(max_examples=40, deadline=None)
def test_names_of_classes_do_not_matter(rows, order):
    truth, predicted = np.array(rows).T
    before, after = (confusion(truth, predicted), confusion(*np.array(order)[[truth, predicted]]))
    for name, metric in METRICS.items():
        assert metric(before) == pytest.approx(metric(after), abs=1e-12, nan_ok=True), name


def test_many_matrices_are_scored_at_once():
    many = np.random.default_rng(0).integers(0, 9, (2, 5, 7, 7))
    for name, metric in METRICS.items():
        one_by_one = [[metric(counts) for counts in row] for row in many]
        assert metric(many) == pytest.approx(np.array(one_by_one)), name


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"truth: row 1 is -1.*leave out"):
        confusion(np.array([0, -1]), np.array([0, 1]))
    with pytest.raises(ValueError, match="predicted: row 0 is 7"):
        confusion(np.array([0]), np.array([7]))
    with pytest.raises(ValueError, match="same length"):
        confusion(np.zeros(2, int), np.zeros(3, int))
    with pytest.raises(ValueError, match="integers"):
        scores(np.eye(7))
    with pytest.raises(ValueError, match="row 1 is"):
        probability_sums(np.array([[0.5, 0.5], [2.0, -1.0]]), np.array([0, 1]))


@pytest.mark.parametrize("classes", [3, 7])
def test_probability_scores_are_those_of_scikit_learn(classes):
    reference = pytest.importorskip("sklearn.metrics")
    probs = softmax_rows(500, classes)
    truth = np.random.default_rng(1).integers(0, classes, 500)
    told, labels = probability_sums(probs, truth), list(range(classes))
    assert told.top2 == pytest.approx(reference.top_k_accuracy_score(truth, probs, k=2, labels=labels), abs=1e-12)
    assert told.nll == pytest.approx(reference.log_loss(truth, probs, labels=labels), abs=1e-11)
    expected = reference.brier_score_loss(truth, probs, labels=labels, scale_by_half=False)
    assert told.brier == pytest.approx(expected, abs=1e-11)


def test_probability_scores_by_hand():
    told = probability_sums(np.array([[0.7, 0.2, 0.1], [0.2, 0.3, 0.5], [1, 0, 0]]), np.array([0, 0, 1]))
    assert told.to_json() == pytest.approx(
        {
            "rows": 3,
            "top2": 2 / 3,  # of the two zeros of the last row the truth comes first
            "nll": -(np.log(0.7) + np.log(0.2) + np.log(np.finfo(float).eps)) / 3,
            "brier": (0.09 + 0.04 + 0.01 + 0.64 + 0.09 + 0.25 + 2) / 3,
        }
    )


@given(st.integers(0, 200), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_probability_sums_of_parts_are_exactly_the_whole(cut, seed):
    probs = softmax_rows(200, 7, seed).astype(np.float32)
    truth = np.random.default_rng(seed).integers(0, 7, 200)
    order = np.random.default_rng(seed + 1).permutation(200)
    first, second = (probability_sums(probs[part], truth[part]) for part in (order[:cut], order[cut:]))
    assert first + second == second + first == probability_sums(probs, truth)


def test_masking_a_class_is_softmax_without_its_logit():
    logits = np.random.default_rng(0).standard_normal((50, 8)) * 3
    present = np.arange(8) != 7
    powers = np.exp(logits)
    expected = powers[:, :7] / powers[:, :7].sum(1, keepdims=True)
    told = masked(powers / powers.sum(1, keepdims=True), present)
    assert told[:, :7] == pytest.approx(expected, abs=1e-12)
    assert not told[:, 7].any()
    with pytest.raises(ValueError, match=r"row 0 has none.*logits"):
        masked(np.eye(8)[[7]], present)
