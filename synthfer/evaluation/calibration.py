"""Does a probability of 0.8 mean right in 80 % of cases? Calibration errors and the table behind them.

Expected calibration error with bins of equal width as in Guo et al. 2017, with bins of equal mass as in Nixon et al.
2019, per class as in Kull et al. 2019.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from synthfer.metrics import checked, confusion, finite

Binning = Literal["width", "mass"]
BINS = 15


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Rows by confidence. Per bin: `upper` bound, `rows`, mean `confidence`, share `right` (NaN in an empty bin)."""

    upper: tuple[float, ...]
    rows: tuple[int, ...]
    confidence: tuple[float, ...]
    right: tuple[float, ...]

    @property
    def error(self) -> float:
        """Expected calibration error: mean over rows of their bin's |right - confidence|, 0..1; NaN without rows."""
        rows = np.array(self.rows, np.float64)
        gaps = np.abs(np.array(self.right) - np.array(self.confidence))
        return float(np.nansum(gaps * rows) / rows.sum()) if rows.sum() else float("nan")

    def to_json(self) -> dict[str, Any]:
        """The table and its error, NaN as null."""
        return finite({**asdict(self), "error": self.error})


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS, binning: Binning = "width") -> Reliability:
    """The reliability table of confidences, float (n,) in [0, 1], and what came true, bool (n,).

    Bins of equal `width` include their upper bound. Bins of equal `mass` hold as many rows each as equal confidences
    allow, which always share a bin: the table does not depend on the order of rows. `ValueError` for another binning,
    for fewer than one bin and for values outside [0, 1].
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    if bins < 1 or binning not in ("width", "mass"):
        raise ValueError(f"{bins} bins of equal {binning!r}: at least one bin of equal 'width' or 'mass' is needed.")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidence must lie in [0, 1]; logits go through softmax first.")
    upper = np.arange(1, bins + 1) / bins
    if binning == "mass" and len(confidence):
        until = -(-np.arange(1, bins + 1) * len(confidence) // bins)
        upper = np.sort(confidence)[until - 1]
    number = np.minimum(np.searchsorted(upper, confidence, side="left"), bins - 1)
    rows = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        shares = [np.bincount(number, values, bins) / rows for values in (confidence, right)]
    return Reliability(
        upper=tuple(upper.tolist()),
        rows=tuple(rows.tolist()),
        confidence=tuple(shares[0].tolist()),
        right=tuple(shares[1].tolist()),
    )


def of_predictions(probs: np.ndarray, truth: np.ndarray, bins: int = BINS, binning: Binning = "width") -> Reliability:
    """The reliability table of the most probable class: `probs` (n, K), `truth` integer (n,).

    Its `error` is the ECE.
    """
    probs, truth = checked(probs), np.asarray(truth)
    predicted = probs.argmax(1)
    confusion(truth, predicted, probs.shape[1])
    return reliability(np.minimum(probs.max(1), 1), predicted == truth, bins, binning)


def classwise_error(probs: np.ndarray, truth: np.ndarray, bins: int = BINS, binning: Binning = "width") -> np.ndarray:
    """Calibration error of each class's own probability, float64 (K,); its mean is the classwise ECE.

    Leave out the columns of masked classes before taking the mean.
    """
    probs, truth = np.minimum(checked(probs), 1), np.asarray(truth)
    confusion(truth, probs.argmax(1), probs.shape[1])
    return np.array([reliability(p, truth == c, bins, binning).error for c, p in enumerate(probs.T)])
