"""Faces that are drawn here and now, where a test needs faces and no photographs: their licence allows everything."""

from collections.abc import Iterable

import numpy as np
import pytest

# Drawings in which MTCNN finds the face with a score of 0.95 and more; of some drawings it is not so sure.
DETECTABLE = tuple(5000 + i for i in (1, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 18, 21, 22, 23, 26, 31, 33, 34, 35, 36, 38))
FACE_BOX = (48.0, 40.0, 212.0, 252.0)
"""Left, top, right and bottom of the face in any drawing of 256 x 256 pixels, within about 15 pixels."""


def draw_faces(seeds: Iterable[int], size: int) -> list[np.ndarray]:
    """One person for each seed, as uint8 pixels of size x size x 3; skips without the extra `avatars`."""
    pytest.importorskip("py_avataaars_no_png")
    from synthfer.sources.avatars import draw, sample_attributes

    return [draw(sample_attributes(seed), size) for seed in seeds]
