"""Scores of a classifier: from confusion counts (integers, so parts add up exactly) and from probabilities.

A confusion matrix has truth in its rows and predictions in its columns. Every metric of counts takes `(..., K, K)`, so
that two thousand bootstrap replicates are scored at once. One rule for classes without any true row: their recall,
precision and F1 are NaN and the means over classes leave them out, so that a test set without contempt is not scored
on contempt; predictions of such a class still count as wrong. A class that has rows and is never predicted has
precision 0.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from synthfer.expressions import EXPRESSIONS

Metric = Callable[[np.ndarray], np.ndarray]
"""Confusion counts `(..., K, K)` to one float64 number each, `(...)`."""

_ROW_SUM_TOLERANCE = 1e-3  # of probabilities; half-precision softmax is that far from one
_UNIT = 2.0**-40  # losses are summed as integers of this unit: exact, so the same for any number of workers


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int = len(EXPRESSIONS)) -> np.ndarray:
    """Confusion counts, int64 (K, K), rows = truth; of expression indices, integer (n,), each in 0..K-1.

    Counts of parts of a test set add up to those of the whole. `ValueError` where lengths differ or an index is out of
    range: rows without a label (-1) have to be left out first.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"truth {truth.shape} and predicted {predicted.shape} must be one list of the same length.")
    for name, indices in (("truth", truth), ("predicted", predicted)):
        wrong = np.flatnonzero((indices < 0) | (indices >= classes))
        if len(wrong):
            raise ValueError(f"{name}: row {wrong[0]} is {indices[wrong[0]]}, not a class 0..{classes - 1} (in all "
                             f"{len(wrong):,} rows): leave out rows without a label.")  # fmt: skip
    cells = truth.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)


