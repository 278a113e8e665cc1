"""Planted copies are found and other faces are not; the scan equals plain arithmetic; odd input does no harm."""

import io
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synthfer.audit import copies
from synthfer.audit.copies import KINDS, CopyScan, confirm, find, patches, plant, scan, to_grey, views
from synthfer.audit.neighbours import top_matches

SETTLED = CopyScan()
TRAIN, TEST = 200, 50


@pytest.fixture(scope="module")
def drawn():
    """Drawn training faces and test faces of other persons: two lists of pixels."""
    pytest.importorskip("py_avataaars_no_png")
    from synthfer.sources.avatars import appearance_half, draw, sample_attributes

    sides = [[], []]
    for face in map(sample_attributes, range(5000, 5600)):
        sides[appearance_half(face)].append(face)
    return [[draw(face, 64) for face in faces[:total]] for faces, total in zip(sides, (TRAIN, TEST), strict=True)]


@pytest.fixture(scope="module")
def photographed(shared_data):
    """FER2013: training faces, and test faces without a natural twin among them."""
    table = pq.read_table(shared_data / "fer2013_small.parquet", columns=["image", "split"])
    split, pixels = np.array(table["split"].to_pylist()), []
    for name, total in (("train", TRAIN), ("public_test", TEST)):
        files = table["image"].take(np.flatnonzero(split == name)[:total]).to_pylist()
        pixels.append([np.array(Image.open(io.BytesIO(body)).convert("RGB")) for body in files])
    return pixels


@pytest.fixture(params=["drawn", "photographed"])
def faces(request):
    """Both kinds of faces, one after the other."""
    return request.getfixturevalue(request.param)


def grey(faces):
    return np.stack([to_grey(face) for face in faces])


def found_copies(train, test, kind, reverse=False):
    """Share of copies of test faces, planted beside the clean training faces, that are found; or copied in reverse."""
    planted = grey([plant(face, kind, np.random.default_rng([1, i])) for i, face in enumerate(test)])
    theirs, ours = (grey(test), planted) if reverse else (planted, grey(test))
    found = find(np.concatenate([grey(train), theirs]), ours)
    return np.isin(np.arange(len(test)), found.right[found.left - len(train) == found.right]).mean()


FOUND = (
    "exact",
    "mirror",
    "brightness",
    "jpeg",
    "rotate",
    *(f"{kind}+mirror+brightness" for kind in ("rotate", "zoom")),
)


@pytest.mark.parametrize("kind", [*FOUND, "crop", "shrink"])
def test_planted_copies_of_drawn_faces_are_found(drawn, kind):
    assert found_copies(*drawn, kind) >= 0.9


@pytest.mark.parametrize("kind", [*FOUND, "crop", "crop+mirror+brightness"])
def test_planted_copies_of_photographs_are_found(photographed, kind):
    assert found_copies(*photographed, kind) >= 0.9


@pytest.mark.parametrize("kind", ["rotate", "crop", "zoom"])
def test_a_test_picture_that_was_made_from_a_training_picture_is_found_too(faces, kind):
    assert found_copies(*faces, kind, reverse=True) >= 0.9


def test_faces_that_are_only_alike_are_no_copies(faces):
    train, test = faces
    assert len(find(grey(train), grey(test))) == 0


def test_hashes_miss_what_is_found_here(drawn):
    from synthfer.audit.perceptual import close_pairs, hashes

    _, test = drawn
    turned = [plant(face, "rotate", np.random.default_rng([2, i])) for i, face in enumerate(test)]
    pairs, _ = close_pairs(*(np.stack([hashes(face) for face in faces]) for faces in (turned, test)), radius=10)
    assert (pairs[:, 0] == pairs[:, 1]).sum() < 0.5 * len(test)


