"""What the scores of a set of edits add up to: for each expression means, and whether stronger codes show more."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from synthfer.gates.edits import BACKGROUND, EXPRESSION, GAIN, IDENTITY

SCORES = (IDENTITY, EXPRESSION, GAIN, BACKGROUND)
_STRENGTH = {"expression": 0, "polar": 1}
_LEAST_ROWS = 3


def totals(rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Of each label: rows, the mean of each of `SCORES` that they have, and `monotonicity`.

    `rows` have label, operation, code and scores (a list of gate and value), as in a dataset; others are passed over.
    """
    found: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        scores = {score["gate"]: score["value"] for score in row["scores"] or () if score["gate"] in SCORES}
        if row["label"] is None or not scores:
            continue
        told = found.setdefault(row["label"], {name: [] for name in (*SCORES, "rows", "strength", "shown")})
        told["rows"].append(1.0)
        for name, value in scores.items():
            told[name].append(value)
        if row["operation"] in _STRENGTH and EXPRESSION in scores:
            told["strength"].append(row["code"][_STRENGTH[row["operation"]]])
            told["shown"].append(scores[EXPRESSION])
    return {label: _summed(found[label]) for label in sorted(found)}


def _summed(told: Mapping[str, list[float]]) -> dict[str, float]:
    summed = {"rows": float(len(told["rows"]))} | {name: float(np.mean(told[name])) for name in SCORES if told[name]}
    order = monotonicity(told["strength"], told["shown"])
    return summed if order is None else summed | {"monotonicity": order}


def monotonicity(strengths: Sequence[float], shown: Sequence[float]) -> float | None:
    """Spearman's rank correlation of two numbers, -1..1; None where either does not vary or there are too few."""
    if len(strengths) < _LEAST_ROWS or len(set(strengths)) < 2 or len(set(shown)) < 2:
        return None
    return float(np.corrcoef(_ranks(strengths), _ranks(shown))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks, those of equal values being their mean, float64 (n,)."""
    _, which, counts = np.unique(np.array(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: np.ndarray = (last - (counts - 1) / 2)[which]
    return means
