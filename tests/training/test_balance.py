"""Weights against their formulas and limits, drawing against the share it promises, and which pairs are reported."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.expressions import EXPRESSIONS
from synthfer.training.balance import class_weights, double_corrections, draw_weights
from synthfer.training.settings import LossConfig, TrainConfig

RAFDB = np.array([705, 717, 281, 4772, 2524, 1982, 1290])
COUNTS = st.lists(st.integers(1, 10**6), min_size=7, max_size=7).map(np.array)


def config(sampler_power=0.0, **loss):
    return TrainConfig(
        out="out", data={"a": "a"}, sampler_power=sampler_power, loss=LossConfig(**{"smoothing": 0.0} | loss)
    )


def test_no_weights_are_ones_even_for_a_class_without_rows():
    assert class_weights("none", np.array([3, 0]), 0.9, ("a", "b")).tolist() == [1, 1]


def test_effective_numbers_by_hand():
    # beta 1/2: one row counts 1, two 1.5, three 1.75.
    expected = np.array([1, 1 / 1.5, 1 / 1.75])
    told = class_weights("class_balanced", np.array([1, 2, 3]), 0.5, ("a", "b", "c"))
    assert told == pytest.approx(expected * 3 / expected.sum(), rel=1e-14)


def test_effective_numbers_are_sums_of_powers():
    beta = 0.999
    effective = np.array([sum(beta**k for k in range(rows)) for rows in RAFDB])
    expected = 7 / effective / (1 / effective).sum()
    assert class_weights("class_balanced", RAFDB, beta) == pytest.approx(expected, rel=1e-10)


@given(COUNTS, st.sampled_from(["class_balanced", "inverse"]), st.floats(0, 0.999999))
@settings(max_examples=60, deadline=None)
def test_weights_sum_to_the_classes_and_never_favour_the_larger_class(counts, kind, beta):
    weights = class_weights(kind, counts, beta)
    assert weights.sum() == pytest.approx(7)
    assert weights.dtype == np.float64
    assert (np.diff(weights[np.argsort(counts)]) <= 1e-12).all()


@given(COUNTS)
@settings(max_examples=30, deadline=None)
def test_beta_goes_from_no_weights_to_inverse_counts(counts):
    assert class_weights("class_balanced", counts, 0.0).tolist() == [1] * 7
    few = np.minimum(counts, 50)
    assert class_weights("class_balanced", few, 0.999999) == pytest.approx(class_weights("inverse", few, 0), rel=1e-4)


def test_inverse_weights_make_classes_weigh_alike():
    total = class_weights("inverse", RAFDB, 0.0) * RAFDB
    assert total == pytest.approx(np.full(7, total[0]))


def test_a_class_without_rows_is_named():
    for kind in ("class_balanced", "inverse"):
        with pytest.raises(ValueError, match=r"class disgust, sad\b.*loss.class_weights=none"):
            class_weights(kind, np.array([1, 0, 1, 1, 1, 0, 1]), 0.9)


def test_wrong_weights_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2,\), expected one for each of anger"):
        class_weights("inverse", np.array([1, 2]), 0.9)
    with pytest.raises(ValueError, match=r"'inverted' are unknown.*none, class_balanced or inverse"):
        class_weights("inverted", RAFDB, 0.9)
    for beta in (1.0, -0.1):
        with pytest.raises(ValueError, match="beta is"):
            class_weights("class_balanced", RAFDB, beta)


LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=80).map(np.array)


@given(LABELS, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_classes_are_drawn_by_the_power_of_their_size(labels, power):
    weights = draw_weights(labels, power)
    counts = np.bincount(labels, minlength=7)
    drawn = np.bincount(labels, weights, minlength=7)
    expected = np.where(counts > 0, counts.astype(float) ** (1 - power), 0)
    assert drawn == pytest.approx(expected / expected.sum(), abs=1e-12)
    assert weights.dtype == np.float64
    assert weights.sum() == pytest.approx(1)
    for label in set(labels.tolist()):
        assert np.ptp(weights[labels == label]) == 0


def test_power_zero_draws_rows_alike_and_power_one_classes():
    labels = np.repeat(np.arange(7), RAFDB)
    assert draw_weights(labels, 0) == pytest.approx(np.full(len(labels), 1 / len(labels)))
    assert np.bincount(labels, draw_weights(labels, 1)) == pytest.approx(np.full(7, 1 / 7))


def test_rows_that_cannot_be_drawn_are_named():
    with pytest.raises(ValueError, match=r"row 2 is -1, not a class"):
        draw_weights(np.array([0, 1, -1]), 0.5)
    with pytest.raises(ValueError, match="no row to draw"):
        draw_weights(np.array([], np.int64), 0.5)


CORRECTIONS = {
    "sampler_power=0.5": {"sampler_power": 0.5},
    "loss.class_weights=inverse": {"class_weights": "inverse"},
    "loss.logit_adjustment=1 ": {"logit_adjustment": 1.0},
    "loss.name=ldam": {"name": "ldam"},
}


@pytest.mark.parametrize("one", CORRECTIONS)
def test_a_single_correction_is_no_double_one(one):
    assert double_corrections(config()) == []
    assert double_corrections(config(**CORRECTIONS[one])) == []


@pytest.mark.parametrize(("one", "other"), [(a, b) for a in CORRECTIONS for b in CORRECTIONS if a < b])
def test_each_pair_is_told_once_with_its_remedy_that_works(one, other):
    chosen = config(**CORRECTIONS[one], **CORRECTIONS[other])
    (sentence,) = double_corrections(chosen)
    assert one in sentence
    assert other in sentence
    remedies = {
        "(loss.class_weights=none)": {"class_weights": "none"},
        "(loss.logit_adjustment=0)": {"logit_adjustment": 0.0},
        "(loss.reweight_from=0.8)": {"reweight_from": 0.8},
    }
    mended = [values for key, values in remedies.items() if key in sentence]
    if mended:
        assert double_corrections(replace(chosen, loss=replace(chosen.loss, **mended[0]))) == []
    else:
        assert "(sampler_power=0)" in sentence
        assert double_corrections(replace(chosen, sampler_power=0.0)) == []


def test_margins_with_late_weights_are_as_published():
    ldam = {"name": "ldam", "class_weights": "class_balanced"}
    assert double_corrections(config(**ldam, reweight_from=0.8)) == []
    assert double_corrections(config(**ldam, reweight_from=0.5)) == []
    assert len(double_corrections(config(**ldam, reweight_from=0.4))) == 1
    assert double_corrections(config(**ldam, margin=0.0)) == []


def test_everything_at_once_is_told_pair_by_pair():
    everything = config(1.0, name="ldam", class_weights="inverse", logit_adjustment=1.0)
    told = double_corrections(everything)
    assert len(told) == len(set(told)) == 6
    assert len(double_corrections(config(logit_adjustment=1.0, smoothing=0.1))) == 1
    # Weights that begin late still meet the sampler and the adjustment.
    late = config(1.0, name="focal", class_weights="inverse", reweight_from=0.8, logit_adjustment=0.5)
    assert len(double_corrections(late)) == 3


def test_names_default_to_the_expressions():
    assert len(class_weights("inverse", RAFDB, 0.0)) == len(EXPRESSIONS)
    assert class_weights("inverse", np.array([1, 3]), 0.0, ("no", "yes")) == pytest.approx([1.5, 0.5])
