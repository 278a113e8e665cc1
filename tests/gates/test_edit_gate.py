"""The gate of edits: a lazy edit keeps the person and gains nothing, a good one gains; bounds reject with a reason."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from synthfer import classifiers
from synthfer.classifiers import checkpoints
from synthfer.config import ConfigError, load
from synthfer.expressions import EXPRESSIONS
from synthfer.faces.paste import cut, paste
from synthfer.gates.edits import EditConfig, EditGate, gain
from synthfer.gates.totals import monotonicity, totals
from synthfer.generators import GeneratedImage
from synthfer.sample import Row

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
        same = replace(person, expression="happy", intensity=smiling.intensity, recipe=smiling.recipe)
        pairs.append((draw(person, 96), draw(same, 96)))
    return pairs


def made(source: np.ndarray, other: np.ndarray) -> GeneratedImage:
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
    gate = EditGate(EditConfig(identity="patches", judge=judge))
    source = people[0][0]
    (scores,) = gate.score([row()], [(source,)], [GeneratedImage(source.copy(), box=BOX)])
    assert scores["identity"] == pytest.approx(1, abs=1e-6)
    assert scores["gain"] == 0 and scores["background"] == 0
    assert 0 < scores["expression"] < 1


def test_another_expression_is_nearer_to_the_person_than_another_person(people):
    gate = EditGate(EditConfig(identity="patches"))
    sources = [neutral for neutral, _ in people]
    own = gate.score([row()] * 6, [(one,) for one in sources], [GeneratedImage(happy, box=BOX) for _, happy in people])
    others = gate.score(
        [row()] * 6, [(one,) for one in sources], [GeneratedImage(one, box=BOX) for one in sources[1:] + sources[:1]]
    )
    assert np.mean([one["identity"] for one in own]) > np.mean([one["identity"] for one in others]) + 0.1
    assert set(own[0]) == {"identity", "background"}


def test_scores_are_those_of_the_judge_on_the_cut_faces(judge, people):
    source, happy = people[1]
    edit = made(source, happy)
    gate = EditGate(EditConfig(judge=judge))
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
    gate = EditGate(EditConfig(identity="patches", judge=judge))
    rows, faces = [row()] * 6, [(neutral,) for neutral, _ in people]
    pictures = [made(neutral, happy) for neutral, happy in people]
    together = gate.score(rows, faces, pictures)
    for i in (0, 3, 5):
        assert gate.score(rows[i : i + 1], faces[i : i + 1], pictures[i : i + 1])[0] == together[i]


def test_background_counts_what_changed_outside_the_face(people):
    source, gate = people[2][0], EditGate(EditConfig())
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
    assert EditGate(EditConfig()).score([row()], [(source,)], [GeneratedImage(source, box=box)]) == [{}]


def test_rows_without_a_label_have_no_gain_and_are_not_rejected_for_it(judge, people):
    gate = EditGate(EditConfig(judge=judge, min_gain=0.5))
    (scores,) = gate.score([row(None)], [(people[0][0],)], [GeneratedImage(people[0][0])])
    assert scores == {} and gate.decide(scores) is None


def test_bounds_reject_with_their_reason(judge):
    gate = EditGate(EditConfig(identity="patches", judge=judge, min_identity=0.6, min_gain=0.2))
    good = {"identity": 0.6, "gain": 0.2, "expression": 0.4}
    assert gate.decide(good) is None
    assert gate.decide(good | {"identity": 0.5}) == "identity 0.500 is below 0.6"
    assert gate.decide(good | {"gain": 0.0}) == "gain 0.000 is below 0.2"


def test_the_producer_names_judge_and_embedder(judge):
    told = EditGate(EditConfig(identity="patches", judge=judge, min_gain=0.1)).producer()
    assert told["identity"] == {"name": "patches", "cells": 8, "directions": 8}
    assert told["judge"]["architecture"] == "small" and len(told["judge"]["weights_sha256"]) == 64
    assert told["min_gain"] == 0.1 and judge not in str(told)
    assert EditGate(EditConfig()).producer()["judge"] is None


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"gate\.identity: .*did you mean 'patches'"):
        EditGate(EditConfig(identity="patchs"))
    with pytest.raises(ConfigError, match=r"gate\.judge: "):
        EditGate(EditConfig(judge=str(tmp_path / "absent.safetensors")))
    with pytest.raises(ConfigError, match="min_gain needs judge"):
        load(EditConfig, ["min_gain=0.1"])


def test_monotonicity_is_spearmans():
    assert monotonicity([0.1, 0.4, 0.9], [0.2, 0.3, 0.31]) == pytest.approx(1)
    assert monotonicity([0.1, 0.4, 0.9], [0.5, 0.3, 0.1]) == pytest.approx(-1)
    # By hand, with a tie: ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4.
    assert monotonicity([1, 2, 2, 3], [0.1, 0.6, 0.5, 0.9]) == pytest.approx(0.9486832980505138)
    assert monotonicity([1, 1, 1], [0.1, 0.2, 0.3]) is None
    assert monotonicity([1, 2], [0.1, 0.2]) is None


def test_totals_are_means_per_expression():
    def told(label, code, **scores):
        listed = [{"gate": gate, "value": value} for gate, value in scores.items()]
        return {"label": label, "operation": "polar", "code": [0.3, code], "scores": listed}

    rows = [
        told(HAPPY, 0.5, identity=0.9, gain=0.1, expression=0.2),
        told(HAPPY, 0.8, identity=0.7, gain=0.3, expression=0.4),
        told(HAPPY, 1.1, identity=0.8, gain=0.2, expression=0.3),
        told(NEUTRAL, 0.05, identity=0.5, blur=3.0),
        {"label": NEUTRAL, "operation": "polar", "code": [0, 0], "scores": None},
        {"label": None, "operation": None, "code": None, "scores": []},
    ]
    found = totals(rows)
    assert list(found) == [HAPPY, NEUTRAL]
    assert found[HAPPY] == pytest.approx(
        {"rows": 3, "identity": 0.8, "gain": 0.2, "expression": 0.3, "monotonicity": 0.5}
    )
    assert found[NEUTRAL] == {"rows": 1, "identity": 0.5}
