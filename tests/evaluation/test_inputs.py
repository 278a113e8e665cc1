"""Answers reach the right class by name, absent classes are ruled out, wrong input is named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.evaluation import inputs
from synthfer.expressions import EXPRESSIONS
from tests.evaluation.matrix_inputs import a_test_set, candidate, facts, labels, probabilities


@given(st.permutations(EXPRESSIONS))
@settings(max_examples=30, deadline=None)
def test_outputs_in_any_order_are_put_in_order(order):
    test = a_test_set()
    ours = probabilities(test.labels).astype(np.float64)
    theirs = ours[:, [EXPRESSIONS.index(name) for name in order]]
    told = inputs.align(candidate(classes=tuple(order)), test, theirs)
    assert told.probs == pytest.approx(ours, abs=1e-6)
    assert not told.was_masked


def test_outputs_may_be_named_in_the_words_of_the_field():
    test = a_test_set()
    probs = probabilities(test.labels)
    words = ("Angry", "disgusted", "fearful", "happiness", "neutral", "sadness", "surprised")
    assert (inputs.align(candidate(classes=words), test, probs).predicted == probs.argmax(1)).all()


def test_a_class_outside_the_seven_is_ruled_out_as_if_its_logit_were_not_there():
    test = a_test_set()
    logits = np.random.default_rng(1).standard_normal((len(test), 8)) * 3
    powers = np.exp(logits)
    one = candidate(classes=("contempt", *EXPRESSIONS))
    told = inputs.align(one, test, powers / powers.sum(1, keepdims=True))
    assert told.names == one.names == (*EXPRESSIONS, "contempt")
    assert told.probs == pytest.approx(powers[:, 1:] / powers[:, 1:].sum(1, keepdims=True), abs=1e-12)
    assert told.unmasked[:, 7] == pytest.approx(powers[:, 0] / powers.sum(1), abs=1e-12)
    assert told.was_masked


def test_an_expression_without_rows_is_ruled_out():
    test = a_test_set(given=labels(classes=[0, 2, 3, 4, 5, 6]))
    told = inputs.align(candidate(), test, probabilities(test.labels, sure=0))
    assert told.was_masked
    assert not told.probs[:, 1].any()
    assert (told.predicted != 1).all()
    assert (told.unmasked.argmax(1) == 1).any()


def test_a_class_that_the_network_lacks_is_always_wrong():
    test = a_test_set()
    six = tuple(name for name in EXPRESSIONS if name != "fear")
    told = inputs.align(candidate(classes=six), test, probabilities(np.zeros(len(test), int), classes=6))
    assert not told.was_masked
    assert not told.probs[:, 2].any()
    assert (told.predicted[test.labels == 2] != 2).all()


def test_a_row_that_says_nothing_of_the_classes_is_shared_evenly_among_those_the_network_has():
    test = a_test_set(given=labels(classes=[0, 2, 3]))
    probs = probabilities(test.labels, classes=8)
    probs[5] = np.eye(8)[7]
    outputs = (*(name for name in EXPRESSIONS if name != "anger"), "contempt", "none")
    told = inputs.align(candidate(classes=outputs), test, probs)
    row = np.zeros(7)
    row[[2, 3]] = 0.5
    assert told.probs[5].tolist() == row.tolist()
    assert told.unmasked[5, told.names.index("none")] == 1


def test_the_diagonal_is_where_it_learned_from_the_same_collection():
    test = a_test_set()
    for trained_on, expected in {("rafdb:train",): True, ("expw:train",): False, (): False}.items():
        assert inputs.diagonal(candidate(trained_on=trained_on), test) is expected
    assert inputs.diagonal(candidate(ancestors=("rafdb:train",)), test)
    assert inputs.diagonal(candidate(trained_on=("fer2013:train",)), a_test_set("ferplus"))  # the same pictures


def test_a_test_set_tells_what_it_has():
    table = facts("rafdb", [0, 3, 3, 6], source=["rafdb", "ckplus", "rafdb", "rafdb"])
    test = inputs.TestSet(name="both", uri="out/both", hash="x", splits=("test",), facts=table)
    assert test.support.tolist() == [1, 0, 0, 2, 0, 0, 1]
    assert test.collections == ("ckplus", "rafdb")
    assert test.origins == {("ckplus", "test"): 1, ("rafdb", "test"): 3}


def test_lineages_are_rows_of_one_original():
    test = a_test_set(given=[0, 1, 2, 3, 4], source_id=["photo", None, "photo", "other", None])
    same = test.lineages[:, None] == test.lineages
    assert same.tolist() == (np.eye(5, dtype=bool) | np.outer(*[[1, 0, 1, 0, 0]] * 2).astype(bool)).tolist()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"selection": "val"}, "a-0: selection is 'val', not one of validation, unknown, test"),
        ({"trained_on": ("rafdb",)}, "names 'rafdb'; write collection:split"),
        ({"ancestors": ("rafdb:validation",)}, "names 'rafdb:validation'"),
        ({"classes": ("anger", "happy", "Angry")}, "two outputs are anger"),
        ({"classes": ()}, "it has no output"),
        ({"classes": ("anger", "hapy")}, "a-0: unknown expression 'hapy'; did you mean 'happy'"),
    ],
)
def test_a_wrong_candidate_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        candidate(**wrong)


def test_a_wrong_test_set_is_named():
    for told, columns, message in (
        ([], {}, "no labelled row in test"),
        ([0, 1], {"label": [0, None]}, "row 1 is -1.*leave out"),
        ([0, 1], {"sample_id": ["x", "x"]}, "occurs twice"),
    ):
        with pytest.raises(ValueError, match=f"test set rafdb: .*{message}"):
            a_test_set(given=np.array(told, np.int64), **columns)


def test_wrong_answers_are_named():
    test = a_test_set()
    probs = probabilities(test.labels)
    shapes = r"probabilities are \(300, 6\), expected \(300, 7\)"
    with pytest.raises(ValueError, match=f"predictions of a-0 on rafdb: {shapes}"):
        inputs.align(candidate(), test, probs[:, :6])
    with pytest.raises(ValueError, match=r"predictions of a-0 on rafdb: probabilities: row 0.*softmax"):
        inputs.align(candidate(), test, np.log(probs))
    with pytest.raises(ValueError, match="none of its classes; leave this pair out"):
        inputs.align(candidate(classes=("sad",)), a_test_set(given=[0, 1, 0]), np.ones((3, 1)))
