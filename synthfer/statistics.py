"""How sure is a score, and is one better than another? Intervals, paired tests and their correction, all seeded.

Metrics here are functions of confusion counts, so drawing rows with replacement is drawing cells of the confusion
matrix: a bootstrap (Efron 1979) of 3,068 rows costs as much as one of three million. In the same way a paired
permutation draws how many of the rows, or groups of rows, that are alike are swapped.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import bdtr, betaincinv, stdtrit

from synthfer.expressions import EXPRESSIONS
from synthfer.metrics import Metric, confusion, finite

REPLICATES = 2000
PERMUTATIONS = 10_000

_Z = 1.96  # of a 95 % interval
_TIE = 1e-12  # sums in another order differ by less, scores of different counts by more
_DRAWS_AT_ONCE = 2**22


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number and the bounds of its confidence interval; all NaN where it is not defined."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """Three numbers, NaN as null."""
        return finite(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two classifiers, first and second, on the same rows: `difference` first minus second, two-sided `p`."""

    difference: float
    p: float


def percentile(value: float, replicates: np.ndarray, level: float = 0.95) -> Interval:
    """The interval between the outer percentiles of replicates, float (r,); those that are NaN are left out."""
    known = replicates[~np.isnan(replicates)]
    tail = (1 - level) / 2
    low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (np.nan, np.nan)
    return Interval(value=float(value), low=float(low), high=float(high))


