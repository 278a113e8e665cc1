"""Guards on answers: a wrong class order is found, chance is not taken for one, a score carried by copies is told."""

import numpy as np
import pytest

from synthfer.guards.predictions import class_order, score_without_copies


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
    assert score_without_copies(few, few, np.ones(10, bool), "it").status == "skipped"


def test_answers_that_no_order_makes_fit_only_warn():
    """A classifier that is lost takes one expression for another; that is no mistake in the order of its classes."""
    labels = np.arange(7000) % 7
    lost = np.where(np.random.default_rng(0).random(7000) < 0.12, (labels + 1) % 7, labels[::-1] * 0)
    verdict = class_order(lost, labels, "it")
    assert verdict.status == "warn" and "a gap between collections rather than a mistake" in verdict.message
    assert 0 < verdict.numbers["kappa_of_order"] < 0.2
    mostly = np.where(np.random.default_rng(0).random(7000) < 0.5, (labels + 1) % 7, 0)
    assert class_order(mostly, labels, "it").status == "fail"


def test_a_score_that_copies_carry_fails(labels):
    flagged = np.arange(len(labels)) < 300
    answers = np.where(flagged, labels, noisy(labels, 0.3, 2))
    verdict = score_without_copies(answers, labels, flagged, "it")
    right = answers == labels
    assert verdict.status == "fail"
    assert verdict.numbers["accuracy"] == pytest.approx(right.mean())
    assert verdict.numbers["accuracy_without_flagged"] == pytest.approx(right[300:].mean())
    assert verdict.numbers["accuracy_on_flagged"] == 1.0
    assert score_without_copies(noisy(labels, 0.3, 2), labels, flagged, "it").status == "pass"
