"""The face step: what a worker does to each picture, with and without the detector."""

import json

import numpy as np
import pytest
from PIL import Image

from synthfer.config import load
from synthfer.faces import FaceConfig, FaceStep, overlap
from synthfer.faces.align import crop_box, inverse, template, transformed
from synthfer.faces.mtcnn import INSTALL, Detector, Face
from synthfer.schema import ConfigError

Portraits = list[tuple[np.ndarray, tuple[float, ...]]]


@pytest.fixture
def picture() -> np.ndarray:
    y, x = np.mgrid[0:60, 0:80]
    return np.stack([x * 3, y * 4, (x + y) % 256], axis=-1).astype(np.uint8)


@pytest.fixture(scope="session")
def step(detector: Detector) -> FaceStep:
    return FaceStep(FaceConfig(align=True))


def angle(direction: np.ndarray) -> float:
    """Of a direction (x, y) from the horizontal, in degrees; clockwise, since y goes down."""
    return float(np.degrees(np.arctan2(direction[1], direction[0])))


def test_the_default_leaves_a_picture_as_it_is(picture):
    crop = FaceStep(FaceConfig()).apply(picture)
    np.testing.assert_array_equal(crop.pixels, picture)
    assert crop.box == (0, 0, 80, 60) and crop.score is None
    np.testing.assert_array_equal(crop.matrix, np.eye(3)[:2])


def test_a_margin_needs_a_box(picture):
    for size in (None, 80):
        plain, wide = (FaceStep(FaceConfig(size=size, margin=margin)).apply(picture).pixels for margin in (0.0, 0.5))
        np.testing.assert_array_equal(plain, wide)


def test_a_given_box_is_cut_out_with_its_margin(picture):
    crop = FaceStep(FaceConfig(margin=0.25)).apply(picture, (20, 10, 40, 20))
    np.testing.assert_array_equal(crop.pixels, crop_box(picture, (20, 10, 40, 20), 0.25))
    np.testing.assert_array_equal(transformed(crop.matrix, np.array([[15.0, 5.0]])), [[0, 0]])
    assert crop.box == (20, 10, 40, 20)


def test_a_size_makes_the_square_about_the_box_without_stretching(picture):
    crop = FaceStep(FaceConfig(size=40, margin=0.5)).apply(picture, (20, 20, 40, 30))
    np.testing.assert_array_equal(crop.pixels, picture[5:45, 10:50])
    whole = FaceStep(FaceConfig(size=80)).apply(picture).pixels
    np.testing.assert_array_equal(whole[10:70], picture)
    assert (whole[:10] == picture[0]).all() and (whole[70:] == picture[-1]).all()


