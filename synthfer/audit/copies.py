"""Augmented copies: test pictures that are in the training data turned, cropped, mirrored or relit.

A hash misses a picture that was turned by ten degrees. Here the centre of every training picture is compared with
views of every test picture by normalised correlation, one matrix product (`scan`); the best pairs are then aligned by
an affine warp, with the Gauss-Newton steps of Lucas and Kanade (1981), and checked for agreement everywhere
(`confirm`): faces that are merely alike differ somewhere, at the mouth, the eyes or the hair.

A view is a patch of 24 x 24 samples over 72 % of the side: 2 flips x 13 rotations x 3 zooms for pictures that were
turned, and zooms and places between and beside them for crops, of either of the two; 220 in all. Left is train, right
is test throughout; it does not matter which of a pair was made from the other.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, grid_sample

from synthfer.audit.neighbours import COLUMNS, ROWS, Matches, merge, top_matches
from synthfer.limits import MAX_KEPT
from synthfer.schema import option

SIDE, PATCH = 48, 24
_CENTRE = 0.72  # share of the side under a patch: turned by any angle it stays almost inside the picture
_PIXEL = 2 / SIDE  # in half sides, the unit of shifts


def _beside(zoom: float, pixels: float, steps: int) -> tuple[tuple[float, ...], ...]:
    """Views around the centre, a square of steps of some pixels, mirrored or not."""
    shifts = [step * pixels * _PIXEL for step in range(-steps, steps + 1)]
    return tuple((flip, 0, zoom, *at) for flip, at in product((1, -1), product(shifts, shifts)) if any(at))


VIEWS = (
    *((flip, angle, zoom, 0.0, 0.0) for flip, angle, zoom in product((1, -1), range(-30, 31, 5), (1.0, 1.25, 1.5))),
    *((flip, 0, zoom, 0.0, 0.0) for flip, zoom in product((1, -1), (1.12, 1.37, 1.65))),
    *_beside(1.08, 1.5, 1),
    *_beside(1.2, 2.0, 2),
    *((flip, 0, zoom, 0.0, 0.0) for flip, zoom in product((1, -1), (0.9, 0.81, 0.73, 0.65))),
    *_beside(0.93, 1.6, 1),
    *_beside(0.83, 2.4, 2),
)
"""Per view: 1 or -1 where mirrored, degrees, zoom, shift right and shift down in half sides."""
_PAIRS = 32  # aligned at once: their derivatives then stay in the cache


@dataclass(frozen=True, kw_only=True)
class CopyScan:
    """What counts as a copy. The defaults were measured on drawn faces and FER2013, at 48 x 48 pixels."""

    similar: float = option(0.6, "correlation of patches from which a pair is aligned", low=-1, high=1)
    keep: int = option(48, "pairs per test picture that are aligned coarsely", low=1, high=MAX_KEPT)
    finalists: int = option(24, "pairs per test picture that are aligned finely", low=1, high=MAX_KEPT)
    agreement: float = option(0.9, "agreement of the aligned pictures from which a pair is a copy", low=0, high=1)
    overlap: float = option(0.35, "share of the picture that both must show", low=0, high=1)


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """A picture (uint8, H x W x 3) in grey at 48 x 48, antialiased, whatever its aspect: uint8 (48, 48)."""
    return np.asarray(Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def patches(grey: np.ndarray) -> np.ndarray:
    """The centres of training pictures, uint8 (n, 48, 48): float32 (n, 576), zero mean and unit norm, or zeros."""
    return _patches(grey, [(1, 0, 1.0, 0.0, 0.0)])[:, 0]


def views(grey: np.ndarray) -> np.ndarray:
    """The views of test pictures, uint8 (m, 48, 48): float32 (m, 220, 576), zero mean and unit norm, or zeros."""
    return _patches(grey, VIEWS)


def scan(
    patches: np.ndarray, views: np.ndarray, config: CopyScan | None = None, block: tuple[int, int] = (ROWS, COLUMNS)
) -> Matches:
    """The pairs to align: `config.keep` training pictures for each test picture, by correlation of patches.

    Args:
        patches: float32 (n, 576) of training pictures.
        views: float32 (m, v, 576) of test pictures.
        block: training pictures and views whose products are held at once.
    """
    config = config or CopyScan()
    return top_matches(patches, views, config.similar, config.keep, block)


def confirm(train: np.ndarray, test: np.ndarray, matches: Matches, config: CopyScan | None = None) -> Matches:
    """The pairs that are copies, with their agreement as the score: 1 for the same picture, at most.

    Args:
        train: uint8 (n, 48, 48), what `matches.left` counts.
        test: uint8 (m, 48, 48), what `matches.right` counts.
        matches: pairs from `scan`, of one or several blocks.
    """
    config = config or CopyScan()
    warps = [_warp(VIEWS[view]) for view in matches.view]
    warp = torch.tensor(np.array(warps, np.float32).reshape(-1, 2, 3))
    _, warp = _in_groups(train, test, matches, warp, 24, 1.6, config.overlap, _correlation)
    score, warp = _in_groups(train, test, matches, warp, 24, 0.8, config.overlap, _correlation)
    rank = Matches(matches.left, matches.right, score, np.arange(len(matches)))
    last = merge(rank, keep=config.finalists).view  # `view` holds the position of each finalist
    score, _ = _in_groups(train, test, matches[last], warp[last], 48, 1.0, config.overlap, _either_way)
    aligned = Matches(matches.left[last], matches.right[last], score, matches.view[last])
    return merge(aligned[score >= config.agreement], keep=config.finalists)


def find(train: np.ndarray, test: np.ndarray, config: CopyScan | None = None) -> Matches:
    """Scan and confirm in one: the copies of test pictures, uint8 (m, 48, 48), among training ones, (n, 48, 48)."""
    return confirm(train, test, scan(patches(train), views(test), config), config)


def _in_groups(
    train: np.ndarray,
    test: np.ndarray,
    matches: Matches,
    warp: torch.Tensor,
    side: int,
    blur: float,
    overlap: float,
    score: Callable[..., torch.Tensor],
) -> tuple[np.ndarray, torch.Tensor]:
    """Aligns pairs at `side` pixels and scores them: float32 (k,) and their warps, (k, 2, 3)."""
    scores, warps = [np.empty(0, np.float32)], [warp[:0]]
    for low in range(0, len(matches), _PAIRS):
        left, right = (
            avg_pool2d(torch.from_numpy(grey[rows[low : low + _PAIRS]]).float()[:, None] / 255, SIDE // side)[:, 0]
            for grey, rows in ((train, matches.left), (test, matches.right))
        )
        warps.append(_aligned(left, right, warp[low : low + _PAIRS], blur))
        scores.append(score(left, right, warps[-1], overlap, blur).numpy())
    return np.concatenate(scores), torch.cat(warps)


def _patches(grey: np.ndarray, kinds: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Patches of gradient strength, float32 (n, kinds, 576): outlines separate drawn faces better than tones."""
    blurred = _smooth(torch.from_numpy(np.asarray(grey, np.float32)) / 255, torch.ones(SIDE, SIDE), _gauss(SIDE, 0.8))
    down, across = torch.gradient(blurred, spacing=2 / SIDE, dim=(1, 2))
    strength = (down**2 + across**2 + 1e-4).sqrt().add(0.01).sqrt()[:, None]
    points = _grid(PATCH) * _CENTRE
    out = np.empty((len(grey), len(kinds), PATCH * PATCH), np.float32)
    for k, kind in enumerate(kinds):
        warp = torch.from_numpy(_warp(kind))
        at = (points @ warp[:, :2].T + warp[:, 2]).expand(len(grey), 1, -1, -1)
        out[:, k] = grid_sample(strength, at, align_corners=False, padding_mode="border")[:, 0, 0].numpy()
    out -= out.mean(2, keepdims=True)
    norm = np.linalg.norm(out, axis=2, keepdims=True)
    return np.where(norm > 0.1, out / norm.clip(0.1), 0)


