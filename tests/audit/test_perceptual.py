"""The 64-bit hash equals the published one, and close pairs are exactly those of a plain double loop."""

import numpy as np
import pytest
from PIL import Image

from synthfer.audit.perceptual import close_pairs, hashes, phash


def noise(side, seed):
    return np.random.default_rng(seed).integers(0, 256, (side, side + 3, 3), dtype=np.uint8)


def faces(count):
    pytest.importorskip("py_avataaars_no_png")
    from synthfer.sources.avatars import draw, sample_attributes

    return [draw(sample_attributes(seed), 64) for seed in range(count)]


def test_the_hash_is_that_of_imagehash():
    imagehash = pytest.importorskip("imagehash")
    for pixels in [*faces(40), *(noise(side, side) for side in range(8, 120, 7))]:
        assert f"{phash(pixels):016x}" == str(imagehash.phash(Image.fromarray(pixels)))


def test_the_second_hash_is_that_of_the_mirror_image():
    face = faces(1)[0]
    assert hashes(face).dtype == np.uint64
    assert hashes(face).tolist() == [phash(face), phash(face[:, ::-1].copy())]


def test_a_flat_picture_has_a_hash():
    assert 0 <= phash(np.zeros((5, 9, 3), np.uint8)) < 2**64


def test_close_pairs_are_those_of_a_double_loop_for_any_block():
    rng = np.random.default_rng(1)
    left = rng.integers(0, 2**64, (50, 2), dtype=np.uint64)
    right = rng.integers(0, 2**64, (40, 2), dtype=np.uint64)
    right[3, 0], right[5, 1] = left[7, 0] ^ np.uint64(0b1011), left[2, 0]
    expected = {}
    for i, a in enumerate(left[:, 0].tolist()):
        for j, both in enumerate(right.tolist()):
            distance = min((a ^ b).bit_count() for b in both)
            if distance <= 24:
                expected[i, j] = distance
    assert expected[7, 3] == 3
    assert expected[2, 5] == 0
    for block in (1, 7, 1024):
        pairs, distance = close_pairs(left, right, 24, block)
        assert dict(zip(map(tuple, pairs.tolist()), distance.tolist(), strict=True)) == expected
        assert pairs.tolist() == sorted(pairs.tolist())


def test_nothing_is_close_to_nothing():
    pairs, distance = close_pairs(np.empty((0, 2), np.uint64), np.ones((3, 2), np.uint64))
    assert pairs.shape == (0, 2)
    assert distance.shape == (0,)
