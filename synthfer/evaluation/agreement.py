"""Guards that need somebody's answers for the test rows: G9, is the class order right; G12, do copies carry the score.

The answers are a classifier's, given as a file, or those of the nearest training picture: the plainest classifier,
and the one that gains most from copies.
"""

from collections.abc import Sequence
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthfer.evaluation.sides import AuditSplit
from synthfer.evaluation.verdict import Verdict
from synthfer.expressions import EXPRESSIONS, index_of
from synthfer.metrics import cohen_kappa, confusion

_Z = 1.96  # of a 95 % interval
_Z_ORDER = 3.29  # 99.9 %: another order is the best of 5,040, and must not be so by chance
_FAIR = 0.2  # kappa of fair agreement (Landis and Koch 1977)
_MIN_ROWS = 70
_ROUNDING = 1e-9


def read_answers(path: str, side: AuditSplit) -> np.ndarray:
    """A classifier's answers from a Parquet file with `sample_id` and `predicted` or `label_probs`: int64 (n,).

    `predicted` is an expression index or name, `label_probs` seven numbers. Answers for other samples are not used; a
    test row without a label needs none and may get -1. `ValueError` names a missing column, an answer that is none, a
    sample with two of them, or how many labelled test rows have none.
    """
    if not Path(path).is_file():
        raise ValueError(f"predictions: there is no file {path}")
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise ValueError(f"predictions: {path} cannot be read as Parquet: {error}") from error
    column = next((name for name in ("predicted", "label_probs") if name in table.column_names), None)
    if "sample_id" not in table.column_names or column is None:
        raise ValueError(f"predictions: {path} needs sample_id and predicted or label_probs; it has "
                         f"{', '.join(table.column_names)}")  # fmt: skip
    theirs, ours = table["sample_id"].cast(pa.string()), side.facts["sample_id"]
    for ids, where in ((theirs, path), (ours, "the test data")):
        if pc.count_distinct(ids, mode="all").as_py() != len(ids):
            raise ValueError(f"predictions: a sample_id stands twice in {where}, so its answer is not clear")
    try:
        values = np.array([-1, *map(_index, table[column].to_pylist())], np.int64)
    except ValueError as error:
        raise ValueError(f"predictions: {path}: {error}") from error
    answers = values[pc.fill_null(pc.index_in(ours, value_set=theirs.combine_chunks()), -1).to_numpy() + 1]
    labelled = side.labels >= 0
    absent = np.flatnonzero(labelled & (answers < 0))
    if len(absent):
        raise ValueError(f"predictions: {path} has no answer for {len(absent):,} of {labelled.sum():,} labelled test "
                         f"rows ({ours[int(absent[0])]} is the first): give one for each")  # fmt: skip
    return answers


def _index(value: int | float | str | Sequence[float] | None) -> int:
    """The expression of an answer, -1 for null; `ValueError` where it is none."""
    if value is None:
        return -1
    if isinstance(value, str):
        return index_of(value)
    if isinstance(value, Sequence):
        probs = np.asarray(value, float)
        if probs.shape != (len(EXPRESSIONS),) or not np.isfinite(probs).all():
            raise ValueError(f"label_probs {value} are not {len(EXPRESSIONS)} numbers")
        return int(probs.argmax())
    if value not in range(len(EXPRESSIONS)):
        raise ValueError(f"predicted {value!r} is no expression: give a name, or an index from 0 to 6")
    return int(value)


def class_order(answers: np.ndarray, labels: np.ndarray, who: str) -> Verdict:
    """Guard G9: would another order of the classes fit better? Chosen on one half of the rows, judged on the other.

    What counts is agreement beyond chance, as in Cohen's kappa (1960): answers that are mostly one class, or labels
    that are, fit some other order better without telling anything about it. The halves are drawn at random, since
    rows often come in turns. Answers that no order makes fit well only warn: a classifier that is lost on a strange
    collection takes faces of one expression for another, which is no mistake in the order. `answers` and `labels`:
    expression indices, int64 (n,), -1 where there is none.
    """
    known = np.flatnonzero((answers >= 0) & (labels >= 0))
    facts: dict[str, Any] = {
        "guard": "G9",
        "name": "class order",
        "threshold": "no other order of the classes is better (99.9 %)",
    }
    if len(known) < _MIN_ROWS:
        return Verdict(status="skipped", message=f"Only {len(known)} labelled rows with an answer.", **facts)
    mixed, gains = np.random.default_rng(0).permutation(known), []
    for choose, judge in ((mixed[::2], mixed[1::2]), (mixed[1::2], mixed[::2])):
        order = _best_order(answers[choose], labels[choose])
        gains.append(_gain(order, answers[judge], labels[judge]))
    gain = np.concatenate(gains)
    mean, error = float(gain.mean()), float(gain.std() / np.sqrt(len(gain)))
    bad = mean - _Z_ORDER * error > _ROUNDING
    order = _best_order(answers[known], labels[known])
    kappa = float(cohen_kappa(confusion(labels[known], order[answers[known]])))
    named = ", ".join(f"{EXPRESSIONS[a]} for {EXPRESSIONS[b]}" for a, b in enumerate(order) if a != b)
    message = f"No other order of the classes fits {who} better."
    if bad:
        message = f"The labels fit better when {who} is read in another order: {named}."
    if bad and kappa < _FAIR:
        message += f" But no order fits well (kappa {kappa:.2f}): rather a gap between collections than a mistake."
    return Verdict(
        status="pass" if not bad else "fail" if kappa >= _FAIR else "warn",
        message=message,
        numbers={"rows": len(known), "gain": mean, "standard_error": error, "kappa_of_order": kappa},
        **facts,
    )


