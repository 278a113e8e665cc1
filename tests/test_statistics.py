"""Intervals and p-values equal scipy, closed forms, full enumeration and the plain loop over rows."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from synthfer.metrics import METRICS, accuracy, balanced_accuracy, confusion, macro_f1, recall
from synthfer.statistics import (
    Interval,
    clopper_pearson,
    cluster_bootstrap,
    holm,
    mcnemar,
    mean_interval,
    paired_permutation,
    percentile,
    permutation_p,
    resampled,
    wilson,
    wilson_half_width,
)


def answers(truth, right, seed):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(truth)) < right, truth, rng.integers(0, 7, len(truth)))


def bootstrap(counts, metric, replicates=2000, seed=0):
    """The interval over rows that are independent."""
    return percentile(float(metric(counts)), metric(resampled(counts, replicates, seed)))


@pytest.fixture
def truth():
    return np.random.default_rng(0).choice(7, 600, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05])


@pytest.mark.parametrize("name", METRICS)
def test_drawing_cells_is_drawing_rows(truth, name):
    predicted = answers(truth, 0.6, 1)
    told = bootstrap(confusion(truth, predicted), METRICS[name])
    rng = np.random.default_rng(2)
    rows = rng.integers(0, len(truth), (2000, len(truth)))
    looped = METRICS[name](np.array([confusion(truth[r], predicted[r]) for r in rows]))
    width = told.high - told.low
    assert told.value == pytest.approx(METRICS[name](confusion(truth, predicted)))
    assert [told.low, told.high] == pytest.approx(np.quantile(looped, [0.025, 0.975]), abs=0.1 * width)


def test_draws_keep_the_number_of_rows_and_invent_no_cell():
    counts = np.diag([5, 0, 3]) + np.array([[0, 2, 0]] * 3)
    drawn = resampled(counts, 500)
    assert drawn.shape == (500, 3, 3)
    assert (drawn.sum((1, 2)) == counts.sum()).all()
    assert not drawn[:, counts == 0].any()
    assert drawn.mean(0) == pytest.approx(counts, abs=0.5)
    assert (drawn == resampled(counts, 500)).all()
    assert (drawn != resampled(counts, 500, seed=1)).any()
    with pytest.raises(ValueError, match="no row"):
        resampled(np.zeros((7, 7), int))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    chances = np.full((7, 7), 0.3 / 42)
    np.fill_diagonal(chances, 0.1)
    intervals = [
        bootstrap(rng.multinomial(400, chances.ravel()).reshape(7, 7), balanced_accuracy, 300, seed)
        for seed in range(200)
    ]
    held = np.mean([told.low <= 0.7 <= told.high for told in intervals])
    assert 0.90 < held < 0.985


def test_a_class_that_draws_miss_is_judged_by_those_that_have_it():
    counts = np.diag([200, 0, 2])
    told = bootstrap(counts, lambda c: recall(c)[..., 2])
    assert told == Interval(value=1, low=1, high=1)
    assert np.isnan(bootstrap(counts, lambda c: recall(c)[..., 1]).low)
    assert bootstrap(counts, lambda c: recall(c)[..., 1]).to_json() == {"value": None, "low": None, "high": None}


@pytest.mark.parametrize("copies", [1, 4, 9])
def test_copies_in_one_group_widen_the_interval_by_the_root_of_their_number(truth, copies):
    predicted, groups = answers(truth, 0.6, 1), np.arange(len(truth)).astype(str)
    once = bootstrap(confusion(truth, predicted), macro_f1)
    many = [np.repeat(column, copies) for column in (truth, predicted, groups)]
    clustered, plain = cluster_bootstrap(*many, macro_f1), bootstrap(confusion(*many[:2]), macro_f1)
    assert clustered.value == pytest.approx(once.value)
    assert clustered.high - clustered.low == pytest.approx(once.high - once.low, rel=0.1)
    assert clustered.high - clustered.low == pytest.approx(math.sqrt(copies) * (plain.high - plain.low), rel=0.12)


def test_a_cluster_bootstrap_is_that_over_whole_groups(truth):
    predicted, groups = answers(truth, 0.6, 1), np.random.default_rng(4).integers(0, 40, len(truth))
    told = cluster_bootstrap(truth, predicted, groups, accuracy)
    parts = np.array([confusion(truth[groups == g], predicted[groups == g]) for g in range(40)])
    looped = [float(accuracy(parts[d].sum(0))) for d in np.random.default_rng(5).integers(0, 40, (2000, 40))]
    assert [told.low, told.high] == pytest.approx(np.quantile(looped, [0.025, 0.975]), abs=0.008)
    order = np.random.default_rng(6).permutation(len(truth))
    assert cluster_bootstrap(truth[order], predicted[order], groups[order], accuracy) == told


def test_percentiles_leave_out_what_is_not_defined():
    told = percentile(50, np.array([*range(101), np.nan]), level=0.9)
    assert (told.value, told.low, told.high) == pytest.approx((50, 5, 95))


@pytest.mark.parametrize(("first", "second", "p"), [(1, 5, 14 / 64), (0, 5, 2 / 32), (3, 3, 1), (0, 0, 1)])
def test_mcnemar_by_hand(first, second, p):
    right = np.array([[1, 0]] * first + [[0, 1]] * second + [[1, 1]] * 4 + [[0, 0]] * 2).T
    told = mcnemar(*right)
    assert told.p == pytest.approx(p)
    assert told.difference == pytest.approx((first - second) / (first + second + 6))


@pytest.mark.parametrize(("fewer", "pairs"), [(40, 100), (1400, 3000), (4700, 10_000)])
def test_mcnemars_p_of_thousands_of_pairs_is_the_sum_of_binomials(fewer, pairs):
    ways, total = 1, 1
    for k in range(1, fewer + 1):
        ways = ways * (pairs - k + 1) // k
        total += ways
    right = np.arange(pairs) < fewer
    assert mcnemar(right, ~right).p == pytest.approx(2 * total / 2**pairs, rel=1e-10)


def test_a_permutation_test_of_accuracy_is_mcnemars(truth):
    for seed in range(2):
        first, second = answers(truth, 0.62, seed), answers(truth, 0.55, seed + 50)
        exact = mcnemar(first == truth, second == truth)
        drawn = paired_permutation(truth, first, second, accuracy)
        assert drawn.difference == pytest.approx(exact.difference)
        assert drawn.p == pytest.approx(exact.p, abs=0.02)


@pytest.mark.parametrize("metric", [macro_f1, balanced_accuracy])
def test_permutations_are_those_of_all_swaps(metric):
    rng = np.random.default_rng(1)
    truth, first, second = rng.integers(0, 3, (3, 9))
    told = paired_permutation(truth, first, second, metric, classes=3)
    every = [
        abs(float(metric(confusion(truth, np.where(swap, second, first), 3))
                  - metric(confusion(truth, np.where(swap, first, second), 3))))
        for swap in product([False, True], repeat=9)
    ]  # fmt: skip
    assert told.p == pytest.approx(np.mean(np.array(every) >= abs(told.difference) - 1e-12), abs=0.02)


@pytest.mark.parametrize("metric", [accuracy, macro_f1, balanced_accuracy])
def test_permutations_of_groups_are_those_of_all_swaps_of_whole_groups(metric):
    rng = np.random.default_rng(2)
    truth, first, second = rng.integers(0, 3, (3, 24))
    groups = rng.permutation(np.repeat(np.array(["a", "b", "c", "d", "e", "f", "g", "h"]), 3))
    told = paired_permutation(truth, first, second, metric, classes=3, groups=groups)
    every = []
    for coins in product([False, True], repeat=8):
        swap = np.isin(groups, np.array(list("abcdefgh"))[list(coins)])
        scores = [metric(confusion(truth, np.where(swap, one, other), 3))
                  for one, other in ((second, first), (first, second))]  # fmt: skip
        every.append(abs(float(scores[0] - scores[1])))
    assert told.difference == float(metric(confusion(truth, first, 3)) - metric(confusion(truth, second, 3)))
    assert told.p == pytest.approx(np.mean(np.array(every) >= abs(told.difference) - 1e-12), abs=0.02)
    order = rng.permutation(24)
    moved = [column[order] for column in (truth, first, second)]
    assert paired_permutation(*moved, metric, classes=3, groups=groups[order]) == told


def test_groups_of_one_row_change_no_p_value_by_more_than_its_draws(truth):
    for seed in range(3):
        first, second = answers(truth, 0.6, seed), answers(truth, 0.63, seed + 50)
        alone = paired_permutation(truth, first, second, macro_f1)
        grouped = paired_permutation(truth, first, second, macro_f1, groups=np.arange(len(truth)))
        assert grouped.difference == alone.difference
        assert grouped.p == pytest.approx(alone.p, abs=0.02)
    assert paired_permutation(truth, first, first, macro_f1, groups=truth).p == 1
    with pytest.raises(ValueError, match="same rows"):
        paired_permutation(truth, first, second, macro_f1, groups=np.arange(3))


def test_draws_in_blocks_are_the_draws_at_once(truth, monkeypatch):
    first, second = answers(truth, 0.6, 1), answers(truth, 0.63, 2)
    at_once = paired_permutation(truth, first, second, macro_f1, permutations=500)
    monkeypatch.setattr("synthfer.statistics._DRAWS_AT_ONCE", 200)
    assert paired_permutation(truth, first, second, macro_f1, permutations=500) == at_once


def test_two_alike_are_not_told_apart_and_a_better_one_is(truth):
    first, second = answers(truth, 0.6, 1), answers(truth, 0.75, 2)
    told = paired_permutation(truth, first, second, macro_f1)
    assert told.difference < 0
    assert told.p < 0.01
    back = paired_permutation(truth, second, first, macro_f1)
    assert back.difference == -told.difference
    assert paired_permutation(truth, first, first, macro_f1).p == 1
    p = [paired_permutation(truth, answers(truth, 0.6, s), answers(truth, 0.6, s + 1000), macro_f1, permutations=200,
                            seed=s).p for s in range(100)]  # fmt: skip
    assert np.mean(np.array(p) <= 0.05) < 0.12
    assert 0.4 < np.mean(p) < 0.6


def test_the_order_of_rows_changes_no_p_value(truth):
    first, second = answers(truth, 0.6, 1), answers(truth, 0.65, 2)
    order = np.random.default_rng(3).permutation(len(truth))
    moved = paired_permutation(truth[order], first[order], second[order], macro_f1, permutations=500)
    assert moved == paired_permutation(truth, first, second, macro_f1, permutations=500)


def test_pairs_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"same rows.*\(2,\) and \(3,\)"):
        mcnemar(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="at least one"):
        paired_permutation(np.empty(0), np.empty(0), np.empty(0), accuracy)


def test_a_permutation_p_is_never_zero():
    assert permutation_p(5.0, np.zeros(99)) == 0.01
    assert permutation_p(0.0, np.zeros(99)) == 1
    assert np.isnan(permutation_p(math.nan, np.zeros(9)))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match="leave out"):
        holm([0.1, math.nan])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_holm_lies_between_p_and_bonferroni(p):
    told = holm(p)
    assert (told >= p).all()
    assert (told <= np.minimum(1, np.array(p) * len(p))).all()
    assert (np.diff(told[np.argsort(p, kind="stable")]) >= 0).all()


def test_the_interval_over_seeds_is_students():
    values = [0.71, 0.74, 0.72, 0.75, 0.70]
    told = mean_interval(values)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (told.value, told.low, told.high) == pytest.approx((np.mean(values), low, high), abs=1e-12)
    for degrees in (1, 2, 9, 200):
        values = np.random.default_rng(degrees).normal(size=degrees + 1)
        for level in (0.5, 0.9, 0.975, 0.9995):
            told = mean_interval(values, level)
            low, high = stats.t.interval(level, degrees, np.mean(values), stats.sem(values))
            assert (told.low, told.high) == pytest.approx((low, high), rel=1e-10, abs=1e-10)
    with pytest.raises(ValueError, match="at least two"):
        mean_interval([0.7])


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 1), (3, 74), (2719, 3068), (7, 300_000)])
def test_intervals_of_a_share_are_scipys(successes, n):
    reference = stats.binomtest(successes, n)
    for told, method, tolerance in ((clopper_pearson, "exact", 1e-10), (wilson, "wilson", 1e-5)):
        expected = reference.proportion_ci(0.95, method)
        interval = told(successes, n)
        assert interval.value == successes / n
        assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=tolerance)


def test_intervals_of_a_share_by_closed_form():
    assert clopper_pearson(0, 20, level=0.9).high == pytest.approx(1 - 0.05 ** (1 / 20))
    told = wilson(2822, 3068)
    assert (told.high - told.low) / 2 == pytest.approx(wilson_half_width(2822 / 3068, 3068))
    for share in (clopper_pearson, wilson):
        for successes, n in ((3, 2), (-1, 2), (0, 0)):
            with pytest.raises(ValueError, match="not a share"):
                share(successes, n)


def test_the_interval_is_wilsons():
    # Half of the interval for 92 % of 3,068, as published for RAF-DB.
    assert wilson_half_width(0.92, 3068) == pytest.approx(0.0096, abs=1e-4)
