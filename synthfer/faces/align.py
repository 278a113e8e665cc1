"""Faces cut out of pictures: aligned by five points, or by a box.

The five target points are those of the aligned 112 x 112 faces that recognition networks are trained on, published with
ArcFace (Deng et al., arXiv 1801.07698; insightface, recognition/arcface_torch). The transform is the
least-squares similarity of Umeyama, "Least-squares estimation of transformation parameters between two point
patterns", IEEE TPAMI 13(4), 1991.

Coordinates are continuous: (0, 0) is the picture's upper left corner, and pixel i covers [i, i + 1). A matrix
(float64, 2 x 3) maps (x, y, 1) of the picture to (x, y) of the crop; `inverse` maps back.
"""

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels."""

SIDE = 112
"""The side of the template's square, in pixels."""
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Target points in the square: left eye, right eye, nose, left and right mouth corner, as the viewer sees them."""


def align(
    pixels: np.ndarray, points: np.ndarray, size: int = SIDE, margin: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The aligned face (uint8, size x size x 3) and the matrix that took it from `pixels` (uint8, H x W x 3).

    `points` (5 x 2) are in the order of `TEMPLATE`. `margin` is added on each of the four sides, as a share of the
    template's; beyond the picture its edges are replicated. `ValueError`: the points determine no transform.
    """
    matrix = similarity(points, template(size, margin))
    return warp(pixels, matrix, size), matrix


def template(size: int = SIDE, margin: float = 0.0) -> np.ndarray:
    """The five target points (5 x 2) in a crop of side `size` that has `margin` of the template's side around it."""
    return (TEMPLATE / SIDE + margin) / (1 + 2 * margin) * size


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The matrix (2 x 3) of rotation, one scale and shift that takes `source` (N x 2) nearest to `target` (N x 2).

    Nearest by the sum of squared distances; it never mirrors. `ValueError`: the points determine no transform.
    """
    # In the complex plane a similarity is z -> a z + b, and the least squares have a closed form.
    z, w = (np.asarray(points, dtype=np.float64) @ np.array([1, 1j]) for points in (source, target))
    from_centre = z - z.mean()
    spread = np.vdot(from_centre, from_centre).real
    turn = np.vdot(from_centre, w) / spread if spread > 0 else 0
    if not np.isfinite(turn) or turn == 0:
        raise ValueError(f"no similarity takes these points to the target: {np.asarray(source).tolist()}.")
    shift = w.mean() - turn * z.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The matrix (2 x 3) back from the crop to the picture."""
    return np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]


def transformed(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`points` (N x 2) mapped by `matrix` (2 x 3)."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def warp(pixels: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """`pixels` (uint8, H x W x 3) mapped by `matrix` into a square (uint8, size x size x 3); see `resampled`."""
    return resampled(pixels, matrix, size, size).round().clip(0, 255).astype(np.uint8)


def resampled(pixels: np.ndarray, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """`pixels` (uint8 or float32, H x W x C) mapped by `matrix` into float32 (height, width, C), not rounded.

    Bicubic, and antialiased along each axis of `pixels` that shrinks; beyond the picture its edges are replicated.
    """
    back = inverse(matrix)
    corners = transformed(back, np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=np.float64))
    shrink = np.maximum(np.hypot(back[:, 0], back[:, 1]), 1)
    support = 2 * np.ceil(shrink)  # of the bicubic kernel
    low = np.floor(corners.min(axis=0) - support).astype(int)
    high = np.ceil(corners.max(axis=0) + support).astype(int)
    columns, rows = (
        np.arange(first, end).clip(0, length - 1)
        for first, end, length in zip(low, high, pixels.shape[1::-1], strict=True)
    )
    region = np.moveaxis(pixels[np.ix_(rows, columns)], -1, 0)
    whole = high - low
    reduced = np.ceil(whole / shrink).astype(int)
    back = np.column_stack([back[:, :2], back[:, 2] - low]) * (reduced / whole)[:, None]
    how = Image.Transform.AFFINE, tuple(back.ravel()), Image.Resampling.BICUBIC
    channels = []
    for values in region:
        band = Image.fromarray(np.ascontiguousarray(values))
        if (reduced < whole).any():
            band = band.resize((int(reduced[0]), int(reduced[1])), Image.Resampling.BICUBIC)
        # As floats: on bytes Pillow's transform truncates, and the crop would be darker than the picture.
        band = Image.fromarray(np.asarray(band, dtype=np.float32))
        channels.append(np.asarray(band.transform((width, height), *how)))
    return np.stack(channels, axis=-1)


def crop_box(pixels: np.ndarray, box: Box, margin: float = 0.0) -> np.ndarray:
    """A copy of the part of `pixels` (uint8, H x W x 3) in the `widened` box, in its own aspect."""
    left, top, right, bottom = widened(box, margin, pixels.shape[1], pixels.shape[0])
    return pixels[top:bottom, left:right].copy()


def widened(box: Box, margin: float, width: int, height: int) -> tuple[int, int, int, int]:
    """The visible part of `box` in a width x height picture, with `margin` of its longer side added on each side.

    In whole pixels, rounded outwards and clipped to the picture. `ValueError` as by `visible`.
    """
    left, top, right, bottom = visible(box, width, height)
    extra = margin * max(right - left, bottom - top)
    low = np.floor(np.maximum([left - extra, top - extra], 0)).astype(int)
    high = np.ceil(np.minimum([right + extra, bottom + extra], [width, height])).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def visible(box: Box, width: int, height: int) -> Box:
    """The part of `box` inside a width x height picture; `ValueError` names a box that is empty or outside."""
    left, top, right, bottom = max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)
    if not (left < right and top < bottom and np.isfinite(box).all()):
        raise ValueError(
            f"the face's box (left, top, right, bottom) {tuple(box)} is empty or outside the picture of"
            f" {width} x {height} pixels; check the order and the unit of the box."
        )
    return left, top, right, bottom
