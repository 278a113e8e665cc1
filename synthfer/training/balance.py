"""Rare classes: how much more their rows weigh, how much more often they are drawn, and when both are done at once.

Weights by effective number of rows follow Cui et al., "Class-balanced loss based on effective number of samples" (CVPR
2019). Drawing in proportion to a power of the class size is between drawing rows alike (q = 0) and classes alike
(q = 1).
"""

from collections.abc import Sequence

import numpy as np

from synthfer.expressions import EXPRESSIONS
from synthfer.training.settings import TrainConfig

_LATE = 0.5  # class weights that begin in the second half of the steps are deferred (DRW), as LDAM wants them


def checked_counts(counts: np.ndarray, names: Sequence[str] = EXPRESSIONS) -> np.ndarray:
    """Rows of each class as float64 (K,), all above 0, in the order of `names`.

    `ValueError` where there is not one count for each name, or names the classes that have no row.
    """
    counts = np.asarray(counts, np.float64)
    if counts.shape != (len(names),):
        raise ValueError(f"counts: shape {counts.shape}, expected one for each of {', '.join(names)}.")
    if missing := [name for name, rows in zip(names, counts, strict=True) if not rows > 0]:
        raise ValueError(
            f"no training row has the class {', '.join(missing)}, so that it cannot be weighed against the others. Add"
            " rows of it, or set loss.class_weights=none, loss.logit_adjustment=0 and a loss.name other than ldam."
        )
    return counts


def class_weights(kind: str, counts: np.ndarray, beta: float, names: Sequence[str] = EXPRESSIONS) -> np.ndarray:
    """The weight of a row of each class, float64 (K,), of sum K.

    `counts`: rows of each class, int64 (K,). `none`: all 1. `class_balanced`: (1 - beta) / (1 - beta^n) (Cui et al.
    2019, with their normalisation), with `beta` in [0, 1): 0 weighs all alike, towards 1 it is `inverse`:
    1 / n. `ValueError` for another kind or beta, and, unless `none`, as of `checked_counts`.
    """
    if kind == "none":
        return np.ones(len(counts))
    rows = checked_counts(counts, names)
    if kind == "class_balanced":
        if not 0 <= beta < 1:
            raise ValueError(f"beta is {beta}: class_balanced needs one from 0 to below 1; for 1 take inverse.")
        weights = (1 - beta) / (1 - beta**rows)
    elif kind == "inverse":
        weights = 1 / rows
    else:
        raise ValueError(f"class weights {kind!r} are unknown: give none, class_balanced or inverse.")
    return weights * len(rows) / weights.sum()


def draw_weights(labels: np.ndarray, power: float) -> np.ndarray:
    """The probability of drawing each row, float64 (n,) of sum one, alike within a class.

    A class of n rows is drawn in proportion to n^(1 - power). `labels`: integers (n,), each at least 0. `ValueError`
    for no row, or for a row without a label (-1).
    """
    labels = np.asarray(labels)
    if not len(labels):
        raise ValueError("labels: there is no row to draw.")
    if (labels < 0).any():
        row = int((labels < 0).argmax())
        raise ValueError(f"labels: row {row} is {labels[row]}, not a class: leave out rows without a label.")
    _, which, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = counts[which] ** -float(power)
    return weights / weights.sum()


def double_corrections(config: TrainConfig) -> list[str]:
    """One sentence for each pair of settings that both favour rare classes, and which of the two to leave out.

    LDAM with class weights that begin late (DRW) is no such pair: Cao et al. (2019) train so.
    """
    loss, q, tau = config.loss, config.sampler_power, config.loss.logit_adjustment
    kind = loss.class_weights
    sampler = f"sampler_power={q:g} draws rare classes more often" if q > 0 else ""
    weights = f"loss.class_weights={kind} gives rare classes heavier rows" if kind != "none" else ""
    prior = f"loss.logit_adjustment={tau:g} takes out the class frequencies" if tau > 0 else ""
    margins = "loss.name=ldam gives rare classes wider margins" if loss.name == "ldam" and loss.margin > 0 else ""
    spread = f"loss.smoothing={loss.smoothing:g} asks for rare classes in every row" if loss.smoothing > 0 else ""
    early = weights if loss.reweight_from < _LATE else ""
    pairs = (
        (sampler, weights, "leave out the weights (loss.class_weights=none)"),
        (sampler, prior, "leave out the sampler (sampler_power=0)"),
        (sampler, margins, "leave out the sampler (sampler_power=0)"),
        (weights, prior, "leave out the weights (loss.class_weights=none)"),
        (margins, early, "begin with the weights late (loss.reweight_from=0.8)"),
        (prior, spread, "set loss.smoothing=0"),
        (margins, prior, "leave out the adjustment (loss.logit_adjustment=0)"),
    )
    message = "{} and {}: the imbalance is corrected twice; {}."
    return [message.format(*pair) for pair in pairs if all(pair)]
