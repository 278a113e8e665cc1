"""The gate of blank pictures: what has no structure is rejected with its contrast."""

import numpy as np
import pytest

from synthfer import gates
from synthfer.generators import GeneratedImage
from synthfer.sample import Row


def check(*pixels: np.ndarray, box=None, **options) -> list[gates.Verdict]:
    rows = [Row(index=i, label=0, seed=i) for i in range(len(pixels))]
    return list(gates.build("blank", **options).check(rows, (), [GeneratedImage(one, box=box) for one in pixels]))


@pytest.mark.parametrize("level", [0, 17, 255])
def test_a_picture_of_one_colour_is_rejected(level):
    (verdict,) = check(np.full((8, 8, 3), level, np.uint8))
    assert verdict == gates.Verdict({"contrast": 0.0}, "contrast 0.000 is below 1")


def test_the_channel_with_most_contrast_counts():
    pixels = np.full((8, 8, 3), 100, np.uint8)
    pixels[:4, :, 1] = 104  # deviations 0, 2, 0
    assert check(pixels) == [gates.Verdict({"contrast": 2.0})]
    assert check(pixels, min_contrast=2.5) == [gates.Verdict({"contrast": 2.0}, "contrast 2.000 is below 2.5")]


def test_of_an_edit_the_face_counts():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    pixels[4:12, 4:12] = 128
    assert check(pixels)[0].reason is None
    assert check(pixels, box=(4.0, 4.0, 12.0, 12.0))[0].reason == "contrast 0.000 is below 1"


def test_a_verdict_depends_on_no_neighbour():
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 2 + 20 * i, (8, 8, 3), dtype=np.uint8) for i in range(5)]
    together = check(*pictures)
    assert [check(picture)[0] for picture in pictures] == together
    assert [verdict.reason is None for verdict in together] == [False, True, True, True, True]


def test_the_producer_names_the_bound():
    assert gates.build("blank", min_contrast=3.0).producer() == {"min_contrast": 3.0}