def resampled(counts: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """Counts of as many rows drawn with replacement: int64 (replicates, *counts.shape).

    `counts`: integers of any shape, the rows that are alike counted together. `ValueError` where there is no row.
    """
    counts = np.asarray(counts)
    cells = np.flatnonzero(counts)
    rows = counts.ravel()[cells]
    draws = np.zeros((replicates, counts.size), np.int64)
    draws[:, cells] = np.concatenate(list(_multinomial(rows, replicates, np.random.default_rng(seed))))
    return draws.reshape(replicates, *counts.shape)


def _multinomial(rows: np.ndarray, replicates: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """`replicates` draws of `rows.sum()` among kinds with these `rows`, in blocks that memory holds."""
    if not rows.sum():
        raise ValueError("there is no row to draw from: the counts are all zero.")
    block = max(1, _DRAWS_AT_ONCE // len(rows))
    for start in range(0, replicates, block):
        yield rng.multinomial(rows.sum(), rows / rows.sum(), min(block, replicates - start))


def cluster_bootstrap(
    truth: np.ndarray,
    predicted: np.ndarray,
    groups: np.ndarray,
    metric: Metric,
    classes: int = len(EXPRESSIONS),
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a metric over whole groups of rows (identities, sources), (n,) of any type.

    `truth` and `predicted` integer (n,). With every row a group of its own it is the bootstrap over rows. Of a metric
    of one class, replicates without a row of it are left out.
    """
    names, number = np.unique(groups, return_inverse=True)
    whole = confusion(truth, predicted, classes)
    cells = np.asarray(truth, np.int64) * classes + np.asarray(predicted)
    per_group = np.bincount(number * classes**2 + cells, minlength=len(names) * classes**2).reshape(-1, classes**2)
    # Groups with equal counts are interchangeable: the draw is among the kinds of group.
    kinds, groups_of_kind = np.unique(per_group, axis=0, return_counts=True)
    draws = _multinomial(groups_of_kind, replicates, np.random.default_rng(seed))
    counts = np.concatenate([block @ kinds for block in draws]).reshape(-1, classes, classes)
    return percentile(float(metric(whole)), metric(counts), level)


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> Comparison:
    """McNemar's test of equal accuracy, exact: `right` is bool (n,), the same rows in the same order.

    Of the rows that only one of the two has right, each is as likely to be the first's as the second's.
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    _same_rows(first, second)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    fewer, all_rows = min(only_first, only_second), only_first + only_second
    difference = (only_first - only_second) / len(first)
    return Comparison(difference=difference, p=min(1.0, 2 * float(bdtr(fewer, all_rows, 0.5))))


def _same_rows(*columns: np.ndarray) -> None:
    if len({column.shape for column in columns}) > 1 or not len(columns[0]):
        raise ValueError(f"a paired test needs the same rows of both classifiers, at least one; got "
                         f"{' and '.join(str(column.shape) for column in columns)}.")  # fmt: skip


def paired_permutation(
    truth: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    metric: Metric,
    classes: int = len(EXPRESSIONS),
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> Comparison:
    """Permutation test of an equal metric (macro-F1, balanced accuracy ...) of two classifiers on the same rows.

    `truth` and both predictions integer (n,). Under the hypothesis each row's two predictions may be swapped; where
    rows are not independent (identities, sources), those of all rows of a group at once: `groups`, (n,) of any type.
    p counts the observed order as one of the permutations (Phipson and Smyth 2010), so it is at least 1 /
    (permutations + 1).
    """
    truth, first, second = (np.asarray(column, np.int64) for column in (truth, first, second))
    _same_rows(truth, first, second, *([] if groups is None else [np.asarray(groups)]))
    counts = [confusion(truth, predictions, classes) for predictions in (first, second)]
    moves, alike = _moves(np.stack([truth, first, second]), groups, classes)
    drawn = _swapped(moves, alike, permutations, np.random.default_rng(seed))
    moved = np.concatenate(list(drawn)).reshape(-1, classes, classes)
    differences = metric(counts[0] + moved) - metric(counts[1] - moved)
    difference = float(metric(counts[0]) - metric(counts[1]))
    return Comparison(difference=difference, p=permutation_p(abs(difference), np.abs(differences)))


def _moves(predictions: np.ndarray, groups: np.ndarray | None, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """What a swap does to the first one's counts, int64 (k, K * K), and how many rows or groups do the same, (k,).

    `predictions` int64 (3, n): truth and both predictions.
    """
    differ = predictions[1] != predictions[2]  # a row with two equal predictions changes nothing
    if groups is None:
        kinds, alike = np.unique(predictions[:, differ], axis=1, return_counts=True)
        return _per_group(kinds, np.arange(len(alike)), len(alike), classes), alike
    names, number = np.unique(np.asarray(groups)[differ], return_inverse=True)
    return np.unique(_per_group(predictions[:, differ], number, len(names), classes), axis=0, return_counts=True)


def _per_group(predictions: np.ndarray, number: np.ndarray, groups: int, classes: int) -> np.ndarray:
    """Counts of the second predictions less those of the first, of the rows of each group: int64 (groups, K * K)."""
    cells = number * classes**2 + predictions[0] * classes
    first, second = (np.bincount(cells + predicted, minlength=groups * classes**2) for predicted in predictions[1:])
    return (second - first).reshape(groups, classes**2)


def _swapped(moves: np.ndarray, alike: np.ndarray, draws: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The sums of moves where a fair coin decides about each, int64 (draws, K * K), in blocks that memory holds."""
    block = max(1, _DRAWS_AT_ONCE // max(1, len(alike)))
    for start in range(0, draws, block):
        times = rng.binomial(alike, 0.5, (min(block, draws - start), len(alike)))
        # Whole numbers below 2**53 are exact as floats, whose product is fast.
        yield (times.astype(np.float64) @ moves.astype(np.float64)).astype(np.int64)


def permutation_p(observed: float, drawn: np.ndarray) -> float:
    """Share of draws at least as large as what was observed, which counts as one of them; NaN if it is NaN."""
    if math.isnan(observed):
        return math.nan
    return float((1 + (drawn >= observed - _TIE).sum()) / (1 + len(drawn)))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values corrected for their number (Holm 1979), float64 (m,), in the order given; of any dependence.

    `ValueError` for a p outside [0, 1]: cells that are not compared have to be left out.
    """
    p = np.asarray(p_values, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p-values must lie in [0, 1], got {p.tolist()}: leave out what was not compared.")
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and Student's t interval of a score over training seeds, at least two (`ValueError`)."""
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval over seeds needs at least two of them, got {n}.")
    mean = float(np.mean(values))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(value=mean, low=mean - half, high=mean + half)


def wilson_half_width(share: float, n: int) -> float:
    """Half the width of the 95 % interval of a share of `n` (Wilson 1927)."""
    return float(_Z * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n))


def wilson(successes: int, n: int) -> Interval:
    """A share and its 95 % interval (Wilson 1927); `ValueError` unless 0 <= successes <= n and n > 0."""
    share = _share(successes, n)
    half, shift = wilson_half_width(share, n), wilson_half_width(0, n)
    # The interval of no success is [0, 2 * shift], so its middle is how far the middle moves from a share of 0.
    middle = share * (1 - 2 * shift) + shift
    return Interval(value=share, low=max(0.0, middle - half), high=min(1.0, middle + half))


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """A share and its exact interval (Clopper and Pearson 1934), which holds it at least as often as `level` says.

    For small counts and shares near 0 or 1; `ValueError` as of `wilson`.
    """
    share, tail = _share(successes, n), (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return Interval(value=share, low=low, high=high)


def _share(successes: int, n: int) -> float:
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is not a share: give 0 to n successes of n > 0.")
    return successes / n
