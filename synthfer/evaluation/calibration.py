"""Does a probability of 0.8 mean right in 80 % of cases? Calibration errors, the table behind them, one temperature.

Expected calibration error with bins of equal width as in Guo et al. 2017, with bins of equal mass as in Nixon et al.
2019, per class as in Kull et al. 2019; temperature scaling as in Guo et al. 2017.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from synthfer.metrics import checked, confusion, finite

Binning = Literal["width", "mass"]
BINS = 15
TEMPERATURES = (0.01, 100.0)
"""Where a temperature is looked for. The lower end is the answer where every row is right, so that sharper is always
better; the upper end where the logits are worse than no logits."""

_STEPS = 100


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
    allow, which are never torn apart: the table does not depend on the order of rows. `ValueError` for another binning,
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
    place = np.minimum(np.searchsorted(upper, confidence, side="left"), bins - 1)
    rows = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        shares = [np.bincount(place, values, bins) / rows for values in (confidence, right)]
    return Reliability(
        upper=tuple(upper.tolist()),
        rows=tuple(rows.tolist()),
        confidence=tuple(shares[0].tolist()),
        right=tuple(shares[1].tolist()),
    )


def of_answers(probs: np.ndarray, truth: np.ndarray, bins: int = BINS, binning: Binning = "width") -> Reliability:
    """The reliability table of the most probable class: `probs` (n, K), `truth` integer (n,).

    Its `error` is the ECE.
    """
    probs, truth = checked(probs), np.asarray(truth)
    answers = probs.argmax(1)
    confusion(truth, answers, probs.shape[1])
    return reliability(np.minimum(probs.max(1), 1), answers == truth, bins, binning)


def classwise_error(probs: np.ndarray, truth: np.ndarray, bins: int = BINS, binning: Binning = "width") -> np.ndarray:
    """Calibration error of each class's own probability, float64 (K,); its mean is the classwise ECE.

    Columns that were masked tell nothing and are to be taken out before the mean.
    """
    probs, truth = np.minimum(checked(probs), 1), np.asarray(truth)
    confusion(truth, probs.argmax(1), probs.shape[1])
    return np.array([reliability(p, truth == c, bins, binning).error for c, p in enumerate(probs.T)])


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities float64 (n, K) of logits (n, K) divided by `temperature` > 0."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature in `TEMPERATURES` that makes the rows most likely: to be fitted on validation rows alone.

    `logits` finite (n, K), `truth` integer (n,). The loss is convex in 1/temperature, so its slope has one zero: Newton
    steps find it, halving where a step would leave the bracket. `ValueError` without rows or for logits not finite.
    """
    logits, truth = np.asarray(logits, np.float64), np.asarray(truth)
    if not len(logits) or not np.isfinite(logits).all():
        raise ValueError(f"a temperature needs finite logits; got {logits.shape}. Take masked columns out first.")
    confusion(truth, logits.argmax(1), logits.shape[1])
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if _slope(logits, truth, low)[0] >= 0:
        return TEMPERATURES[1]
    if _slope(logits, truth, high)[0] <= 0:
        return TEMPERATURES[0]
    inverse = 1.0
    for _ in range(_STEPS):
        slope, curvature = _slope(logits, truth, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-12 * inverse:
            break
        inverse = following
    return float(1 / inverse)


def _slope(logits: np.ndarray, truth: np.ndarray, inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log likelihood by 1/temperature."""
    probs = softmax(logits, 1 / inverse)
    mean = (probs * logits).sum(1)
    spread = (probs * (logits - mean[:, None]) ** 2).sum(1)
    return float((mean - logits[np.arange(len(logits)), truth]).mean()), float(spread.mean())
