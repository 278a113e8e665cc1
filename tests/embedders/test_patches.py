"""The registry, and the built-in descriptor: near copies are near, other faces are not, whatever the company."""

import numpy as np
import pytest

from synthfer import embedders
from synthfer.audit.copies import plant


@pytest.fixture(scope="module")
def faces():
    pytest.importorskip("py_avataaars_no_png")
    from synthfer.sources.avatars import draw, sample_attributes

    return [draw(sample_attributes(seed), 64) for seed in range(60)]


def test_the_registry_names_the_nearest():
    assert "patches" in embedders.names()
    with pytest.raises(ValueError, match="did you mean 'patches'"):
        embedders.build("patchs")
    assert embedders.module("synthfer.embedders.patches") is embedders.module("patches")


def test_vectors_are_unit_and_of_one_picture_alone(faces):
    embedder = embedders.build("patches")
    vectors = embedder.embed(faces)
    assert vectors.shape == (60, 512)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors[7], embedder.embed([faces[7]])[0])
    assert embedder.embed([]).shape == (0, 512)
    assert embedder.producer() == {"cells": 8, "directions": 8}


@pytest.mark.parametrize("kind", ["brightness", "jpeg", "shrink"])
def test_a_near_copy_is_nearer_than_any_other_face(faces, kind):
    embedder, rng = embedders.build("patches"), np.random.default_rng(1)
    copies = embedder.embed([plant(face, kind, rng) for face in faces])
    scores = copies @ embedder.embed(faces).T
    assert (scores.argmax(1) == np.arange(60)).mean() > 0.95
    assert np.diag(scores).min() > 0.85


def test_flat_pictures_are_like_each_other_and_no_face(faces):
    embedder = embedders.build("patches")
    flat = embedder.embed([np.zeros((48, 48, 3), np.uint8), np.full((20, 30, 3), 200, np.uint8)])
    assert flat[0] @ flat[1] == pytest.approx(1)
    assert np.abs(flat @ embedder.embed(faces).T).max() < 1e-5


def test_other_grids_have_other_lengths(faces):
    assert embedders.build("patches", cells=4, directions=6).embed(faces[:2]).shape == (2, 96)
