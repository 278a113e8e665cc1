"""Blocked search equals the whole matrix, whatever the blocks; parts join to the whole; quantiles are the sample's."""

import numpy as np
import pytest

from synthfer.audit.neighbours import merge, nearest, top_matches


def unit(rng, *shape):
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def by_hand(left, right, threshold, keep):
    scores = np.einsum("nd,mvd->nmv", left, right)
    found = []
    for column in range(len(right)):
        best = scores[:, column].max(1)
        rows = [row for row in np.argsort(-best)[:keep] if best[row] >= threshold]
        found += [(row, column, int(scores[row, column].argmax())) for row in rows]
    return found


def as_rows(found):
    return list(zip(found.left.tolist(), found.right.tolist(), found.view.tolist(), strict=True))


@pytest.mark.parametrize("block", [(1, 1), (7, 12), (64, 6), (512, 4992)])
@pytest.mark.parametrize(("threshold", "keep"), [(0.3, 3), (-1.0, 2), (0.9, 5), (-1.0, 100)])
def test_the_best_views_are_those_of_the_whole_matrix(block, threshold, keep):
    rng = np.random.default_rng(0)
    left, right = unit(rng, 53, 16), unit(rng, 21, 6, 16)
    found = top_matches(left, right, threshold, keep, block)
    assert as_rows(found) == by_hand(left, right, threshold, keep)
    products = np.einsum("kd,kd->k", left[found.left], right[found.right, found.view])
    assert np.allclose(found.score, products, atol=1e-5)


def test_one_view_needs_no_axis():
    rng = np.random.default_rng(1)
    left, right = unit(rng, 30, 8), unit(rng, 9, 8)
    found = top_matches(left, right, 0.2, 4, (8, 4))
    assert as_rows(found) == by_hand(left, right[:, None], 0.2, 4)


def test_blocks_of_left_and_right_rows_join_to_the_whole():
    rng = np.random.default_rng(2)
    left, right = unit(rng, 40, 8), unit(rng, 15, 8)
    whole = top_matches(left, right, 0.0, 3)
    parts = [
        top_matches(left[i : i + 13], right[j : j + 4], 0.0, 3).moved(i, j)
        for i in range(0, 40, 13)
        for j in range(0, 15, 4)
    ]
    assert as_rows(merge(*parts, keep=3)) == as_rows(whole)


def test_the_nearest_of_two_blocks_is_the_nearest_of_all():
    rng = np.random.default_rng(3)
    left, right = unit(rng, 40, 8), unit(rng, 15, 8)
    joined = merge(nearest(left[:25], right), nearest(left[25:], right).moved(25), keep=1)
    assert joined.right.tolist() == list(range(15))
    assert joined.left.tolist() == (left @ right.T).argmax(0).tolist()


def test_empty_and_damaged_rows_match_nothing():
    rng = np.random.default_rng(4)
    left, right = unit(rng, 6, 4), unit(rng, 5, 4)
    assert len(top_matches(left[:0], right, -1.0, 2)) == 0
    assert len(top_matches(left, right[:0], -1.0, 2)) == 0
    left[2], left[3] = np.nan, 0
    found = top_matches(left, right, 0.01, 6)
    assert not {2, 3} & set(found.left.tolist())
    assert as_rows(found) == as_rows(top_matches(np.nan_to_num(left), right, 0.01, 6))
    assert len(found) > 5


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        top_matches(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32), 0.0, 1)
    with pytest.raises(ValueError, match="keep is 0"):
        top_matches(np.ones((2, 3), np.float32), np.ones((2, 3), np.float32), 0.0, 0)
