"""Rows blended with other rows of their batch: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

Real and synthetic rows may be blended at will, only within their kind, or only across.
"""

import math

import numpy as np
import torch
from torch import Tensor

from synthfer.training.settings import BlendConfig


def blend(
    images: Tensor, targets: Tensor, synthetic: Tensor, config: BlendConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pictures and targets of a batch, blended, or as given where the config asks for no blending.

    `images`: floating point (n, 3, h, w). `targets`: floating point (n, K), rows of sum one; they stay so. `synthetic`:
    bool (n,), best on the CPU. `generator`: on the CPU; one number is drawn from it per call where blending is on.

    Mixup draws one lambda for the batch: each row becomes lambda times itself plus 1 - lambda times its partner.
    CutMix draws one box for the batch: each row shows its partner there, and targets are shared by area. Lambda is
    Beta(alpha, alpha). `ValueError` for pictures that are not floating point or lists of different lengths.
    """
    _check(images, targets, synthetic)
    if config.mixup == config.cutmix == 0:
        return images, targets
    # torch draws no beta numbers from a generator of one's own.
    rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
    if rng.random() >= config.share:
        return images, targets
    cut = config.cutmix > 0 and (config.mixup == 0 or rng.random() < 0.5)
    alpha = config.cutmix if cut else config.mixup
    kept = rng.beta(alpha, alpha)
    partners = torch.from_numpy(partners_of(synthetic.cpu().numpy(), config.partners, rng))
    if cut:
        images, kept = _pasted(images, partners.to(images.device), kept, rng)
    else:
        images = _mixed(images, partners.to(images.device), kept)
    return images, _mixed(targets, partners.to(targets.device), kept)


def partners_of(synthetic: np.ndarray, partners: str, rng: np.random.Generator) -> np.ndarray:
    """The row that each row is blended with, int64 (n,), of rows that are `synthetic`, bool (n,), or real.

    `any`: a permutation. `same`: one within the real and one within the synthetic rows. `other`: a row of the other
    kind, drawn for each row; the row itself where there is none. `ValueError` for another word.
    """
    if partners == "any":
        return rng.permutation(len(synthetic))
    if partners not in ("same", "other"):
        raise ValueError(f"partners {partners!r} are unknown: give any, same or other.")
    chosen = np.arange(len(synthetic))
    kinds = np.flatnonzero(synthetic), np.flatnonzero(~synthetic)
    for own, others in (kinds, kinds[::-1]):
        if partners == "same":
            chosen[own] = rng.permutation(own)
        elif len(others):
            chosen[own] = rng.choice(others, len(own))
    return chosen


def _mixed(rows: Tensor, partners: Tensor, kept: float) -> Tensor:
    """`kept` of each row and the rest of its partner; a row that is its own partner keeps every bit."""
    return torch.lerp(rows[partners], rows, kept)


def _pasted(images: Tensor, partners: Tensor, kept: float, rng: np.random.Generator) -> tuple[Tensor, float]:
    """Pictures with one box of their partners in them, and the share of the area that is still their own.

    The box has the picture's proportions and 1 - `kept` of its area; its centre is anywhere, so that the frame may
    cut it (Yun et al. 2019, section 3.1).
    """
    height, width = images.shape[2:]
    side = math.sqrt(1 - kept)
    top, bottom = _span(height, side, rng)
    left, right = _span(width, side, rng)
    images = images.clone()
    images[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right][partners]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


def _span(length: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """First pixel and end of a stretch of `share` of the length around a random pixel, within the frame."""
    size, centre = int(length * share), int(rng.integers(length))
    start = centre - size // 2
    return max(start, 0), min(start + size, length)


def _check(images: Tensor, targets: Tensor, synthetic: Tensor) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"images: {images.dtype} {tuple(images.shape)}, expected floating point (rows, channels, height, width)."
            " Turn uint8 pictures into floating point first."
        )
    if not len(images) == len(targets) == len(synthetic):
        raise ValueError(
            f"{len(images)} images, {len(targets)} targets and {len(synthetic)} flags of synthetic rows: they must be"
            " of the same rows."
        )
