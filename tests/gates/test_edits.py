"""The gate of edits: a lazy edit keeps the person and gains nothing, a good one gains; bounds reject with a reason."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from synthfer import classifiers, gates
from synthfer.classifiers import checkpoints
from synthfer.config import load
from synthfer.expressions import EXPRESSIONS
from synthfer.faces.paste import cut, paste
from synthfer.gates.edits import Config, gain
from synthfer.generators import GeneratedImage
from synthfer.sample import Row
from synthfer.schema import ConfigError

HAPPY, NEUTRAL = EXPRESSIONS.index("happy"), EXPRESSIONS.index("neutral")
BOX = (20.0, 24.0, 76.0, 80.0)


def row(label: int | None = HAPPY, **more) -> Row:
    return Row(index=0, label=label, seed=1, operation="expression", code=(1.0,), **more)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A small classifier with random weights, its last layer widened so that it does not call all faces alike."""
    torch.manual_seed(0)
    model = classifiers.build("small").eval()
    with torch.no_grad():
        model.last_layer.weight *= 30
    path = tmp_path_factory.mktemp("judge") / "model.safetensors"
    checkpoints.save(model, path)
    return str(path)


@pytest.fixture(scope="module")
def people():
    pytest.importorskip("py_avataaars_no_png")
    from synthfer.sources.avatars import draw, sample_attributes

    pairs = []
    for seed in range(6):
        person, smiling = (sample_attributes(seed, name) for name in ("neutral", "happy"))
        same = replace(person, expression="happy", intensity=smiling.intensity, parts=smiling.parts)
        pairs.append((draw(person, 96), draw(same, 96)))
    return pairs


def edited(source: np.ndarray, other: np.ndarray) -> GeneratedImage:
    """The face of `other` in `source`."""
    square, matrix = cut(other, BOX, 64)
    return GeneratedImage(paste(source, square, matrix), box=BOX, matrix=matrix)


def test_gain_is_the_share_of_what_was_left():
    assert gain(0.2, 0.6) == pytest.approx(0.5)
    assert gain(0.5, 0.5) == 0
    assert gain(0.5, 0.25) == pytest.approx(-0.5)
    assert gain(0.9, 1.0) == pytest.approx(1)
    assert gain(1.0, 0.3) == 0


def test_an_edit_that_does_nothing_is_the_same_person_and_gains_nothing(judge, people):
    gate = gates.build("edits", identity="patches", judge=judge)
    source = people[0][0]
    (scores,) = gate.score([row()], [(source,)], [GeneratedImage(source.copy(), box=BOX)])
    assert scores["identity"] == pytest.approx(1, abs=1e-6)
    assert scores["gain"] == 0 and scores["background"] == 0
    assert 0 < scores["expression"] < 1


def test_another_expression_is_nearer_to_the_person_than_another_person(people):
    gate = gates.build("edits", identity="patches")
    sources = [neutral for neutral, _ in people]
    own = gate.score([row()] * 6, [(one,) for one in sources], [GeneratedImage(happy, box=BOX) for _, happy in people])
    others = gate.score(
        [row()] * 6, [(one,) for one in sources], [GeneratedImage(one, box=BOX) for one in sources[1:] + sources[:1]]
    )
    assert np.mean([one["identity"] for one in own]) > np.mean([one["identity"] for one in others]) + 0.1
    assert set(own[0]) == {"identity", "background"}


def test_scores_are_those_of_the_classifier_on_the_cut_faces(judge, people):
    source, happy = people[1]
    edit = edited(source, happy)
    gate = gates.build("edits", judge=judge)
    (scores,) = gate.score([row()], [(source,)], [edit])
    model = checkpoints.restore(judge)
    probs = []
    for picture in (source, edit.pixels):
        face = picture[24:80, 20:76]
        square = torch.from_numpy(np.ascontiguousarray(_resized(face, model.input.size).transpose(2, 0, 1)))
        with torch.inference_mode():
            probs.append(model(square[None]).logits.softmax(1)[0, HAPPY].item())
    assert scores["expression"] == pytest.approx(probs[1], abs=1e-5)
    assert scores["gain"] == pytest.approx((probs[1] - probs[0]) / (1 - probs[0]), abs=1e-5)


def _resized(face: np.ndarray, size: int) -> np.ndarray:
    from synthfer.images import square

    return square(face, size)


def test_a_score_depends_on_no_neighbour(judge, people):
    gate = gates.build("edits", identity="patches", judge=judge)
    rows, faces = [row()] * 6, [(neutral,) for neutral, _ in people]
    pictures = [edited(neutral, happy) for neutral, happy in people]
    together = gate.score(rows, faces, pictures)
    for i in (0, 3, 5):
        assert gate.score(rows[i : i + 1], faces[i : i + 1], pictures[i : i + 1])[0] == together[i]


def test_background_counts_what_changed_outside_the_face(people):
    source, gate = people[2][0], gates.build("edits")
    changed = source.copy()
    changed[24:80, 20:76] = 0  # inside
    outside = 96 * 96 - 56 * 56
    changed[0, :10] = np.where(source[0, :10] > 127, source[0, :10] - 40, source[0, :10] + 40)
    (scores,) = gate.score([row()], [(source,)], [GeneratedImage(changed, box=BOX)])
    assert scores == {"background": pytest.approx(10 * 40 / outside)}
    fractions = tuple(edge + 0.4 for edge in BOX)
    square, matrix = cut(people[2][1], fractions, 64)
    pasted = GeneratedImage(paste(source, square, matrix), box=fractions, matrix=matrix)
    assert gate.score([row()], [(source,)], [pasted])[0]["background"] == 0


@pytest.mark.parametrize("box", [None, (0.0, 0.0, 96.0, 96.0)])
def test_there_is_no_background_without_an_outside(box, people):
    source = people[0][0]
    assert gates.build("edits").score([row()], [(source,)], [GeneratedImage(source, box=box)]) == [{}]


def test_rows_without_a_label_have_no_gain_and_are_not_rejected_for_it(judge, people):
    gate = gates.build("edits", judge=judge, min_gain=0.5)
    (scores,) = gate.score([row(None)], [(people[0][0],)], [GeneratedImage(people[0][0])])
    assert scores == {} and gate.rejection(scores) is None


def test_bounds_reject_with_their_reason(judge):
    gate = gates.build("edits", identity="patches", judge=judge, min_identity=0.6, min_gain=0.2)
    good = {"identity": 0.6, "gain": 0.2, "expression": 0.4}
    assert gate.rejection(good) is None
    assert gate.rejection(good | {"identity": 0.5}) == "identity 0.500 is below 0.6"
    assert gate.rejection(good | {"gain": 0.0}) == "gain 0.000 is below 0.2"


def test_the_producer_names_classifier_and_embedder(judge):
    facts = gates.build("edits", identity="patches", judge=judge, min_gain=0.1).producer()
    assert facts["identity"] == {"name": "patches", "cells": 8, "directions": 8}
    assert facts["judge"]["architecture"] == "small" and len(facts["judge"]["weights_sha256"]) == 64
    assert facts["min_gain"] == 0.1 and judge not in str(facts)
    assert gates.build("edits").producer()["judge"] is None


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gate\.edits\.identity: .*did you mean 'patches'"):
        gates.build("edits", identity="patchs")
    with pytest.raises(ConfigError, match=r"gate\.edits\.judge: "):
        gates.build("edits", judge=str(tmp_path / "absent.safetensors"))
    with pytest.raises(ConfigError, match="min_gain needs judge"):
        load(Config, ["min_gain=0.1"])
