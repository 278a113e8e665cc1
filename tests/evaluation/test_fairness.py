"""Gaps equal those of fairlearn; chance gives no small p-value, a planted unfairness does, whatever the class mix."""

import json

import numpy as np
import pytest

from synthfer.evaluation.fairness import (
    GAPS,
    accuracy_range,
    assess,
    demographic_parity_difference,
    equalized_odds_difference,
    false_positive_rate,
    lowest_accuracy,
)
from synthfer.metrics import accuracy, confusion


def people(n=1500, seed=0, right=(0.7, 0.7, 0.7), mixes=None):
    """Truth, answers and ages; `right` and the class `mixes` may differ between the three ages."""
    rng = np.random.default_rng(seed)
    ages = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    mixes = np.full((3, 7), 1 / 7) if mixes is None else np.array(mixes)
    truth = (rng.random((n, 1)) > np.cumsum(mixes, 1)[ages]).sum(1).clip(max=6)
    predicted = np.where(rng.random(n) < np.array(right)[ages], truth, rng.integers(0, 7, n))
    return truth, predicted, np.array(["young", "adult", "old"])[ages].tolist()


def by_group(truth, predicted, values, classes=7):
    values = np.array(values)
    return np.array([confusion(truth[values == v], predicted[values == v], classes) for v in np.unique(values)])


def test_rates_and_gaps_by_hand():
    counts = np.array([[[4, 1], [2, 3]], [[2, 3], [0, 5]]])
    assert false_positive_rate(counts) == pytest.approx(np.array([[2 / 5, 1 / 5], [0, 3 / 5]]))
    assert equalized_odds_difference(counts) == pytest.approx(0.4)  # TPR .8 and .4; .6 and 1; FPR .4 and 0; .2 and .6
    assert demographic_parity_difference(counts) == pytest.approx(0.4)
    assert accuracy_range(counts) == pytest.approx(0)
    assert lowest_accuracy(counts) == pytest.approx(0.7)


@pytest.mark.parametrize("seed", range(2))
def test_gaps_are_those_of_fairlearn(seed):
    fairlearn, sklearn = pytest.importorskip("fairlearn.metrics"), pytest.importorskip("sklearn.metrics")
    truth, predicted, ages = people(400, seed, right=(0.7, 0.6, 0.5))
    told = assess(truth, predicted, ages, replicates=10)
    per_class = [
        [gap(truth == c, predicted == c, sensitive_features=ages) for c in range(7)]
        for gap in (fairlearn.equalized_odds_difference, fairlearn.demographic_parity_difference)
    ]
    frame = fairlearn.MetricFrame(
        metrics={"accuracy": sklearn.accuracy_score, "balanced": sklearn.balanced_accuracy_score},
        y_true=truth, y_pred=predicted, sensitive_features=ages,
    )  # fmt: skip
    assert {name: gap.value for name, gap in told.gaps.items()} == pytest.approx(
        {
            "equalized_odds_difference": max(per_class[0]),
            "demographic_parity_difference": max(per_class[1]),
            "accuracy_range": frame.difference()["accuracy"],
            "lowest_accuracy": frame.group_min()["accuracy"],
        },
        abs=1e-12,
    )
    for group in told.groups:
        of = np.array(ages) == group.name
        rates = [
            rate(truth[of] == 2, predicted[of] == 2)
            for rate in (fairlearn.true_positive_rate, fairlearn.false_positive_rate)
        ]
        assert [group.true_positive_rate[2], group.false_positive_rate[2]] == pytest.approx(rates)
        assert group.accuracy.value == pytest.approx(frame.by_group["accuracy"][group.name])
        assert group.accuracy.low < group.accuracy.value < group.accuracy.high
        assert group.balanced_accuracy == pytest.approx(frame.by_group["balanced"][group.name])


def test_a_rate_that_a_group_lacks_is_not_compared():
    counts = np.array([[[5, 5, 0], [0, 10, 0], [0, 0, 0]], [[5, 5, 0], [0, 0, 0], [0, 0, 9]]])
    # Only the first class has rows in both groups, with equal recall; answers of class 1: 0.5 of 10 and 5 of 19.
    assert equalized_odds_difference(counts) == pytest.approx(0.5 - 5 / 19)
    assert np.isnan(equalized_odds_difference(counts[:1]))


def test_the_order_of_rows_changes_nothing():
    truth, predicted, ages = people(500)
    order = np.random.default_rng(9).permutation(500)
    moved = assess(truth[order], predicted[order], np.array(ages)[order].tolist(), replicates=100)
    assert moved == assess(truth, predicted, ages, replicates=100)


