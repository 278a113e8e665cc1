"""Cuts a face out of its picture as a square, and pastes the edited square back without a visible seam.

Two things hide the seam. The patch first takes the picture's colours along its border: the difference there, on a
coarse grid, is continued inwards by Laplace's equation and added, the membrane of Perez, Gangnet and Blake, "Poisson
image editing", SIGGRAPH 2003. The rest of the difference fades out under a mask that falls to 0 at the patch's
border. On a coarse grid the membrane carries light and tint, and hair or a collar across the border does not bleed
into the face.

Coordinates and matrices are those of align.py. The scales along x and y may differ: editors stretch a face's box to
their square.
"""

from functools import cache

import numpy as np
from PIL import Image

from synthfer.faces.align import Box, inverse, resampled, transformed, visible

MODES = ("feather", "hard")
FEATHER = 0.15
"""The share of a side over which the mask rises from 0 to 1."""
_CELLS = 16  # of the membrane's grid, per side


def cut(picture: np.ndarray, box: Box, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of `picture` (uint8, H x W x 3) in `box`, stretched to a square, and the matrix of that mapping.

    `box` is (left, top, right, bottom) in pixels and may leave the picture, whose edges are then replicated. The
    square is uint8, size x size x 3, bicubic and antialiased; the matrix is float64, 2 x 3. `ValueError`: the box is
    empty or outside the picture.
    """
    visible(box, picture.shape[1], picture.shape[0])
    left, top, right, bottom = box
    across, down = size / (right - left), size / (bottom - top)
    matrix = np.array([[across, 0, -left * across], [0, down, -top * down]], dtype=np.float64)
    return _fetched(picture, matrix, size, size).round().clip(0, 255).astype(np.uint8), matrix


def paste(picture: np.ndarray, patch: np.ndarray, matrix: np.ndarray, mode: str = "feather") -> np.ndarray:
    """`picture` (uint8, H x W x 3) with `patch` (uint8, h x w x 3) in its place; a new array, bit-equal elsewhere.

    `matrix` (float64, 2 x 3) maps the picture's coordinates to the patch's. In mode "feather" the patch takes the
    picture's colours at its border and fades out there; "hard" replaces the rectangle with a visible seam, as SyntFER
    does. `ValueError`: another mode or kind of array, a matrix that cannot be inverted, or a patch outside.
    """
    _check(picture, patch, matrix, mode)
    left, top, right, bottom = _covered(picture, patch, matrix)
    width, height = right - left, bottom - top
    into_box = inverse(matrix) - [[0, 0, left], [0, 0, top]]
    new = _fetched(patch, into_box, width, height)
    if mode == "feather":
        cells = _CELLS / np.array(patch.shape[1::-1])
        new += _fetched(_membrane(picture, patch, matrix, cells), into_box / [*cells, 1], width, height)
    old = picture[top:bottom, left:right]
    mask = _mask(patch, matrix, (left, top, right, bottom), mode)[..., None]
    result = picture.copy()
    result[top:bottom, left:right] = (old + mask * (new - old)).round().clip(0, 255).astype(np.uint8)
    return result


def _check(picture: np.ndarray, patch: np.ndarray, matrix: np.ndarray, mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"paste: mode {mode!r} is not known; give one of {', '.join(MODES)}.")
    for name, pixels in (("picture", picture), ("patch", patch)):
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError(f"paste: the {name} is {pixels.dtype} {pixels.shape}, expected uint8 (height, width, 3).")
    if np.shape(matrix) != (2, 3) or not np.isfinite(matrix).all() or not np.linalg.det(np.asarray(matrix)[:, :2]):
        raise ValueError(f"paste: expected a finite, invertible 2 x 3 matrix, got {np.asarray(matrix).tolist()}.")


def _covered(picture: np.ndarray, patch: np.ndarray, matrix: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box of whole pixels (left, top, right, bottom) with all of the patch that lies in the picture."""
    height, width = patch.shape[:2]
    corners = transformed(inverse(matrix), np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64))
    low, high = corners.min(axis=0), corners.max(axis=0)
    box = visible((low[0], low[1], high[0], high[1]), picture.shape[1], picture.shape[0])
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    return int(left), int(top), int(right), int(bottom)


def _fetched(pixels: np.ndarray, matrix: np.ndarray, width: int, height: int) -> np.ndarray:
    """As `resampled`, but in one pass where nothing rotates: a face is cut and pasted, and each pass blurs it."""
    back = inverse(matrix)
    scale = np.diag(back[:, :2])
    if back[0, 1] or back[1, 0] or scale.min() <= 0:
        return resampled(pixels, matrix, width, height)
    low, high = back[:, 2], back[:, 2] + scale * [width, height]
    support = 2 * np.ceil(scale.clip(min=1))  # of the bicubic kernel
    first, last = np.floor(low - support).astype(int), np.ceil(high + support).astype(int)
    columns, rows = (
        np.arange(*ends).clip(0, length - 1) for *ends, length in zip(first, last, pixels.shape[1::-1], strict=True)
    )
    region = np.moveaxis(pixels[np.ix_(rows, columns)], -1, 0).astype(np.float32)
    box = tuple(np.concatenate([low - first, high - first]).tolist())
    bands = (Image.fromarray(np.ascontiguousarray(band)) for band in region)
    return np.stack([np.asarray(band.resize((width, height), Image.Resampling.BICUBIC, box)) for band in bands], -1)


def _mask(patch: np.ndarray, matrix: np.ndarray, box: tuple[int, int, int, int], mode: str) -> np.ndarray:
    """The patch's weight in each pixel of `box`, 0..1: float64 (height, width), by the pixel's centre."""
    left, top, right, bottom = box
    x, y = np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5)
    size = patch.shape[1::-1]
    position = transformed(matrix, np.stack([x.ravel(), y.ravel()], axis=1)) / size
    inside = np.minimum(position, 1 - position)  # distance to the nearer border, in sides; along x and along y
    if mode == "hard":
        return (inside >= 0).all(axis=1).reshape(x.shape).astype(np.float64)
    rise = (inside / FEATHER).clip(0, 1)
    return (rise**2 * (3 - 2 * rise)).prod(axis=1).reshape(x.shape)


def _membrane(picture: np.ndarray, patch: np.ndarray, matrix: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """What to add to the patch, on the coarse grid: float32 (_CELLS, _CELLS, 3). `cells` is cells per pixel, (x, y).

    Where the patch leaves the picture, the picture's edges are replicated, as in `cut`.
    """
    around = _fetched(picture, cells[:, None] * matrix, _CELLS, _CELLS)
    own = _fetched(patch, np.column_stack([np.diag(cells), np.zeros(2)]), _CELLS, _CELLS)
    difference, inner = (around - own).reshape(_CELLS**2, 3), _inner()
    difference[inner] = _continuation() @ difference[~inner]
    return difference.reshape(_CELLS, _CELLS, 3)


def _inner() -> np.ndarray:
    cells = np.zeros((_CELLS, _CELLS), bool)
    cells[1:-1, 1:-1] = True
    return cells.ravel()


@cache
def _continuation() -> np.ndarray:
    """The linear map from the grid's border cells to its inner ones: each of these is the mean of its neighbours."""
    line = 2 * np.eye(_CELLS) - np.eye(_CELLS, k=1) - np.eye(_CELLS, k=-1)
    laplace = np.kron(line, np.eye(_CELLS)) + np.kron(np.eye(_CELLS), line)
    inner = _inner()
    return -np.linalg.solve(laplace[np.ix_(inner, inner)], laplace[np.ix_(inner, ~inner)])