def test_a_size_shrinks_with_antialiasing():
    checks = np.repeat((np.indices((400, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    crop = FaceStep(FaceConfig(size=50)).apply(checks)
    assert crop.pixels.shape == (50, 50, 3)
    assert np.abs(crop.pixels.astype(float) - 127.5).max() <= 2


@pytest.mark.parametrize("size", [None, 32])
def test_a_box_outside_the_picture_is_refused(picture, size):
    with pytest.raises(ValueError, match="outside the picture of 80 x 60"):
        FaceStep(FaceConfig(size=size)).apply(picture, (90, 0, 120, 30))


def test_a_box_far_over_the_edge_costs_no_memory(picture):
    crop = FaceStep(FaceConfig(size=30)).apply(picture, (-1e9, -1e9, 30, 30))
    np.testing.assert_array_equal(crop.pixels, picture[:30, :30])


def test_without_weights_only_aligning_fails(tmp_path):
    FaceStep(FaceConfig(weights=str(tmp_path)))
    with pytest.raises(ConfigError) as error:
        FaceStep(FaceConfig(align=True, weights=str(tmp_path)))
    assert INSTALL in str(error.value)


def test_options_are_checked():
    assert load(FaceConfig, ["align=true", "size=224"]) == FaceConfig(align=True, size=224)
    with pytest.raises(ConfigError) as error:
        load(FaceConfig, ["size=0", "margin=-1", "min_score=2"])
    assert all(key in str(error.value) for key in ("size", "margin", "min_score"))


def test_the_producer_says_what_the_crops_depend_on(step):
    plain = FaceStep(FaceConfig(size=64, min_score=0.5)).producer()
    assert plain == {"align": False, "size": 64, "margin": 0.0}
    aligned = json.loads(json.dumps(step.producer()))
    assert aligned["size"] == 112 and aligned["min_score"] == 0.9
    assert set(aligned["detector"]["weights"]) == {"pnet.pt", "rnet.pt", "onet.pt"}


def test_no_face_gives_no_crop(step, picture):
    assert step.apply(picture) is None
    assert step.apply(picture, (10, 10, 50, 50)) is None


def test_a_face_below_the_least_score_does_not_count(portraits: Portraits, found: list[list[Face]], step: FaceStep):
    index, face = next((i, faces[0]) for i, faces in enumerate(found) if len(faces) == 1 and faces[0].score < 1)
    strict = FaceStep(FaceConfig(align=True, min_score=(1 + face.score) / 2))
    assert strict.apply(portraits[index][0]) is None
    assert step.apply(portraits[index][0]).score == face.score


@pytest.mark.parametrize("portraits", ["photographic"], indirect=True)  # of a drawing it is less sure: not both times
def test_aligned_eyes_are_found_again_at_their_place(detector: Detector, step: FaceStep, portraits: Portraits):
    wide = FaceStep(FaceConfig(align=True, size=224, margin=0.25))
    off = []
    for picture, _ in portraits[:20]:
        crop = wide.apply(picture)
        assert crop.pixels.shape == (224, 224, 3)
        again = detector.detect(crop.pixels)
        off.append(np.linalg.norm(again[0].points[:2] - template(224, 0.25)[:2], axis=1))
    # Of a distance of 47 pixels between the eyes.
    assert np.median(off) < 3
    assert np.max(np.median(off, axis=1)) < 12


@pytest.mark.parametrize("degrees", [20, -20])
def test_a_turned_face_is_upright_again(step: FaceStep, detector: Detector, portraits: Portraits, degrees: int):
    """Image.rotate turns against the clock, so the way back is clockwise by as much."""
    upright, turned = [], []
    for picture, _ in portraits[:12]:
        turn = Image.fromarray(picture).rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
        straight, crop = step.apply(picture), step.apply(np.array(turn))
        if straight is None or crop is None:
            continue
        turned.append(angle(crop.matrix[:, 0]) - angle(straight.matrix[:, 0]))
        again = detector.detect(crop.pixels)
        upright += [angle(again[0].points[1] - again[0].points[0])] if again else []
    assert len(turned) >= 10
    assert abs(np.median(turned) - degrees) < 4
    assert np.median(np.abs(upright)) < 5


def test_a_given_box_picks_its_face(step: FaceStep, portraits: Portraits, found: list[list[Face]]):
    first, second = [i for i, faces in enumerate(found) if len(faces) == 1 and faces[0].score > 0.99][:2]
    scene = np.concatenate([portraits[first][0], portraits[second][0]], axis=1)
    for index, shift in ((first, 0), (second, 256)):
        face = found[index][0]
        left, top, right, bottom = face.box
        crop = step.apply(scene, (left + shift, top, right + shift, bottom))
        assert overlap(crop.box, (left + shift, top, right + shift, bottom)) > 0.6
        centre = transformed(inverse(crop.matrix), template()).mean(axis=0) - [shift, 0]
        np.testing.assert_allclose(centre, face.points.mean(axis=0), atol=4)


def test_of_several_faces_around_a_box_the_one_in_it_counts(step: FaceStep, monkeypatch, picture):
    """The detector's order does not matter, and its coordinates are those of the cut about the box: from (20, 10)."""
    points = template(20)
    found = [Face(box, 0.95, points + box[:2]) for box in ((0.0, 0.0, 12.0, 12.0), (9.0, 9.0, 31.0, 31.0))]
    monkeypatch.setattr(Detector, "detect", lambda self, pixels: found)
    crop = step.apply(picture, (30, 20, 50, 40))
    assert crop.box == (29, 19, 51, 41)
    np.testing.assert_allclose(transformed(crop.matrix, np.add(points, (29, 19))), template(), atol=1e-6)
    for box, score in (((0.0, 0.0, 8.0, 8.0), 0.95), ((9.0, 9.0, 31.0, 31.0), 0.85)):
        found[:] = [Face(box, score, points)]
        assert step.apply(picture, (30, 20, 50, 40)) is None


def test_the_same_picture_gives_the_same_crop(step: FaceStep, portraits: Portraits):
    first, other = portraits[0][0], portraits[1][0]
    crop = step.apply(first)
    step.apply(other)
    np.testing.assert_array_equal(crop.pixels, step.apply(first.copy()).pixels)