def _warp(kind: tuple[float, ...]) -> np.ndarray:
    """Where a point of the training picture lies in the test picture: (2, 3), centre 0, edges -1 and 1."""
    flip, angle, zoom, right, down = kind
    cos, sin = np.cos(np.deg2rad(angle)) / zoom, np.sin(np.deg2rad(angle)) / zoom
    return np.array([[flip * cos, -flip * sin, right], [sin, cos, down]], np.float32)


@cache
def _grid(side: int) -> torch.Tensor:
    """The pixel centres of a picture: (side * side, 2), x before y, edges at -1 and 1."""
    line = (torch.arange(side) * 2 + 1 - side) / side
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), 2).view(-1, 2)


@cache
def _gauss(side: int, sigma: float) -> torch.Tensor:
    at = torch.arange(side)
    bell = torch.exp(-0.5 * ((at[:, None] - at) / sigma) ** 2)
    return torch.where(bell > 1e-6, bell, 0)  # products with denormal numbers take many times longer


def _smooth(x: torch.Tensor, weight: torch.Tensor, gauss: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of (n, side, side) within a weight: what lies outside does not bleed in."""
    return _blurred(x * weight, gauss) / _blurred(weight, gauss).clamp(min=1e-3)


def _blurred(x: torch.Tensor, gauss: torch.Tensor) -> torch.Tensor:
    """Rows and columns of (n, side, side) times a symmetric matrix, as two products of large matrices."""
    return ((x @ gauss).mT @ gauss).mT


def _overlaid(train: torch.Tensor, test: torch.Tensor, warp: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The test pictures as warped onto the training pictures, where both show something, and a weight of that.

    All (k, side, side). Corners are left out: turning a picture fills them with something else.
    """
    side = train.shape[1]
    points = _grid(side)
    at = points @ warp[:, :, :2].transpose(1, 2) + warp[:, None, :, 2]
    # Linear samples are blurred where a crop was enlarged: at full size that would count as a difference.
    mode = "bicubic" if side == SIDE else "bilinear"
    at = at.view(-1, side, side, 2)
    moved = grid_sample(test[:, None], at, mode, align_corners=False, padding_mode="border")[:, 0]
    disc = (points.norm(dim=1) < 1).view(side, side)
    inside = ((at.abs().amax(3) < 1 - 2 / side) & disc).float()
    edge = _gauss(side, side / 32)
    weight = (2 * _blurred(inside, edge / edge.sum(1)) - 1).clamp(0, 1)
    return moved, inside, weight


def _aligned(train: torch.Tensor, test: torch.Tensor, warp: torch.Tensor, blur: float) -> torch.Tensor:
    """Four Gauss-Newton steps towards the affine warp, gain and offset under which the test pictures fit best."""
    side = train.shape[1]
    gauss = _gauss(side, blur)
    x, y = _grid(side).T
    for _ in range(4):
        moved, inside, weight = _overlaid(train, test, warp)
        left = _smooth(train, inside, gauss).flatten(1)
        moved = _smooth(moved, inside, gauss)
        down, across = (d.flatten(1) for d in torch.gradient(moved, spacing=2 / side, dim=(1, 2)))
        moved = moved.flatten(1)
        columns = [across * x, across * y, across, down * x, down * y, down, moved, torch.ones_like(moved)]
        slopes = torch.stack(columns, 1)
        weighted = slopes * weight.flatten(1)[:, None]
        normal = weighted @ slopes.transpose(1, 2)
        normal += torch.diag_embed(normal.diagonal(dim1=1, dim2=2) * 1e-3 + 1e-6)
        fit = torch.linalg.solve_ex(normal, weighted @ left[:, :, None])[0][:, :, 0]
        step = (fit[:, :6] / fit[:, 6:7].clamp(min=0.3)).view(-1, 2, 3).clamp(-0.15, 0.15)
        linear = warp[:, :, :2]
        warp = torch.cat([linear + linear @ step[:, :, :2], linear @ step[:, :, 2:] + warp[:, :, 2:]], 2)
    return warp


def _correlation(
    train: torch.Tensor, test: torch.Tensor, warp: torch.Tensor, overlap: float, blur: float
) -> torch.Tensor:
    """Normalised correlation of fine structure where both show something: (k,), in -1..1, 0 for too little."""
    side = train.shape[1]
    moved, inside, weight = _overlaid(train, test, warp)
    left, right = (_smooth(v, inside, _gauss(side, blur)) for v in (train, moved))
    left, right = (v - _smooth(v, weight, _gauss(side, side / 12)) for v in (left, right))
    norms = [(v**2 * weight).sum((1, 2)).sqrt() for v in (left, right)]
    score = (left * right * weight).sum((1, 2)) / (norms[0] * norms[1]).clamp(min=1e-3)
    return torch.where(_covered(weight) >= overlap, score, 0).nan_to_num(0)


def _covered(weight: torch.Tensor) -> torch.Tensor:
    """Share of the disc in a picture that a weight covers: (k,)."""
    return weight.sum((1, 2)) / (_grid(weight.shape[1]).norm(dim=1) < 1).sum()


def _either_way(
    train: torch.Tensor, test: torch.Tensor, warp: torch.Tensor, overlap: float, blur: float
) -> torch.Tensor:
    """The higher of the agreements from training to test picture and back, since either may be the copy: (k,)."""
    back = torch.linalg.inv_ex(warp[:, :, :2])[0]
    reverse = torch.cat([back, -back @ warp[:, :, 2:]], 2)
    there = _agreement(train, test, warp, overlap, blur)
    return torch.maximum(there, _agreement(test, train, reverse, overlap, blur))


def _agreement(
    train: torch.Tensor, test: torch.Tensor, warp: torch.Tensor, overlap: float, blur: float
) -> torch.Tensor:
    """1 less the largest difference of any part of the pictures, relative to what a small misfit would leave: (k,).

    Fine structure only, after gain and offset. A part is a sixth of the side; where there are outlines in it a
    difference weighs less. Pictures that show too little of the same, or nothing at all, agree by 0.
    """
    side = train.shape[1]
    moved, inside, weight = _overlaid(train, test, warp)
    gauss, wide, part = _gauss(side, blur), _gauss(side, side / 12), side // 6
    total = weight.sum((1, 2), keepdim=True).clamp(min=1)
    left, right = _smooth(train, inside, gauss), _smooth(moved, inside, gauss)
    gain, offset = _relit(left, right, weight * _unclipped(train) * _unclipped(moved))
    rest = train - gain * moved - offset
    # A clipped pixel may have been any brighter, or darker, value.
    rest = torch.where((moved > 0.98) | (train < 0.02), rest.clamp(max=0), rest)
    rest = torch.where((train > 0.98) | (moved < 0.02), rest.clamp(min=0), rest)
    rest, fine = (v - _smooth(v, weight, wide) for v in (_smooth(rest, inside, gauss), left))
    contrast = (fine**2 * weight).sum((1, 2), keepdim=True) / total
    slope = sum(d**2 for d in torch.gradient(right, dim=(1, 2))) * gain**2
    shown = _parts(weight, part)
    allowed = 0.3 * _parts(slope * weight, part) + 0.1 * contrast * shown + 1e-5
    differs = torch.where(shown > 0.5, _parts(rest**2 * weight, part) / allowed, 0).amax((1, 2))
    same = (_covered(weight) >= overlap) & (gain[:, 0, 0] > 0.2) & (contrast[:, 0, 0] > 1e-5)
    return torch.where(same, 1 - differs, 0).nan_to_num(0).clamp(min=0)


def _parts(x: torch.Tensor, part: int) -> torch.Tensor:
    """Means over overlapping squares."""
    return avg_pool2d(x[:, None], part, part // 2)[:, 0]


def _unclipped(x: torch.Tensor) -> torch.Tensor:
    return (x > 0.02) & (x < 0.98)


def _relit(left: torch.Tensor, right: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gain and offset that bring `right` nearest to `left`: (k, 1, 1) each."""
    total = weight.sum((1, 2), keepdim=True).clamp(min=1)
    middle_left, middle_right = ((v * weight).sum((1, 2), keepdim=True) / total for v in (left, right))
    spread = ((right - middle_right) ** 2 * weight).sum((1, 2), keepdim=True)
    gain = ((left - middle_left) * (right - middle_right) * weight).sum((1, 2), keepdim=True) / spread.clamp(min=1e-6)
    return gain, middle_left - gain * middle_right


def _resampled(pixels: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """A picture without margins (left, top, right, bottom, in shares of the side), enlarged to its old size."""
    height, width = pixels.shape[:2]
    box = np.array([0, 0, width, height]) + margins * [width, height, -width, -height]
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box=tuple(box))
    return np.array(image)


def _rotate(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.array(Image.fromarray(pixels).rotate(rng.uniform(-30, 30), Image.Resampling.BICUBIC))


def _crop(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cut = rng.uniform(0, 10 / SIDE)
    first = rng.uniform(0, cut, 2)
    return _resampled(pixels, np.concatenate([first, cut - first]))


def _zoom(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _resampled(pixels, np.full(4, rng.uniform(0, 10 / SIDE)))


def _brightness(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    contrast, brightness = rng.uniform(0.8, 1.2, 2)
    middle = pixels.mean()
    return np.clip(((pixels - middle) * contrast + middle) * brightness, 0, 255).round().astype(np.uint8)


def _jpeg(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=int(rng.integers(40, 91)))
    return np.array(Image.open(out))


def _shrink(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image, factor = Image.fromarray(pixels), rng.uniform(0.5, 1)
    small = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)
    return np.array(small.resize(image.size, Image.Resampling.BICUBIC))


_KINDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "exact": lambda pixels, rng: pixels.copy(),
    "mirror": lambda pixels, rng: pixels[:, ::-1].copy(),
    "rotate": _rotate,
    "crop": _crop,
    "zoom": _zoom,
    "brightness": _brightness,
    "shrink": _shrink,
    "jpeg": _jpeg,
}
KINDS = (*_KINDS, "all")
_ALL = "crop+rotate+mirror+brightness+jpeg"


def plant(pixels: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A copy of a picture (uint8, H x W x 3) as augmentation makes it, of the same size.

    Kinds, with amounts drawn evenly: `exact`; `mirror`; `rotate` by up to 30 degrees either way, corners black;
    `crop`, a square of 1 - u of the side anywhere, u up to 10/48; `zoom`, a margin of up to 10/48 off every side;
    `brightness`, contrast and brightness by up to 20 %; `shrink` to half the side or more and back; `jpeg` of quality
    40 to 90; `all`, crop, rotate, mirror, brightness and JPEG one after the other. `a+b` is a, then b.
    """
    for name in (_ALL if kind == "all" else kind).split("+"):
        if name not in _KINDS:
            raise ValueError(f"unknown kind of copy {name!r}. Known: {', '.join(KINDS)}, or several joined by +.")
        pixels = _KINDS[name](pixels, rng)
    return pixels
