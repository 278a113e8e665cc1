"""Cutting out and putting back: nothing changes outside, little where nothing was edited, and no seam is left."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.faces.align import TEMPLATE, align, transformed
from synthfer.faces.paste import cut, paste


def smooth(height: int = 200, width: int = 240) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    waves = [120 + 70 * np.sin(x / 17 + y / 41), 128 + 60 * np.cos(y / 13), 60 + 0.4 * x + 20 * np.sin(y / 9)]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


def change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(after.astype(int) - before.astype(int))


def outside(box: tuple[float, ...], picture: np.ndarray) -> np.ndarray:
    """Which pixels the box does not touch."""
    left, top, right, bottom = box
    y, x = np.mgrid[0 : picture.shape[0], 0 : picture.shape[1]]
    return (x + 1 <= left) | (x >= right) | (y + 1 <= top) | (y >= bottom)


def step(picture: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """The mean step across the box's border less the mean step next to it, in levels."""
    left, top, right, bottom = box
    values = picture.astype(float)
    down, across = np.abs(np.diff(values, axis=0)).mean(-1), np.abs(np.diff(values, axis=1)).mean(-1)
    lines = [down[top - 3 : top + 2, left:right], down[bottom - 3 : bottom + 2, left:right]]
    lines += [across[top:bottom, left - 3 : left + 2].T, across[top:bottom, right - 3 : right + 2].T]
    return float(np.mean([line[2].mean() - line[[0, 1, 3, 4]].mean() for line in lines]))


def test_the_matrix_takes_the_boxes_corners_to_the_squares():
    square, matrix = cut(smooth(), (30, 40, 130, 90), 64)
    assert square.shape == (64, 64, 3) and square.dtype == np.uint8
    corners = np.array([[30, 40], [130, 40], [30, 90], [130, 90]], float)
    np.testing.assert_allclose(transformed(matrix, corners), [[0, 0], [64, 0], [0, 64], [64, 64]], atol=1e-9)


def test_a_square_box_of_the_size_is_copied_bit_for_bit():
    picture = smooth()
    np.testing.assert_array_equal(cut(picture, (20, 30, 84, 94), 64)[0], picture[30:94, 20:84])


def test_edges_are_replicated_beyond_the_picture():
    square, _ = cut(smooth(), (-64, 10, 64, 138), 128)
    np.testing.assert_array_equal(square[:, 64:], smooth()[10:138, :64])
    assert (square[:, :64] == square[:, 64:65]).all()