def test_the_scan_is_plain_arithmetic_for_any_block(drawn):
    left, right = patches(grey(drawn[0][:50])), views(grey(drawn[1][:7]))
    assert left.shape == (50, 576)
    assert right.shape == (7, len(copies.VIEWS), 576)
    scores = np.einsum("nd,mvd->nmv", left, right)
    config = replace(SETTLED, similar=0.3, keep=5)
    for block in ((1, 1), (16, 300), (512, 4992)):
        found = scan(left, right, config, block)
        for test in range(7):
            best = scores[:, test].max(1)
            expected = [row for row in np.argsort(-best)[:5] if best[row] >= 0.3]
            mine = found.right == test
            assert found.left[mine].tolist() == expected
            assert np.allclose(found.score[mine], best[expected], atol=1e-5)
            assert np.allclose(scores[expected, test, found.view[mine]], best[expected], atol=1e-5)


def test_patches_and_views_have_zero_mean_and_unit_norm(drawn):
    for vectors in (patches(grey(drawn[0][:5])), views(grey(drawn[0][:5]))):
        assert vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)
        assert np.abs(vectors.mean(-1)).max() < 1e-6


def test_a_mirrored_face_has_the_same_views(drawn):
    one = grey(drawn[0][:4])
    here, there = views(one), views(np.ascontiguousarray(one[:, :, ::-1]))
    kinds = {kind: place for place, kind in enumerate(copies.VIEWS)}
    for (flip, angle, zoom, right, down), place in kinds.items():
        twin = kinds[-flip, angle, zoom, -right or 0.0, down]
        assert np.allclose(here[:, place], there[:, twin], atol=1e-4)


def test_the_score_of_an_exact_copy_is_one_and_does_not_hang_on_company(drawn):
    train, test = grey(drawn[0]), grey(drawn[1])
    train[17] = test[4]
    found = find(train, test)
    assert (found.left.tolist(), found.right.tolist()) == ([17], [4])
    assert found.score[0] == pytest.approx(1, abs=5e-3)
    alone = find(train[17:18], test[4:5])
    assert alone.score[0] == pytest.approx(found.score[0], abs=1e-5)


def test_as_many_copies_are_kept_as_are_asked_for(drawn):
    test = grey(drawn[1][:1])
    train = np.repeat(test, 9, axis=0)
    assert len(find(train, test, replace(SETTLED, finalists=4))) == 4
    assert len(find(train, test, replace(SETTLED, keep=3))) == 3


def test_flat_pictures_match_nothing(drawn):
    flat = np.stack([np.zeros((48, 48), np.uint8), np.full((48, 48), 255, np.uint8), np.full((48, 48), 90, np.uint8)])
    faces = grey(drawn[0][:20])
    assert not patches(flat).any()
    assert not views(flat).any()
    assert len(find(flat, faces)) == len(find(faces, flat)) == 0
    every_pair = top_matches(patches(flat), views(flat), -1.0, 9)
    assert len(every_pair) == 9
    assert len(confirm(flat, flat, every_pair)) == 0


def test_nothing_has_no_copies(drawn):
    faces, none = grey(drawn[0][:3]), np.empty((0, 48, 48), np.uint8)
    assert len(find(none, faces)) == len(find(faces, none)) == len(find(none, none)) == 0


def test_any_size_and_aspect_becomes_48(drawn):
    face = drawn[0][0]
    assert to_grey(face).shape == to_grey(face[:30]).shape == (48, 48)
    assert to_grey(face).dtype == np.uint8


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_copy_is_a_picture_of_the_same_size_drawn_from_the_seed(drawn, kind):
    face = drawn[0][3][:60]
    before = face.copy()
    first, again = (plant(face, kind, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == face.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.array_equal(face, before)
    assert np.array_equal(first, face) == (kind == "exact")


def test_an_unknown_kind_of_copy_is_named(drawn):
    with pytest.raises(ValueError, match=r"'warp'.*rotate"):
        plant(drawn[0][0], "mirror+warp", np.random.default_rng(0))
