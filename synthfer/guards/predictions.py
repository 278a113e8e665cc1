"""Guards on a classifier's predictions: is the class order right, and do copies of training rows raise the score?"""

from functools import cache
from itertools import permutations
from typing import Any

import numpy as np

from synthfer.expressions import EXPRESSIONS
from synthfer.guards.verdict import Guard, Verdict
from synthfer.metrics import cohen_kappa, confusion
from synthfer.statistics import wilson_half_width

_Z_ORDER = 3.29  # of a 99.9 % interval: the best of 5,040 orders must not be better by chance
_FAIR = 0.2  # kappa of fair agreement (Landis and Koch 1977)
_MIN_ROWS = 70
_ROUNDING = 1e-9


def class_order(predicted: np.ndarray, labels: np.ndarray, classifier: str) -> Verdict:
    """Guard G9: would the predictions fit better if their classes stood in another order?

    The best order is chosen on one half of the rows and tested on the other. What counts is agreement beyond chance, as
    in Cohen's kappa (1960): predictions or labels that are mostly one class fit some other order better, which says
    nothing about the order. The halves are drawn at random, since rows are often sorted by class. Where no order fits
    well the guard only warns: a classifier that fails on an unfamiliar collection confuses expressions, and that is no
    mistake in the order. `predicted` and `labels`: expression indices, int64 (n,), -1 where there is none.
    `classifier` names the one that predicts, for the message.
    """
    known = np.flatnonzero((predicted >= 0) & (labels >= 0))
    facts: dict[str, Any] = {
        "guard": Guard.CLASS_ORDER,
        "threshold": "no other order of the classes is better (99.9 %)",
    }
    if len(known) < _MIN_ROWS:
        return Verdict(status="skipped", message=f"Only {len(known)} labelled rows with a prediction.", **facts)
    shuffled, gains = np.random.default_rng(0).permutation(known), []
    for chosen, held_out in ((shuffled[::2], shuffled[1::2]), (shuffled[1::2], shuffled[::2])):
        order = _best_order(predicted[chosen], labels[chosen])
        gains.append(_gain(order, predicted[held_out], labels[held_out]))
    gain = np.concatenate(gains)
    mean, error = float(gain.mean()), float(gain.std() / np.sqrt(len(gain)))
    bad = mean - _Z_ORDER * error > _ROUNDING
    order = _best_order(predicted[known], labels[known])
    kappa = float(cohen_kappa(confusion(labels[known], order[predicted[known]])))
    named = ", ".join(f"{EXPRESSIONS[a]} for {EXPRESSIONS[b]}" for a, b in enumerate(order) if a != b)
    message = f"No other order of the classes fits {classifier} better."
    if bad:
        message = f"The labels fit better when {classifier} is read in another order: {named}."
    if bad and kappa < _FAIR:
        message += (
            f" But no order fits well (kappa {kappa:.2f}): this is a gap between collections rather than a mistake."
        )
    return Verdict(
        status="pass" if not bad else "fail" if kappa >= _FAIR else "warn",
        message=message,
        numbers={"rows": len(known), "gain": mean, "standard_error": error, "kappa_of_order": kappa},
        **facts,
    )


def _best_order(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label that each predicted class should stand for so that most rows agree beyond chance, int64 (7,).

    Of orders that fit alike the one that moves the fewest classes.
    """
    shares, orders, itself = _shares(predicted, labels), _orders(), np.arange(len(EXPRESSIONS))
    beyond = shares - np.outer(shares.sum(1), shares.sum(0))
    fit = beyond[itself, orders].sum(1) + _ROUNDING * (orders == itself).sum(1)
    best: np.ndarray = orders[fit.argmax()]
    return best


def _gain(order: np.ndarray, predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What each row adds to the agreement beyond chance when predictions are read in another order, float64 (n,)."""
    shares = _shares(predicted, labels)
    given, true = shares.sum(1), shares.sum(0)
    change = np.eye(len(order))[order] - np.eye(len(order))
    rows: np.ndarray = change - (change @ true)[:, None] - given @ change + given @ change @ true
    return rows[predicted, labels]


def _shares(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The share of rows with each prediction and label, float64 (7, 7)."""
    classes = len(EXPRESSIONS)
    return np.bincount(predicted * classes + labels, minlength=classes**2).reshape(classes, classes) / len(labels)


@cache
def _orders() -> np.ndarray:
    return np.array(list(permutations(range(len(EXPRESSIONS)))))


def score_without_copies(predicted: np.ndarray, labels: np.ndarray, flagged: np.ndarray, classifier: str) -> Verdict:
    """Guard G12: accuracy on all test rows and on those that no guard flagged, `flagged` bool (n,).

    Fails where the flagged rows raise the score by more than half the 95 % interval of the clean one.
    """
    known = (predicted >= 0) & (labels >= 0)
    facts: dict[str, Any] = {"guard": Guard.SCORE_WITHOUT_COPIES}
    clean, all_rows = known & ~flagged, int(known.sum())
    if not clean.sum():
        return Verdict(status="skipped", threshold="-", message="No clean labelled row has a prediction.", **facts)
    right = predicted == labels
    score, without = float(right[known].mean()), float(right[clean].mean())
    half = wilson_half_width(without, int(clean.sum()))
    numbers = {
        "rows": all_rows,
        "flagged_rows": all_rows - int(clean.sum()),
        "accuracy": score,
        "accuracy_without_flagged": without,
        "accuracy_on_flagged": float(right[known & flagged].mean()) if (known & flagged).any() else None,
        "half_interval": half,
    }
    bad = score - without > half
    return Verdict(
        status="fail" if bad else "pass",
        threshold=f"difference of at most {half:.2%}, half the 95 % interval",
        message=f"{classifier}: {score:.1%} on all test rows, "
        f"{without:.1%} without the {numbers['flagged_rows']:,} flagged.",
        numbers=numbers,
        **facts,
    )