def test_shrinking_averages_instead_of_picking():
    checks = np.repeat((np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    square, _ = cut(checks, (13.3, 20, 350, 300), 50)
    assert change(square, np.full_like(square, 127)).max() < 6


boxes = st.tuples(st.floats(-30, 150), st.floats(-30, 110), st.floats(40, 130), st.floats(40, 130)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@settings(max_examples=40, deadline=None)
@given(box=boxes, size=st.integers(64, 160))
@pytest.mark.parametrize("mode", ["feather", "hard"])
def test_an_unedited_cut_changes_little_inside_and_nothing_outside(mode, box, size):
    picture = smooth()
    square, matrix = cut(picture, box, size)
    before = picture.copy()
    result = paste(picture, square, matrix, mode)
    np.testing.assert_array_equal(picture, before)
    away = outside(box, picture)
    assert not change(picture, result)[away].any()
    assert change(picture, result)[~away].mean() < 1.5


@settings(max_examples=30, deadline=None)
@given(shift=st.tuples(*[st.integers(-40, 40)] * 3), size=st.sampled_from([64, 128, 200]))
def test_another_light_and_tint_leave_no_step(shift, size):
    picture, box = smooth(), (60, 40, 180, 160)
    square, matrix = cut(picture, box, size)
    result = paste(picture, (square + np.array(shift)).clip(0, 255).astype(np.uint8), matrix)
    assert abs(step(result, box)) < 1
    assert change(picture, result).mean() < 2  # light and tint are the picture's again


def test_the_hard_paste_shows_the_seam_that_the_feathered_one_hides():
    picture, box = smooth(), (60, 40, 180, 160)
    square, matrix = cut(picture, box, 128)
    tilt = np.linspace(10, 40, 128)[:, None, None]
    edited = (square + tilt).clip(0, 255).astype(np.uint8)
    assert step(paste(picture, edited, matrix, "hard"), box) > 15
    assert abs(step(paste(picture, edited, matrix), box)) < 1


def test_an_edit_inside_arrives_where_it_was_made():
    picture, box = smooth(), (60, 40, 180, 160)
    square, matrix = cut(picture, box, 128)
    square[70:90, 40:88] = (200, 30, 40)
    result = paste(picture, square, matrix)
    mouth = result[40 + 68 : 40 + 82, 60 + 40 : 60 + 80]  # 128 to 120 pixels, a little within
    assert change(mouth, np.full_like(mouth, (200, 30, 40))).max() < 12
    assert change(picture, result)[:60].max() < 12


def test_the_hard_paste_replaces_exactly_the_rectangle():
    picture = smooth()
    patch = np.full((50, 80, 3), 7, np.uint8)
    matrix = np.array([[1.0, 0, -100], [0, 1.0, -60]])
    result = paste(picture, patch, matrix, "hard")
    assert (result[60:110, 100:180] == 7).all()
    result[60:110, 100:180] = picture[60:110, 100:180]
    np.testing.assert_array_equal(result, picture)


def test_an_aligned_crop_is_put_back_too():
    picture = smooth()
    turn = np.array([[0.9, -0.35], [0.35, 0.9]])
    crop, matrix = align(picture, TEMPLATE @ turn.T + [70, 20], 128, 0.1)
    inside = change(picture, paste(picture, crop, matrix))
    assert inside.max() < 12 and inside.mean() < 0.5
    darker = paste(picture, (crop * 0.8).astype(np.uint8), matrix)
    assert change(picture, darker).mean() < 3


def test_the_same_input_gives_the_same_bytes():
    picture = smooth()
    square, matrix = cut(picture, (33.3, 20.1, 171.7, 150), 128)
    np.testing.assert_array_equal(paste(picture, square, matrix), paste(picture, square, matrix))


@pytest.mark.parametrize("portraits", ["photographic"], indirect=True)  # a drawing's hard lines suffer from resampling
@pytest.mark.parametrize("mode", ["feather", "hard"])
def test_faces_that_were_not_edited_stay_as_they_were(portraits, mode):
    shares = []
    for picture, (left, top, right, bottom) in portraits[::4]:
        result = paste(picture, *cut(picture, (left, top, right, bottom), 128), mode)
        shares.append(change(picture, result).sum() / (3 * (right - left) * (bottom - top)))
    assert np.mean(shares) < 2


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ({"mode": "soft"}, "mode 'soft' is not known; give one of feather, hard"),
        ({"patch": np.zeros((4, 4, 3))}, "the patch is float64"),
        ({"picture": np.zeros((4, 4), np.uint8)}, r"the picture is uint8 \(4, 4\)"),
        ({"matrix": np.zeros((2, 3))}, "invertible 2 x 3 matrix"),
        ({"matrix": np.full((2, 3), np.nan)}, "invertible 2 x 3 matrix"),
        ({"matrix": np.array([[1.0, 0, 500], [0, 1, 0]])}, "outside the picture of 240 x 200"),
    ],
)
def test_what_cannot_be_pasted_is_named(broken, what):
    square, matrix = cut(smooth(), (60, 40, 180, 160), 32)
    with pytest.raises(ValueError, match=what):
        paste(**({"picture": smooth(), "patch": square, "matrix": matrix} | broken))


@pytest.mark.parametrize("box", [(10, 10, 10, 20), (300, 10, 320, 20), (0, 0, np.inf, 5)])
def test_a_box_that_shows_nothing_is_named(box):
    with pytest.raises(ValueError, match="empty or outside the picture of 240 x 200"):
        cut(smooth(), box, 64)
