"""Calibration errors equal a plain loop and scikit-learn."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from synthfer.evaluation.calibration import (
    classwise_error,
    of_predictions,
    reliability,
)


def rows(n=600, seed=0):
    """Logits and truth drawn from their softmax, which is therefore calibrated."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((n, 7)) * 2
    chances = np.cumsum(softmax(logits, 1), 1)
    return logits, np.minimum((rng.random((n, 1)) > chances).sum(1), 6)


def looped(confidence, right, edges):
    error = 0.0
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return error


def test_a_table_by_hand():
    told = reliability(np.array([0.2, 0.5, 0.6, 0.9]), np.array([1, 0, 1, 1]), bins=2)
    assert told.upper == (0.5, 1.0)
    assert told.rows == (2, 2)
    assert told.confidence == pytest.approx((0.35, 0.75))
    assert told.right == (0.5, 1.0)
    assert told.error == pytest.approx((0.15 + 0.25) / 2)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_errors_are_those_of_a_plain_loop(bins):
    logits, truth = rows()
    probs = softmax(logits / 0.5, 1)
    confidence, right = probs.max(1), probs.argmax(1) == truth
    expected = looped(confidence, right, np.linspace(0, 1, bins + 1))
    assert of_predictions(probs, truth, bins).error == pytest.approx(expected, abs=1e-12)
    ordered = np.array_split(np.argsort(confidence), bins)  # 600 rows: every bin gets as many
    expected = np.mean([abs(confidence[part].mean() - right[part].mean()) for part in ordered])
    assert of_predictions(probs, truth, bins, "mass").error == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [3, 15, 601, 100_000])
def test_bins_of_equal_mass_hold_as_many_rows_each(n):
    confidence = np.random.default_rng(0).permutation(n) / n
    told = reliability(confidence, confidence > 0.5, binning="mass")
    assert sum(told.rows) == n
    assert max(told.rows) - min(told.rows) <= 1
    assert list(told.upper) == sorted(told.upper)


def test_equal_confidences_stay_in_one_bin():
    told = reliability(np.array([0.3] * 7 + [0.6] * 3), np.arange(10) < 5, bins=5, binning="mass")
    assert sorted(told.rows) == [0, 0, 0, 3, 7]
    assert told.error == pytest.approx(0.7 * (5 / 7 - 0.3) + 0.3 * 0.6)


def test_classwise_curves_are_those_of_scikit_learn():
    reference = pytest.importorskip("sklearn.calibration")
    logits, truth = rows()
    probs = softmax(logits, 1)
    errors = classwise_error(probs, truth)
    for c in range(7):
        table = reliability(probs[:, c], truth == c)
        filled = np.array(table.rows) > 0
        right, confidence = reference.calibration_curve(truth == c, probs[:, c], n_bins=15)
        assert np.array(table.right)[filled] == pytest.approx(right)
        assert np.array(table.confidence)[filled] == pytest.approx(confidence)
        assert errors[c] == pytest.approx(looped(probs[:, c], truth == c, np.linspace(0, 1, 16)), abs=1e-12)


def test_right_probabilities_have_small_errors_and_too_sure_ones_large():
    logits, truth = rows(20_000)
    assert of_predictions(softmax(logits, 1), truth).error < 0.02
    assert classwise_error(softmax(logits, 1), truth).mean() < 0.02
    assert of_predictions(softmax(logits / 0.25, 1), truth).error > 0.15


@given(st.lists(st.tuples(st.sampled_from([0, 0.1, 0.2, 0.5, 0.7, 1]), st.booleans()), min_size=1, max_size=50),
       st.randoms(use_true_random=False), st.integers(1, 20), st.sampled_from(["width", "mass"]))  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_order_changes_nothing_and_no_row_is_lost(pairs, random, bins, binning):
    before, after = (
        reliability(np.array([p for p, _ in order]), np.array([r for _, r in order]), bins, binning)
        for order in (pairs, random.sample(pairs, len(pairs)))
    )
    assert before.rows == after.rows
    assert sum(before.rows) == len(pairs)
    assert before.error == pytest.approx(after.error, abs=1e-12)
    assert 0 <= before.error <= 1


def test_an_empty_table_is_plain_json():
    told = reliability(np.empty(0), np.empty(0)).to_json()
    assert told["error"] is None
    assert json.dumps(told, allow_nan=False)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="0 bins"):
        reliability(np.array([0.5]), np.array([True]), 0)
    with pytest.raises(ValueError, match="'height'"):
        reliability(np.array([0.5]), np.array([True]), 2, "height")
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        reliability(np.array([3.0]), np.array([True]))
