"""Is a classifier as good for one group of people as for another? Rates per group, gaps between groups, their chance.

Groups are values of an attribute that somebody perceived or a model guessed, not what people are. A gap is a largest
difference, so it is above zero by chance alone and the more so the smaller the groups: its interval gives its size,
only its p-value says whether there is one. The p-values permute the groups' names over the rows. For equalised odds
they permute within each true class: that groups show different expressions is not the classifier's unfairness.

Equalised odds as in Hardt et al. 2016, each class against the rest, the difference as fairlearn defines it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from synthfer.expressions import EXPRESSIONS
from synthfer.metrics import accuracy, balanced_accuracy, confusion, finite, recall
from synthfer.statistics import REPLICATES, Interval, percentile, permutation_p, resampled, wilson

MIN_ROWS = 30


@dataclass(frozen=True, kw_only=True)
class Group:
    """One group's rates: `accuracy` with its 95 % Wilson interval, true and false positive rate of each class.

    NaN where the group has no row of the class, or none of another class.
    """

    name: str
    rows: int
    accuracy: Interval
    balanced_accuracy: float
    true_positive_rate: tuple[float, ...]
    false_positive_rate: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A gap between groups, its 95 % bootstrap interval, and the `p` of one as bad if the groups' names meant nothing.

    All NaN where fewer than two groups are compared.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """Groups in the order of their names, and gaps by the names of `GAPS`.

    `too_small`: groups with fewer than the wanted rows, with their rows; `unknown`: rows without a value. Both are in
    no group and in no gap.
    """

    groups: tuple[Group, ...]
    gaps: Mapping[str, Gap]
    too_small: Mapping[str, int]
    unknown: int

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and lists, NaN as null."""
        return finite(asdict(self))


def false_positive_rate(counts: np.ndarray) -> np.ndarray:
    """Share of the rows of other classes that were predicted as each class, float64 (..., K); NaN without such rows."""
    right, rows, predictions = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)
    others = rows.sum(-1, keepdims=True) - rows
    return np.where(others > 0, (predictions - right) / np.maximum(others, 1), np.nan)


def _spread(rates: np.ndarray, axis: int) -> np.ndarray:
    """Largest minus smallest over groups, NaN where fewer than two have a rate."""
    known = ~np.isnan(rates)
    highest, lowest = (np.where(known, rates, end) for end in (-np.inf, np.inf))
    with np.errstate(invalid="ignore"):
        return np.where(known.sum(axis) > 1, highest.max(axis) - lowest.min(axis), np.nan)


def _largest(gaps: np.ndarray) -> np.ndarray:
    known = np.where(np.isnan(gaps), -np.inf, gaps).max(-1)
    return np.where(np.isinf(known), np.nan, known)


def equalized_odds_difference(counts: np.ndarray) -> np.ndarray:
    """Largest gap between groups in any class's true or false positive rate; counts (..., G, K, K) to (...)."""
    rates = np.concatenate([recall(counts), false_positive_rate(counts)], -1)
    return _largest(_spread(rates, -2))


def demographic_parity_difference(counts: np.ndarray) -> np.ndarray:
    """Largest gap between groups in the share of predictions that any class gets; counts (..., G, K, K) to (...)."""
    rows = counts.sum((-2, -1))[..., None]
    shares = np.where(rows > 0, counts.sum(-2) / np.maximum(rows, 1), np.nan)
    return _largest(_spread(shares, -2))


def accuracy_range(counts: np.ndarray) -> np.ndarray:
    """Accuracy of the best minus that of the worst group; counts (..., G, K, K) to (...)."""
    return _spread(accuracy(counts), -1)


def lowest_accuracy(counts: np.ndarray) -> np.ndarray:
    """Accuracy of the worst group; counts (..., G, K, K) to (...)."""
    return -_largest(-accuracy(counts))


@dataclass(frozen=True)
class _Kind:
    """How a gap is computed, whether its p-value permutes within true classes, and the sign that makes larger worse."""

    of: Callable[[np.ndarray], np.ndarray]
    within_class: bool = False
    sign: int = 1


