"""What is minimised: losses of logits against target distributions, and the pull of synthetic features to real ones.

Cross-entropy with label smoothing (Szegedy et al. 2016), focal loss (Lin et al. 2017), label-distribution-aware margins
(LDAM, Cao et al. 2019), logit adjustment (Menon et al. 2021; with tau = 1 it is the balanced softmax of Ren et al.
2020) and the real-guided intra-class loss of FESGAN (arXiv 2002.02194). A target is always a distribution over the
classes, so that hard labels, soft labels and blended rows are one case.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from synthfer.expressions import EXPRESSIONS
from synthfer.training.balance import checked_counts, class_weights
from synthfer.training.settings import LossConfig


class Criterion(nn.Module):
    """The loss of each row, from logits and target distributions.

    `counts`: rows of each class in the training data, int64 (K,), in the order of `names`. They are needed where
    classes are treated differently: `ValueError` if such a setting meets a class without rows. It moves itself to the
    device of the logits, and its state dict is empty.
    """

    def __init__(self, config: LossConfig, counts: np.ndarray, names: Sequence[str] = EXPRESSIONS) -> None:
        super().__init__()
        self.config = config
        weights = class_weights(config.class_weights, counts, config.beta, names)
        margins, shift = np.zeros(len(names)), np.zeros(len(names))
        if config.name == "ldam":
            rarity = checked_counts(counts, names) ** -0.25
            margins = config.scale * config.margin * rarity / rarity.max()
        if config.logit_adjustment > 0:
            rows = checked_counts(counts, names)
            shift = config.logit_adjustment * np.log(rows / rows.sum())
        for name, values in (("_weights", weights), ("_margins", margins), ("_shift", shift)):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32), persistent=False)
        self._weights: Tensor
        self._margins: Tensor
        self._shift: Tensor

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None, *, reweighted: bool) -> Tensor:
        """The loss of each row (n,), in float32 whatever autocast says; in float64 for float64 logits.

        `logits`, (n, K): those of the network, for ldam `scale` times cosines. `targets`, floating point (n, K): rows
        >= 0 of sum one, not yet smoothed. `weights`, (n,): factors on single rows. `reweighted`: whether class weights
        hold by now (deferred re-weighting, DRW). `config.factor` is in. `ValueError` for shapes that do not fit.

        The step's loss is the sum over the global batch divided by its rows, which is the caller's to take. It is not
        divided by the sum of the weights: a row would then weigh less beside heavy rows than beside light ones, a
        batch of one class would lose its weight altogether, and each worker would divide by another number.
        """
        self._check(logits, targets, weights)
        self.to(logits.device)
        config, wide = self.config, torch.promote_types(logits.dtype, torch.float32)
        logits, targets = logits.to(wide), targets.to(wide)
        log_probs = (logits + self._shift - self._margins * targets).log_softmax(1)
        smoothed = (1 - config.smoothing) * targets + config.smoothing / targets.shape[1]
        terms = -smoothed * log_probs
        if config.name == "focal":
            terms = terms * _complement(log_probs) ** config.gamma
        losses = config.factor * terms.sum(1)
        if reweighted:
            # A product of matrices would be taken in autocast's short floats.
            losses = losses * (targets * self._weights).sum(1)
        return losses if weights is None else losses * weights.to(wide)

    def _check(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> None:
        classes = len(self._weights)
        if logits.ndim != 2 or logits.shape != targets.shape or logits.shape[1] != classes:
            raise ValueError(
                f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} must both be (rows, {classes}): a"
                " label is given as its one-hot row."
            )
        if weights is not None and weights.shape != logits.shape[:1]:
            raise ValueError(f"weights {tuple(weights.shape)}: expected one for each of {len(logits)} rows.")


def _complement(log_probs: Tensor) -> Tensor:
    """1 - p from log p, above 0: a power below one has no finite slope at 0, where sure rows would give NaN."""
    return (-torch.expm1(log_probs)).clamp_min(torch.finfo(log_probs.dtype).tiny)


def intra_class(features: Tensor, labels: Tensor, synthetic: Tensor) -> Tensor:
    """The real-guided intra-class loss (arXiv 2002.02194), one number in float32, or float64 for float64 features.

    The mean squared distance over all pairs of real rows of one class, plus that over all pairs of a synthetic and a
    real row of one class, where the real row stands still: synthetic faces are drawn to real ones and never the
    other way. A term without pairs is 0 and gives zero gradients.

    `features`: (n, d), of pictures that are not blended. `labels`: integers (n,); rows below 0 have no class and no
    pair. `synthetic`: bool (n,). Pairs are those within the batch at hand. `ValueError` for shapes that do not fit.
    """
    if not features.shape[:1] == labels.shape == synthetic.shape:
        raise ValueError(
            f"features {tuple(features.shape)}, labels {tuple(labels.shape)} and synthetic {tuple(synthetic.shape)}:"
            " expected (n, d), (n,) and (n,)."
        )
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        real = (labels >= 0) & ~synthetic
        fellows = ((labels[:, None] == labels) & real).to(features.dtype)
        count = fellows.sum(1)
        mean = fellows / count.clamp_min(1)[:, None]
        centres = mean @ features
        spread = _squared(features - centres)
        # No pair has to be written out: from a point x to n points the mean squared distance is |x - centre|^2 plus
        # their own mean squared distance to the centre; over their own pairs it sums to n times that of all of them.
        among_real = (real * count * spread).sum() / (real * (count - 1)).sum().div(2).clamp_min(1)
        to_real = _squared(features - centres.detach()) + mean @ (real * spread.detach())
        return among_real + (synthetic * count * to_real).sum() / (synthetic * count).sum().clamp_min(1)


def _squared(rows: Tensor) -> Tensor:
    """Squared lengths (n,) of rows (n, d)."""
    return (rows * rows).sum(1)
