"""The scores of a set of edits summed up: for each expression their means, and whether stronger codes show more."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from synthfer.gates.edits import BACKGROUND, EXPRESSION, GAIN, IDENTITY

SCORES = (IDENTITY, EXPRESSION, GAIN, BACKGROUND)
_STRENGTH = {"expression": 0, "polar": 1}
"""Operations whose code says how strong an expression should be, and where in the code it stands."""
_LEAST_ROWS = 3


def totals(rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Of each label: the number of rows, the mean of each of `SCORES` that they have, and `monotonicity`.

    `rows` have label, operation, code and scores (a list of gate and value), as in a dataset; rows without a label or
    such scores are ignored.
    """
    columns: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        scores = {score["gate"]: score["value"] for score in row["scores"] or () if score["gate"] in SCORES}
        if row["label"] is None or not scores:
            continue
        values = columns.setdefault(row["label"], {name: [] for name in (*SCORES, "rows", "strength", "shown")})
        values["rows"].append(1.0)
        for name, value in scores.items():
            values[name].append(value)
        if row["operation"] in _STRENGTH and EXPRESSION in scores:
            values["strength"].append(row["code"][_STRENGTH[row["operation"]]])
            values["shown"].append(scores[EXPRESSION])
    return {label: _summary(columns[label]) for label in sorted(columns)}


def _summary(values: Mapping[str, list[float]]) -> dict[str, float]:
    means = {name: float(np.mean(values[name])) for name in SCORES if values[name]}
    correlation = monotonicity(values["strength"], values["shown"])
    order = {} if correlation is None else {"monotonicity": correlation}
    return {"rows": float(len(values["rows"])), **means, **order}


def monotonicity(strengths: Sequence[float], shown: Sequence[float]) -> float | None:
    """Spearman's rank correlation of two numbers, -1..1; None where either does not vary or there are too few."""
    if len(strengths) < _LEAST_ROWS or len(set(strengths)) < 2 or len(set(shown)) < 2:
        return None
    return float(np.corrcoef(_ranks(strengths), _ranks(shown))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks, float64 (n,); equal values share the mean of theirs."""
    _, which, counts = np.unique(np.array(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: np.ndarray = (last - (counts - 1) / 2)[which]
    return means
