"""The features of a picture that are compared: perceptual hashes, a small grey copy, a unit vector of an embedder."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from synthfer.audit.copies import SIDE, to_grey
from synthfer.audit.perceptual import hashes
from synthfer.embedders import Embedder
from synthfer.store.dataset_ref import UnitRange

# Pictures that are decoded at once: they are large, their features small.
_BATCH = 64


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


def of_pictures(pictures: Iterable[np.ndarray], embedder: Embedder) -> Features:
    """The features of pictures, each uint8 (H, W, 3); of an iterator's pictures a few are held at a time."""
    stream = iter(pictures)
    batches = [_of_batch(batch, embedder) for batch in iter(lambda: list(islice(stream, _BATCH)), [])]
    if not batches:
        return Features(np.empty((0, 2), np.uint64), np.empty((0, SIDE, SIDE), np.uint8), np.empty((0, 1), np.float16))
    parts = ([part.hashes for part in batches], [part.grey for part in batches], [part.vectors for part in batches])
    return Features(*map(np.concatenate, parts))


def _of_batch(pictures: Sequence[np.ndarray], embedder: Embedder) -> Features:
    return Features(
        np.stack([hashes(pixels) for pixels in pictures]),
        np.stack([to_grey(pixels) for pixels in pictures]),
        embedder.embed(pictures).astype(np.float16),
    )


def read_pictures(part: UnitRange, splits: Sequence[str], rows: Sequence[int] | None = None) -> Iterator[np.ndarray]:
    """The pictures of a part's accepted rows, or of some of them (ascending), decoded: uint8 (H, W, 3) each.

    `ValueError` names the sample whose picture cannot be read.
    """
    batches = part.batches(["sample_id", "image"], splits)
    samples = (pair for batch in batches for pair in zip(batch["sample_id"], batch["image"], strict=True))
    wanted = None if rows is None else set(rows)
    for row, (key, value) in enumerate(samples):
        if wanted is None or row in wanted:
            yield part.decode(key.as_py(), value["bytes"].as_py())