GAPS = {
    "equalized_odds_difference": _Kind(equalized_odds_difference, within_class=True),
    "demographic_parity_difference": _Kind(demographic_parity_difference),
    "accuracy_range": _Kind(accuracy_range),
    "lowest_accuracy": _Kind(lowest_accuracy, sign=-1),
}


def assess(
    truth: np.ndarray,
    predicted: np.ndarray,
    values: Sequence[str | None],
    classes: int = len(EXPRESSIONS),
    min_rows: int = MIN_ROWS,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Fairness:
    """Rates and gaps of the groups that `values` name: one value per row, None where it is not known.

    `truth` and `predicted` integer (n,). `replicates` is the number of bootstrap and of permutation draws, both over
    rows: where a person has many of them, take one each. `ValueError` as of `confusion`, or for another number of
    values than rows.
    """
    if len(values) != len(truth):
        raise ValueError(f"{len(values):,} attribute values for {len(truth):,} rows: one value per row is needed.")
    names, counts = _counts(np.asarray(truth), np.asarray(predicted), values, classes)
    rows = counts.sum((1, 2))
    large = rows >= min_rows
    compared = counts[large]
    return Fairness(
        groups=tuple(_group(name, table) for name, table in zip(np.array(names)[large], compared, strict=True)),
        gaps=_gaps(compared, replicates, seed),
        too_small={name: int(n) for name, n, kept in zip(names, rows, large, strict=True) if not kept},
        unknown=sum(value is None for value in values),
    )


def _counts(
    truth: np.ndarray, predicted: np.ndarray, values: Sequence[str | None], classes: int
) -> tuple[list[str], np.ndarray]:
    """Groups by name, and their confusion counts, int64 (G, K, K)."""
    confusion(truth, predicted, classes)
    names = sorted({value for value in values if value is not None})
    index: dict[str | None, int] = {name: number for number, name in enumerate(names)}
    number = np.array([index.get(value, -1) for value in values], np.int64)
    cells = (number * classes + truth) * classes + predicted
    counts = np.bincount(cells[number >= 0], minlength=len(names) * classes**2)
    return names, counts.reshape(-1, classes, classes).astype(np.int64)


def _group(name: str, counts: np.ndarray) -> Group:
    return Group(
        name=str(name),
        rows=int(counts.sum()),
        accuracy=wilson(int(np.trace(counts)), int(counts.sum())),
        balanced_accuracy=float(balanced_accuracy(counts)),
        true_positive_rate=tuple(recall(counts).tolist()),
        false_positive_rate=tuple(false_positive_rate(counts).tolist()),
    )


def _gaps(counts: np.ndarray, replicates: int, seed: int) -> dict[str, Gap]:
    if len(counts) < 2:
        return {name: Gap(value=np.nan, low=np.nan, high=np.nan, p=np.nan) for name in GAPS}
    drawn = resampled(counts, replicates, seed)
    rng = np.random.default_rng([seed, 1])
    groups, classes, _ = counts.shape
    over_all_rows = _permuted(counts.reshape(groups, -1), replicates, rng).reshape(-1, *counts.shape)
    within_classes = np.stack([_permuted(counts[:, c], replicates, rng) for c in range(classes)], 2)
    gaps = {}
    for name, kind in GAPS.items():
        permuted = kind.of(within_classes if kind.within_class else over_all_rows)
        interval = percentile(float(kind.of(counts)), kind.of(drawn))
        p = permutation_p(kind.sign * interval.value, kind.sign * permuted)
        gaps[name] = Gap(value=interval.value, low=interval.low, high=interval.high, p=p)
    return gaps


def _permuted(counts: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Counts (G, cells) when rows are assigned at random to groups of the same sizes: int64 (draws, G, cells)."""
    left = np.tile(counts.sum(0), (draws, 1))
    permuted = np.zeros((draws, *counts.shape), np.int64)
    for group, size in enumerate(counts.sum(1)[:-1]):
        wanted, rest = np.full(draws, size), left.sum(1)
        for cell in np.flatnonzero(counts.sum(0)):
            rest -= left[:, cell]
            permuted[:, group, cell] = rng.hypergeometric(left[:, cell], rest, wanted)
            wanted -= permuted[:, group, cell]
        left -= permuted[:, group]
    permuted[:, -1] = left
    return permuted
