"""Drawn faces: same seed same pixels, exact and distinct expressions, plausible adults."""

import numpy as np
import pytest

pytest.importorskip("py_avataaars_no_png")
pytest.importorskip("resvg_py")

from dataclasses import replace
from itertools import combinations

from synthfer.expressions import EXPRESSIONS
from synthfer.sources import avatars
from synthfer.sources.avatars import SKIN_TONES, draw, sample_attributes
from synthfer.sources.avatars.attributes import EXPRESSION_PARTS, INTENSITIES, RACES
from synthfer.sources.entry import SourceError


def test_a_face_is_a_function_of_its_seed() -> None:
    first, again, other = (draw(sample_attributes(seed)) for seed in (5, 5, 6))
    assert first.shape == (64, 64, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_size_is_the_callers() -> None:
    small, large = draw(sample_attributes(1), 64), draw(sample_attributes(1), 128)
    assert large.shape == (128, 128, 3)
    shrunk = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 4


def test_an_unknown_expression_is_refused() -> None:
    with pytest.raises(ValueError, match="anger"):
        sample_attributes(0, "joyful-ish")


def test_asking_for_an_expression_changes_nothing_else() -> None:
    faces = [sample_attributes(9, expression) for expression in EXPRESSIONS]
    assert [f.expression for f in faces] == list(EXPRESSIONS)
    assert len({(f.gender, f.age, f.race, f.intensity) for f in faces}) == 1


def test_no_two_expressions_are_drawn_with_the_same_parts() -> None:
    parts = {e: {p for i in INTENSITIES for p in EXPRESSION_PARTS[e][i]} for e in EXPRESSIONS}
    for a, b in combinations(EXPRESSIONS, 2):
        assert not parts[a] & parts[b], (a, b)


def test_every_two_expressions_differ_on_the_same_face() -> None:
    base = replace(sample_attributes(3), glasses=None, facial_hair=None, hair_style="bald", top="no_hair")
    for intensity in INTENSITIES:
        drawn = {e: draw(replace(base, parts=EXPRESSION_PARTS[e][intensity][0])).astype(int) for e in EXPRESSIONS}
        for a, b in combinations(EXPRESSIONS, 2):
            assert (np.abs(drawn[a] - drawn[b]).max(2) > 40).sum() > 15, (intensity, a, b)


def test_glasses_and_turned_heads_show() -> None:
    base = replace(sample_attributes(3), glasses=None, pose="frontal", mirrored=False)
    plain = draw(base).astype(int)
    assert np.abs(draw(replace(base, glasses="round")) - plain).max() > 60
    left, right = (draw(replace(base, pose=pose)).astype(int) for pose in ("left", "right"))
    flipped = draw(replace(base, pose="right", mirrored=True)).astype(int)
    assert np.abs(left - right).max() > 60
    assert np.abs(flipped[:, ::-1] - left).max() < 60  # the mirror is told apart from the turn


def test_people_are_adults_of_plausible_colour() -> None:
    faces = [sample_attributes(seed) for seed in range(400)]
    assert {f.age for f in faces} == {"young", "middle-aged", "old"}
    assert {f.expression for f in faces} == set(EXPRESSIONS)
    for face in faces:
        assert face.skin in RACES[face.race][0]
        r, g, b = face.skin_rgb
        assert r > g > b
        assert g - b < 0.3 * r  # the yellow of the stock set has 0.49
        assert max(abs(c - d) for c, d in zip(face.skin_rgb, SKIN_TONES[face.skin], strict=True)) <= 8
        assert face.gender == "male" or face.facial_hair is None


def test_without_its_packages_the_source_says_how_to_install_them(monkeypatch) -> None:
    monkeypatch.setattr(avatars, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"resvg_py.*pip install"):
        avatars.find(None, avatars.Config())
