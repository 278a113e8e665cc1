"""Perceptual hashes: 64 bits of a picture that outlive compression, scaling and small changes of light.

The hash is that of `imagehash.phash` 4.3.2, bit for bit: grey, 32 x 32 pixels, the cosine transform of columns and
rows, and of its 8 x 8 lowest frequencies whether each is above their median. It finds no picture that was turned or
cropped by a tenth; `synthfer.audit.copies` does.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_SIDE, _KEPT = 32, 8
# Type II: cos(pi k (2 i + 1) / 2 n). Its usual factor of two moves no value across the median.
_COSINES = np.cos(np.pi / (2 * _SIDE) * np.outer(np.arange(_KEPT), 2 * np.arange(_SIDE) + 1))


def phash(pixels: np.ndarray) -> int:
    """The 64-bit hash of a picture (uint8, H x W x 3), in [0, 2**64): the lowest frequency is the highest bit."""
    grey = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    low = _COSINES @ np.asarray(grey, np.float64) @ _COSINES.T
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def hashes(pixels: np.ndarray) -> np.ndarray:
    """The hashes of a picture (uint8, H x W x 3) and of its mirror image: uint64 (2,)."""
    return np.array([phash(pixels), phash(np.ascontiguousarray(pixels[:, ::-1]))], np.uint64)


def close_pairs(
    left: np.ndarray, right: np.ndarray, radius: int = 10, block: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs whose hashes differ in at most `radius` bits, mirrored or not.

    Args:
        left: uint64 (n, 2) of `hashes`.
        right: uint64 (m, 2) of `hashes`; each column is compared with the first one of `left`.
        radius: bits, 0 to 64. Unrelated pictures differ in 32 on average.
        block: rows of either side that are compared at once; 1024 take 9 MB.

    Returns:
        Row numbers, int64 (k, 2), ordered by left, then right; and the smaller distance of each pair, int64 (k,).
    """
    pairs, distances = [np.empty((0, 2), np.int64)], [np.empty(0, np.int64)]
    for low in range(0, len(left), block):
        for first in range(0, len(right), block):
            some, others = left[low : low + block, 0, None], right[first : first + block]
            distance = np.bitwise_count(some ^ others[:, 0])
            np.minimum(distance, np.bitwise_count(some ^ others[:, 1]), out=distance)
            near = np.argwhere(distance <= radius)
            pairs.append(near + np.array([low, first]))
            distances.append(distance[near[:, 0], near[:, 1]].astype(np.int64))
    rows, distance = np.concatenate(pairs), np.concatenate(distances)
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    return rows[order], distance[order]