def _parts(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right predictions, true rows and predictions of each class, all (..., K)."""
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)


def recall(counts: np.ndarray) -> np.ndarray:
    """Share of each class's rows that were predicted right, float64 (..., K); NaN for a class without rows."""
    right, rows, _ = _parts(counts)
    return _ratio(right, rows)


def precision(counts: np.ndarray) -> np.ndarray:
    """Share of each class's predictions that are right, float64 (..., K); 0 if never predicted, NaN without rows."""
    right, rows, predictions = _parts(counts)
    return np.where(rows > 0, right / np.maximum(predictions, 1), np.nan)


def f1(counts: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall of each class, float64 (..., K); NaN for a class without rows."""
    right, rows, predictions = _parts(counts)
    return np.where(rows > 0, 2 * right / np.maximum(rows + predictions, 1), np.nan)


def accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of right predictions, float64 (...); NaN without rows."""
    right, rows, _ = _parts(counts)
    return _ratio(right.sum(-1), rows.sum(-1))


def _over_present(values: np.ndarray) -> np.ndarray:
    return _ratio(np.nansum(values, -1), (~np.isnan(values)).sum(-1))


def balanced_accuracy(counts: np.ndarray) -> np.ndarray:
    """Mean recall of the classes that have rows, float64 (...)."""
    return _over_present(recall(counts))


def macro_f1(counts: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that have rows, float64 (...)."""
    return _over_present(f1(counts))


def weighted_f1(counts: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes, weighted by their rows, float64 (...)."""
    rows = counts.sum(-1)
    return _ratio(np.nansum(f1(counts) * rows, -1), rows.sum(-1))


def cohen_kappa(counts: np.ndarray) -> np.ndarray:
    """Agreement beyond chance (Cohen 1960), float64 (...) in [-1, 1]; NaN where chance alone agrees fully."""
    right, rows, predictions = _parts(counts)
    total = rows.sum(-1, keepdims=True)
    chance = (_ratio(rows, total) * _ratio(predictions, total)).sum(-1)
    return _ratio(_ratio(right.sum(-1), total[..., 0]) - chance, 1 - chance)


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "weighted_f1": weighted_f1,
    "cohen_kappa": cohen_kappa,
}


def finite(value: Any) -> Any:
    """`value` as JSON has it: NaN is None, tuples are lists, also within dicts and lists."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@dataclass(frozen=True, kw_only=True)
class Scores:
    """All scores of confusion counts. Per class, in the order of `names`: recall, precision, F1, `support` (true rows).

    Shares in [0, 1]; per-class numbers are NaN for a class without rows, which the means leave out.
    """

    names: tuple[str, ...]
    rows: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    weighted_f1: float
    cohen_kappa: float
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    f1: tuple[float, ...]
    support: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, NaN as null."""
        return finite(asdict(self))


def scores(counts: np.ndarray, names: Sequence[str] = EXPRESSIONS) -> Scores:
    """The scores of confusion counts, integer (K, K) with rows = truth; `ValueError` for anything else."""
    counts = np.asarray(counts)
    if counts.shape != (len(names), len(names)) or not np.issubdtype(counts.dtype, np.integer) or counts.min() < 0:
        raise ValueError(f"confusion counts must be integers >= 0 of shape ({len(names)}, {len(names)}), one row and "
                         f"column for each of {', '.join(names)}; got {counts.dtype} {counts.shape}.")  # fmt: skip
    return Scores(
        names=tuple(names),
        rows=int(counts.sum()),
        **{name: float(metric(counts)) for name, metric in METRICS.items()},
        recall=tuple(recall(counts).tolist()),
        precision=tuple(precision(counts).tolist()),
        f1=tuple(f1(counts).tolist()),
        support=tuple(counts.sum(1).tolist()),
        confusion=tuple(map(tuple, counts.tolist())),
    )


def checked(probs: np.ndarray) -> np.ndarray:
    """Probabilities as float64 (n, K); `ValueError` names the first row that is not finite, >= 0 and of sum one."""
    probs = np.asarray(probs, np.float64)
    if probs.ndim != 2:
        raise ValueError(f"probabilities must have shape (rows, classes), not {probs.shape}.")
    good = (probs >= 0).all(1) & (np.abs(probs.sum(1) - 1) <= _ROW_SUM_TOLERANCE)
    if not good.all():
        row = int(good.argmin())
        raise ValueError(f"probabilities: row {row} is {probs[row].tolist()}; numbers >= 0 of sum 1 are needed. "
                         "Logits go through softmax first.")  # fmt: skip
    return probs


@dataclass(frozen=True, kw_only=True)
class ProbabilitySums:
    """Sums over rows: hits of the two most probable classes, log loss and Brier score in units of 2**-40.

    Integers, so that sums of parts are exactly the sum of the whole, in any order.
    """

    rows: int
    top2_hits: int
    nll_units: int
    brier_units: int

    def __add__(self, other: "ProbabilitySums") -> "ProbabilitySums":
        """The sums of both parts."""
        names = (field.name for field in fields(self))
        return ProbabilitySums(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def _mean(self, total: float) -> float:
        return total / self.rows if self.rows else math.nan

    @property
    def top2(self) -> float:
        """Share of rows whose truth is among the two most probable classes; NaN without rows."""
        return self._mean(self.top2_hits)

    @property
    def nll(self) -> float:
        """Mean negative log likelihood of the truth, in nats; 0..36, as probabilities under 2.2e-16 count as that."""
        return self._mean(self.nll_units * _UNIT)

    @property
    def brier(self) -> float:
        """Mean over rows of the squared distance from the truth's one-hot vector (Brier 1950), 0..2."""
        return self._mean(self.brier_units * _UNIT)

    def to_json(self) -> dict[str, Any]:
        """Rows and means, NaN as null."""
        return finite({"rows": self.rows, "top2": self.top2, "nll": self.nll, "brier": self.brier})


def probability_sums(probs: np.ndarray, truth: np.ndarray) -> ProbabilitySums:
    """Sums over rows of probabilities (n, K) for their true classes, integer (n,) in 0..K-1.

    Of equal probabilities the lower class ranks first, as in argmax. `ValueError` as of `checked` and `confusion`.
    """
    probs = checked(probs)
    confusion(truth, probs.argmax(1), probs.shape[1])
    of_truth = probs[np.arange(len(probs)), truth]
    before = np.arange(probs.shape[1]) < np.asarray(truth)[:, None]
    rank = (probs > of_truth[:, None]).sum(1) + ((probs == of_truth[:, None]) & before).sum(1)
    nll = -np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1))
    brier = (probs**2).sum(1) - 2 * of_truth + 1
    return ProbabilitySums(
        rows=len(probs), top2_hits=int((rank < 2).sum()), nll_units=_units(nll), brier_units=_units(brier)
    )


def _units(values: np.ndarray) -> int:
    return sum(np.rint(values / _UNIT).astype(np.int64).tolist())


def masked(probs: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Probabilities without the classes that a test set does not have: float64 (n, K), 0 there, sum one.

    The same as softmax over the logits of the present classes. `present`: bool (K,). `ValueError` names a row that
    gives no probability to any present class.
    """
    probs, present = checked(probs), np.asarray(present, bool)
    kept = np.where(present, probs, 0.0)
    total = kept.sum(1, keepdims=True)
    if (total == 0).any():
        raise ValueError(f"probabilities: row {int((total == 0).argmax())} has none in the classes "
                         f"{np.flatnonzero(present).tolist()}: mask the logits before softmax.")  # fmt: skip
    return kept / total
