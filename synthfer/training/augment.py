"""Random changes of training pictures: drawn for a whole batch on the CPU, applied to any part of it on its device.

    params = draw(config, rows=len(batch), size=48, seed=seed_of(0, step))     all rows of the batch
    augment(images, params[first:last])                                        the rows of one worker

What happens to a row is decided before anyone divides the batch, so a picture is changed alike by any number of
workers. Colour changes are those of common image libraries (luma by ITU-R BT.601); erasing follows Zhong et al.,
"Random Erasing Data Augmentation" (AAAI 2020), but fills with the picture's mean colour.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from synthfer.sample import seed_of
from synthfer.training.settings import AugmentConfig

SMALL = 48
"""Pixels a side that shrunk pictures pass through: those of FER2013."""
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_WHOLE = {"size", "noise_variance", "flip", "shift"}  # fields of `AugmentParams` that need nothing but whole numbers
_RATIO = 0.3  # the thinnest erased rectangle, as a share of the other side (Zhong et al.)


@dataclass(frozen=True, kw_only=True)
class AugmentParams:
    """What happens to each of n rows of `size` pixels a side, CPU tensors with one entry per row.

    A change that the config turns off is None and costs nothing. `params[rows]`, with a slice, an index or mask tensor
    or a list, is those rows.
    """

    size: int
    flip: Tensor | None = None
    """bool (n,)"""
    shift: Tensor | None = None
    """int64 (n, 2), pixels down and to the right"""
    angle: Tensor | None = None
    """float32 (n,), degrees anticlockwise"""
    scale: Tensor | None = None
    """float32 (n,), factor on the size of what is seen"""
    shear: Tensor | None = None
    """float32 (n,), degrees that upright lines lean to the left"""
    brightness: Tensor | None = None
    """float32 (n,), factor"""
    contrast: Tensor | None = None
    """float32 (n,), factor"""
    saturation: Tensor | None = None
    """float32 (n,), factor"""
    grey: Tensor | None = None
    """bool (n,)"""
    shrink: Tensor | None = None
    """bool (n,)"""
    noise: Tensor | None = None
    """int64 (n,), seed of the row's noise, -1 for none"""
    noise_variance: float = 0.0
    erase: Tensor | None = None
    """int64 (n, 4), top, left, height and width in pixels; without area for none"""

    def __getitem__(self, rows: slice | Tensor | list[int]) -> "AugmentParams":
        chosen: dict[str, Any] = {name: value[rows] for name, value in vars(self).items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **chosen)


def draw(config: AugmentConfig, rows: int, size: int, seed: int) -> AugmentParams:
    """AugmentParams for `rows` pictures of `size` pixels a side: a pure function of its arguments.

    Each change has a generator of its own: turning one on or off leaves the others as they were. `ValueError` where
    `erase_area` is not the least and the most share.
    """

    def source(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of(seed, "augment", name))

    def chosen(name: str) -> Tensor | None:
        share = getattr(config, name)
        return torch.rand(rows, generator=source(name)) < share if share else None

    def around(name: str, most: float, centre: float) -> Tensor | None:
        return centre + most * (2 * torch.rand(rows, generator=source(name)) - 1) if most else None

    def shifts(most: int) -> Tensor:
        return torch.randint(-most, most + 1, (rows, 2), generator=source("shift"))

    def seeds() -> Tensor:
        return torch.randint(2**63 - 1, (rows,), generator=source("noise seed"))

    noisy, erased = chosen("noise"), chosen("erase")
    return AugmentParams(
        size=size,
        flip=chosen("flip"),
        shift=shifts(config.shift) if config.shift else None,
        angle=around("rotate", config.rotate, 0),
        scale=around("scale", config.scale, 1),
        shear=around("shear", config.shear, 0),
        brightness=around("brightness", config.brightness, 1),
        contrast=around("contrast", config.contrast, 1),
        saturation=around("saturation", config.saturation, 1),
        grey=chosen("grey"),
        shrink=chosen("shrink") if size > SMALL else None,
        noise=None if noisy is None else torch.where(noisy, seeds(), -1),
        noise_variance=config.noise_variance,
        erase=None if erased is None else _boxes(config, erased, size, source("boxes")),
    )


def _boxes(config: AugmentConfig, erased: Tensor, size: int, source: torch.Generator) -> Tensor:
    """Rectangles (n, 4) as in `AugmentParams.erase`: area uniform, aspect ratio log-uniform, inside the picture."""
    if len(config.erase_area) != 2 or config.erase_area[0] > config.erase_area[1]:
        raise ValueError(f"augment.erase_area is {list(config.erase_area)}: give the least and the most, as [.02, .1].")
    low, high = config.erase_area
    area, ratio, top, left = torch.rand(4, len(erased), generator=source)
    area = low + (high - low) * area
    # A rectangle of this area and a ratio beyond these would not fit into the square.
    widest = torch.minimum(-area.log(), torch.tensor(-math.log(_RATIO)))
    root = (widest * (2 * ratio - 1) / 2).exp()
    height, width = (size * area.sqrt() * root).round(), (size * area.sqrt() / root).round()
    corner = [(start * (size - side + 1)).floor() for start, side in ((top, height), (left, width))]
    return torch.where(erased[:, None], torch.stack([*corner, height, width], 1).long(), 0)