def test_a_group_that_is_served_worse_is_found():
    told = assess(*people(right=(0.8, 0.8, 0.5)), replicates=500)
    assert [group.name for group in told.groups] == ["adult", "old", "young"]
    assert min(told.groups, key=lambda group: group.accuracy.value).name == "old"
    for name in ("equalized_odds_difference", "accuracy_range", "lowest_accuracy"):
        assert told.gaps[name].p < 0.01, name
    gap = told.gaps["accuracy_range"]
    assert gap.low < gap.value < gap.high
    assert gap.low > 0.1


def test_chance_seldom_gives_a_small_p():
    drawn = [assess(*people(300, seed), replicates=99, seed=seed).gaps for seed in range(60)]
    for name in GAPS:
        p = np.array([gaps[name].p for gaps in drawn])
        assert np.mean(p <= 0.05) < 0.14, name
        assert 0.38 < p.mean() < 0.62, name


def test_another_class_mix_is_no_unequal_odds():
    mixes = [[0.7, 0.1, 0.2, 0, 0, 0, 0], [0.2, 0.1, 0.7, 0, 0, 0, 0], [0.4, 0.2, 0.4, 0, 0, 0, 0]]
    drawn = []
    for seed in range(20):
        truth, _, ages = people(600, seed, mixes=mixes)
        # Half of class 0 is taken for class 1, in every group: where class 0 is frequent, so is the wrong answer.
        mistaken = (truth == 0) & (np.random.default_rng([seed, 1]).random(600) < 0.5)
        drawn.append(assess(truth, np.where(mistaken, 1, truth), ages, replicates=100, seed=seed).gaps)
    odds = [gaps["equalized_odds_difference"] for gaps in drawn]
    assert min(gap.value for gap in odds) > 0.15
    assert np.mean([gap.p <= 0.05 for gap in odds]) < 0.25
    assert max(gaps["demographic_parity_difference"].p for gaps in drawn) < 0.05


@pytest.mark.parametrize(("name", "within"), [("accuracy_range", False), ("equalized_odds_difference", True)])
def test_p_is_that_of_shuffled_names(name, within):
    truth, predicted, ages = people(400, 3, right=(0.75, 0.7, 0.68))
    told = assess(truth, predicted, ages).gaps[name]
    rng, ages, drawn = np.random.default_rng(1), np.array(ages), []
    blocks = [np.flatnonzero(truth == c) for c in range(7)] if within else [np.arange(400)]
    for _ in range(1000):
        mixed = ages.copy()
        for block in blocks:
            mixed[block] = rng.permutation(mixed[block])
        drawn.append(float(GAPS[name].of(by_group(truth, predicted, mixed))))
    assert 0.05 < told.p < 0.95  # else any test would agree
    assert told.p == pytest.approx(np.mean(np.array(drawn) >= told.value - 1e-12), abs=0.06)


def test_intersections_that_are_too_small_are_listed_and_not_judged():
    gender = ["female"] * 100 + ["male"] * 100 + [None]
    age = ["old"] * 29 + ["young"] * 71 + ["old"] * 30 + ["young"] * 70 + ["old"]
    values = [None if None in both else " x ".join(both) for both in zip(gender, age, strict=True)]
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 7, (2, 201))
    predicted[:29] = (truth[:29] + 1) % 7  # the small group has everything wrong
    told = assess(truth, predicted, values, replicates=50)
    assert {group.name: group.rows for group in told.groups} == {
        "female x young": 71,
        "male x old": 30,
        "male x young": 70,
    }
    assert told.too_small == {"female x old": 29}
    assert told.unknown == 1
    kept = [i for i, value in enumerate(values) if value in {group.name for group in told.groups}]
    tables = by_group(truth[kept], predicted[kept], [values[i] for i in kept])
    assert told.gaps["lowest_accuracy"].value == accuracy(tables).min()
    assert json.loads(json.dumps(told.to_json(), allow_nan=False))["too_small"] == {"female x old": 29}


@pytest.mark.filterwarnings("error")
def test_one_group_has_no_gap_and_none_has_no_group():
    truth = np.arange(70) % 7
    alone = assess(truth, truth, ["old"] * 70)
    assert alone.groups[0].accuracy.value == 1
    assert all(np.isnan([gap.value, gap.p]).all() for gap in alone.gaps.values())
    assert alone.to_json()["gaps"]["accuracy_range"]["p"] is None
    nobody = assess(truth, truth, [None] * 70)
    assert (nobody.groups, nobody.unknown) == ((), 70)
    with pytest.raises(ValueError, match="one value per row"):
        assess(truth, truth, ["old"])
