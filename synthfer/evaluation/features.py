"""What the guards see of a picture: its perceptual hashes, a small grey copy, a unit vector of an embedder."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthfer import images
from synthfer.evaluation.copies import SIDE, to_grey
from synthfer.evaluation.embedders import Embedder
from synthfer.evaluation.perceptual import hashes
from synthfer.evaluation.sides import Part


@dataclass(frozen=True)
class Features:
    """Of n pictures: `hashes` uint64 (n, 2), `grey` uint8 (n, 48, 48), `vectors` float16 (n, d) of unit length."""

    hashes: np.ndarray
    grey: np.ndarray
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)

    def __getitem__(self, rows: slice) -> "Features":
        """Some of the pictures."""
        return Features(self.hashes[rows], self.grey[rows], self.vectors[rows])


def of_pictures(pictures: Sequence[np.ndarray], embedder: Embedder) -> Features:
    """The features of pictures, each uint8 (H, W, 3)."""
    if not pictures:
        return Features(np.empty((0, 2), np.uint64), np.empty((0, SIDE, SIDE), np.uint8), np.empty((0, 1), np.float16))
    return Features(
        np.stack([hashes(pixels) for pixels in pictures]),
        np.stack([to_grey(pixels) for pixels in pictures]),
        embedder.embed(pictures).astype(np.float16),
    )


def read_pictures(part: Part, splits: Sequence[str], rows: Sequence[int] | None = None) -> list[np.ndarray]:
    """The pictures of a part's accepted rows, or of some of them, decoded: uint8 (H, W, 3) each."""
    column = part.rows(["image"], splits)["image"].combine_chunks()
    chosen = column if rows is None else column.take(np.asarray(rows, np.int64))
    return [images.decode(value["bytes"].as_py()) for value in chosen]