def augment(images: Tensor, params: AugmentParams) -> Tensor:
    """Pictures, uint8 (n, 3, size, size), changed on their device in the order of `AugmentConfig`.

    The given ones stay as they are. Flips and shifts alone give uint8, anything else float32 0..1; classifiers read
    both. A picture's result does not depend on the others: on a CPU to the bit, on a GPU up to the rounding of means.
    `ValueError` where pictures and params do not belong together.
    """
    counts = {len(value) for value in vars(params).values() if isinstance(value, Tensor)}
    if images.dtype != torch.uint8 or images.shape[1:] != (3, params.size, params.size) or counts - {len(images)}:
        raise ValueError(
            f"images are {images.dtype} {tuple(images.shape)}; the parameters are for uint8"
            f" ({', '.join(map(str, counts)) or 'n'}, 3, {params.size}, {params.size}). Draw for these pictures."
        )
    images = _moved(images, params)
    if all(value is None for name, value in vars(params).items() if name not in _WHOLE):
        return images
    pixels = _turned(images.float() / 255, params)
    pixels = _coloured(pixels, params)
    if params.grey is not None:
        pixels = _where(pixels, params.grey, lambda some: _luma(some).expand_as(some))
    if params.shrink is not None:
        pixels = _where(pixels, params.shrink, _shrunk)
    if params.noise is not None:
        pixels = _noisy(pixels, params.noise, params.noise_variance)
    return pixels if params.erase is None else _erased(pixels, params.erase)


def _moved(images: Tensor, params: AugmentParams) -> Tensor:
    """Mirrored, then shifted with repeated edges: one gather of bytes."""
    if params.flip is None and params.shift is None:
        return images
    last = params.size - 1
    rows = columns = torch.arange(params.size).expand(len(images), -1)
    if params.shift is not None:
        down, right = params.shift[:, :1], params.shift[:, 1:]
        rows, columns = (rows - down).clamp(0, last), (columns - right).clamp(0, last)
    if params.flip is not None:
        columns = torch.where(params.flip[:, None], last - columns, columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    places = (rows[:, :, None] * params.size + columns[:, None, :]).flatten(1)
    return images.flatten(2).gather(2, places[:, None].expand(-1, 3, -1)).view_as(images)


def _turned(pixels: Tensor, params: AugmentParams) -> Tensor:
    """Sheared, scaled and turned about the centre, by one bilinear sampling with repeated edges."""
    if not len(pixels) or (params.angle is None and params.scale is None and params.shear is None):
        return pixels
    rows = len(pixels)
    angle = torch.zeros(rows) if params.angle is None else params.angle.deg2rad()
    scale = torch.ones(rows) if params.scale is None else params.scale
    lean = torch.zeros(rows) if params.shear is None else params.shear.deg2rad().tan()
    # Sampling asks where each new pixel comes from: the inverse of turning (rows grow downwards), scaling, shearing.
    cos, sin, zero = angle.cos() / scale, angle.sin() / scale, torch.zeros(rows)
    across = torch.stack([cos - lean * sin, -sin - lean * cos, zero], 1)
    down = torch.stack([sin, cos, zero], 1)
    inverse = torch.stack([across, down], 1).to(pixels.device)
    grid = F.affine_grid(inverse, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _luma(pixels: Tensor) -> Tensor:
    """Grey (n, 1, h, w) of RGB."""
    red, green, blue = pixels.split(1, 1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _mean(pixels: Tensor) -> Tensor:
    """Mean of each plane, (n, c, 1, 1)."""
    return pixels.mean((2, 3), keepdim=True)


def _coloured(pixels: Tensor, params: AugmentParams) -> Tensor:
    """Brightness, contrast, saturation: each row moved away from black, its mean grey, its own grey; kept in 0..1."""
    anchors: tuple[tuple[Tensor | None, Callable[[Tensor], Tensor | float]], ...] = (
        (params.brightness, lambda _: 0.0),
        (params.contrast, lambda old: _mean(_luma(old))),
        (params.saturation, _luma),
    )
    for factor, anchor in anchors:
        if factor is not None:
            start = anchor(pixels)
            pixels = (start + factor.to(pixels.device)[:, None, None, None] * (pixels - start)).clamp(0, 1)
    return pixels


def _where(pixels: Tensor, chosen: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`pixels` with the chosen rows changed; only those are computed."""
    rows = chosen.nonzero().flatten().to(pixels.device)
    return pixels.index_copy(0, rows, change(pixels[rows])) if len(rows) else pixels


def _shrunk(pixels: Tensor) -> Tensor:
    """Through `SMALL` pixels a side and back, as if they came from a small collection."""
    small = F.interpolate(pixels, (SMALL, SMALL), mode="bilinear", antialias=True)
    return F.interpolate(small, pixels.shape[2:], mode="bilinear", antialias=True)


def _noisy(pixels: Tensor, seeds: Tensor, variance: float) -> Tensor:
    """Gaussian noise of `variance`, in steps of 0..255 squared, on rows that have a seed; kept in 0..1."""
    own = [torch.Generator().manual_seed(seed) for seed in seeds.tolist() if seed >= 0]
    if not own:
        return pixels
    noise = torch.stack([torch.randn(pixels.shape[1:], generator=source) for source in own]).to(pixels.device)
    return _where(pixels, seeds >= 0, lambda some: (some + math.sqrt(variance) / 255 * noise).clamp(0, 1))


def _erased(pixels: Tensor, boxes: Tensor) -> Tensor:
    """Rectangles filled with their picture's mean colour."""
    top, left, height, width = boxes.to(pixels.device)[:, :, None].unbind(1)
    line = torch.arange(pixels.shape[-1], device=pixels.device)
    rows, columns = ((line >= start) & (line < start + side) for start, side in ((top, height), (left, width)))
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], _mean(pixels), pixels)