def _best_order(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label that each answer should stand for so that most rows agree beyond chance, int64 (7,).

    Of orders that fit alike the one that moves the fewest classes.
    """
    shares, orders, itself = _shares(answers, labels), _orders(), np.arange(len(EXPRESSIONS))
    beyond = shares - np.outer(shares.sum(1), shares.sum(0))
    fit = beyond[itself, orders].sum(1) + _ROUNDING * (orders == itself).sum(1)
    best: np.ndarray = orders[fit.argmax()]
    return best


def _gain(order: np.ndarray, answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What each row adds to the agreement beyond chance when answers are read in another order, float64 (n,)."""
    shares = _shares(answers, labels)
    given, true = shares.sum(1), shares.sum(0)
    change = np.eye(len(order))[order] - np.eye(len(order))
    rows: np.ndarray = change - (change @ true)[:, None] - given @ change + given @ change @ true
    return rows[answers, labels]


def _shares(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The share of rows with each answer and label, float64 (7, 7)."""
    classes = len(EXPRESSIONS)
    return np.bincount(answers * classes + labels, minlength=classes**2).reshape(classes, classes) / len(labels)


@cache
def _orders() -> np.ndarray:
    return np.array(list(permutations(range(len(EXPRESSIONS)))))


def copies_score(answers: np.ndarray, labels: np.ndarray, flagged: np.ndarray, who: str) -> Verdict:
    """Guard G12: accuracy on all test rows and on those that no guard flagged, `flagged` bool (n,).

    Fails where the flagged rows lift the score by more than half the 95 % interval of the clean one.
    """
    known = (answers >= 0) & (labels >= 0)
    facts: dict[str, Any] = {"guard": "G12", "name": "score without copies"}
    clean, all_rows = known & ~flagged, int(known.sum())
    if not clean.sum():
        return Verdict(status="skipped", threshold="-", message="No clean labelled row has an answer.", **facts)
    right = answers == labels
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
        message=f"{who}: {score:.1%} on all test rows, {without:.1%} without the {numbers['flagged_rows']:,} flagged.",
        numbers=numbers,
        **facts,
    )


def wilson_half_width(share: float, n: int) -> float:
    """Half the width of the 95 % interval of a share of `n` (Wilson 1927)."""
    return float(_Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n))


def shuffled_accuracy(nearest: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, float]:
    """Part of guard G11: accuracy of the nearest training row when the training labels are shuffled, and chance.

    `nearest`: train row of each test row, int64 (m,), -1 for none; labels int64, -1 for none. `limit` is how far from
    chance the accuracy may lie, five standard errors; NaN accuracy where no row can be judged.
    """
    rng, mixed = np.random.default_rng(seed), train.copy()
    labelled = np.flatnonzero(mixed >= 0)
    mixed[labelled] = mixed[rng.permutation(labelled)]
    known = (nearest >= 0) & (test >= 0)
    known[known] = mixed[nearest[known]] >= 0
    if not known.any():
        return {"accuracy": float("nan"), "chance": float("nan"), "limit": float("nan")}
    shares = [
        np.bincount(labels, minlength=len(EXPRESSIONS)) / len(labels) for labels in (train[labelled], test[known])
    ]
    chance = float(shares[0] @ shares[1])
    answers = mixed[nearest[known]]
    # One training row may answer for many test rows, which then stand or fall together (Kish's effective size).
    answered = np.unique(nearest[known], return_counts=True)[1].astype(float)
    independent = answered.sum() ** 2 / (answered**2).sum()
    return {
        "accuracy": float((answers == test[known]).mean()),
        "chance": chance,
        "limit": float(5 * np.sqrt(chance * (1 - chance) / independent)),
    }


def nearest_answers(nearest: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The label of each test row's nearest training row, int64 (m,); -1 where there is none."""
    if not len(train):
        return np.full(len(nearest), -1, np.int64)
    return np.where(nearest >= 0, train[nearest], -1)
