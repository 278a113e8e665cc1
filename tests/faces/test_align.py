"""Alignment: the transform is the right one, pixels land where the matrix says, edges and sizes behave."""

import numpy as np
import pytest

from synthfer.faces.align import (
    SIDE,
    TEMPLATE,
    align,
    crop_box,
    inverse,
    similarity,
    template,
    transformed,
    warp,
    widened,
)


def turned(degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([128 + 90 * np.sin(x / 17), 128 + 90 * np.cos(y / 13), x * 0 + 60 + y % 3], axis=-1).astype(
        np.uint8
    )


def dotted(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """A soft white dot at each point of a black picture."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    far = [(x - px) ** 2 + (y - py) ** 2 for px, py in points]
    light = np.exp(-np.min(far, axis=0) / (2 * 3.0**2)) * 255
    return np.repeat(light[..., None], 3, axis=2).astype(np.uint8)


def brightest(pixels: np.ndarray, near: np.ndarray, radius: int = 5) -> np.ndarray:
    """The centre of light around a place, in continuous coordinates."""
    left, top = np.maximum(np.floor(near).astype(int) - radius, 0)
    light = pixels[top : top + 2 * radius + 1, left : left + 2 * radius + 1, 0].astype(float)
    y, x = np.mgrid[0 : light.shape[0], 0 : light.shape[1]] + 0.5
    return np.array([left + (x * light).sum() / light.sum(), top + (y * light).sum() / light.sum()])


@pytest.mark.parametrize("degrees", [0, 20, -75, 180])
def test_a_known_similarity_is_recovered(degrees):
    matrix = turned(degrees, 0.37, (12.5, -80))
    np.testing.assert_allclose(similarity(TEMPLATE, transformed(matrix, TEMPLATE)), matrix, atol=1e-9)
    np.testing.assert_allclose(transformed(inverse(matrix), transformed(matrix, TEMPLATE)), TEMPLATE, atol=1e-9)


def test_it_is_the_least_squares_one():
    noise = np.random.default_rng(1)
    source, target = noise.normal(size=(5, 2)), noise.normal(size=(5, 2))
    best = similarity(source, target)

    def error(matrix: np.ndarray) -> float:
        return float(((transformed(matrix, source) - target) ** 2).sum())

    for step in (1e-3, -1e-3):
        for a, b, c, d in np.eye(4) * step:
            assert error(best + np.array([[a, -b, c], [b, a, d]])) > error(best)


def test_mirrored_points_are_not_mirrored_back():
    matrix = similarity(TEMPLATE * [-1, 1], TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize("points", [np.ones((5, 2)), np.full((5, 2), np.nan)])
def test_points_that_are_no_face_are_refused(points):
    with pytest.raises(ValueError, match="no similarity takes these points"):
        similarity(points, TEMPLATE)


@pytest.mark.parametrize(("size", "margin"), [(112, 0.0), (224, 0.0), (160, 0.25), (64, 0.1)])
@pytest.mark.parametrize("scale", [0.6, 2.5])
def test_points_land_on_the_template(size, margin, scale):
    points = transformed(turned(25, scale, (150, 60)), TEMPLATE)
    crop, matrix = align(dotted(points, 420, 420), points, size, margin)
    assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
    places = template(size, margin)
    np.testing.assert_allclose(transformed(matrix, points), places, atol=1e-6)
    radius = round(5 * size / 112)
    landed = np.array([brightest(crop, place, radius) for place in places])
    assert np.abs(landed - places).max() < 0.35


def test_the_margin_shows_more_of_the_same_face():
    np.testing.assert_allclose(template(), TEMPLATE)
    # A quarter of the side on each side: the template's square is the inner two thirds.
    np.testing.assert_allclose(template(168, 0.25), TEMPLATE + 28)
    picture = smooth(300, 300)
    points = TEMPLATE + 90
    tight, wide = align(picture, points)[0], align(picture, points, 168, 0.25)[0]
    np.testing.assert_array_equal(tight, picture[90 : 90 + SIDE, 90 : 90 + SIDE])
    np.testing.assert_array_equal(tight, wide[28:-28, 28:-28])


def test_edges_are_replicated():
    picture = smooth(112, 112)
    crop, _ = align(picture, TEMPLATE - [30, 0])
    np.testing.assert_array_equal(crop[:, 30:], picture[:, :-30])
    assert (crop[:, :28] == crop[:, :1]).all()
    np.testing.assert_array_equal(crop[:, 0], picture[:, 0])


def test_a_place_far_outside_is_one_colour():
    picture = smooth(40, 50)
    crop = warp(picture, turned(0, 1, (-5000, 9000)), 16)
    assert (crop == picture[0, -1]).all()


def test_shrinking_averages_instead_of_picking():
    checks = np.repeat((np.indices((800, 800)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    for degrees in (0, 30):
        crop, _ = align(checks, transformed(turned(degrees, 5, (300, 100)), TEMPLATE))
        assert np.abs(crop.astype(float) - 127.5).max() < 4


def test_a_crop_is_as_bright_as_its_picture():
    ramp = np.repeat(np.broadcast_to(np.arange(200, dtype=np.uint8), (200, 200))[..., None], 3, axis=2)
    matrix = turned(30, 1, (-10, -90))
    y, x = np.mgrid[0:64, 0:64] + 0.5
    expected = transformed(inverse(matrix), np.stack([x.ravel(), y.ravel()], axis=1))[:, 0] - 0.5
    off = warp(ramp, matrix, 64)[..., 0].ravel() - expected
    assert abs(off.mean()) < 0.05 and np.abs(off).max() < 0.6


def test_nothing_to_do_changes_nothing():
    picture = smooth(64, 64)
    np.testing.assert_array_equal(warp(picture, turned(0, 1, (0, 0)), 64), picture)


def test_the_same_input_gives_the_same_bytes_and_is_not_changed():
    picture = smooth(200, 200)
    before, points = picture.copy(), transformed(turned(-12, 1.3, (50, 10)), TEMPLATE)
    first = align(picture, points)[0]
    np.testing.assert_array_equal(first, align(np.asfortranarray(picture), points)[0])
    np.testing.assert_array_equal(picture, before)


def test_a_box_is_cut_out_in_its_own_aspect():
    picture = smooth(60, 80)
    np.testing.assert_array_equal(crop_box(picture, (10, 20, 30, 30)), picture[20:30, 10:30])
    np.testing.assert_array_equal(crop_box(picture, (10, 20, 30, 30), 0.25), picture[15:35, 5:35])
    np.testing.assert_array_equal(crop_box(picture, (-10, 50, 20, 90)), picture[50:60, 0:20])
    assert widened((10.2, 20.7, 29.9, 30.0), 0, 80, 60) == (10, 20, 30, 30)


def test_a_cut_does_not_hold_on_to_the_picture():
    picture = smooth(60, 80)
    cut = crop_box(picture, (0, 0, 10, 10))
    cut[:] = 0
    assert picture[:10, :10].any()


@pytest.mark.parametrize(
    "box", [(10, 10, 10, 20), (30, 10, 20, 20), (80, 0, 90, 10), (0, -20, 10, 0), (0, 0, np.nan, 5), (0, 0, np.inf, 5)]
)
def test_an_empty_or_outside_box_is_named(box):
    with pytest.raises(ValueError, match="empty or outside the picture of 80 x 60") as error:
        crop_box(smooth(60, 80), box)
    assert str(tuple(box)) in str(error.value)
