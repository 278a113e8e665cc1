import copy
import json

import pytest
import yaml

from synthfer.expressions import EXPRESSIONS
from synthfer.planning.vocabulary import from_document, load_preset, presets, render, slots
from synthfer.schema import ConfigError

SMALL = {
    "templates": ["a {age} {gender} {expression}, {trait}"],
    "expressions": {name: f"who looks {name}" for name in EXPRESSIONS},
    "attributes": {
        "gender": ["woman", "man"],
        "age": {"young": "young", "old": "elderly"},
        "trait": {
            "by": ["gender", "age"],
            "values": {
                "woman": {"young": ["long hair", "a bob"], "old": ["grey hair"]},
                "man": {"young": ["short hair"], "old": ["a bald head"]},
            },
        },
    },
}


def small(**changes):
    """The small preset with changes: path=value with __ between the names of the path, None to delete."""
    document = copy.deepcopy(SMALL)
    for path, value in changes.items():
        *branch, last = path.split("__")
        node = document
        for name in branch:
            node = node[name]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return document


def refusal(document):
    with pytest.raises(ConfigError) as caught:
        from_document(document, "mine.yaml")
    assert str(caught.value).startswith("preset mine.yaml: ")
    return str(caught.value).removeprefix("preset mine.yaml: ")


def test_the_presets_that_ship_load():
    assert presets() == ["portrait", "syntfer"]
    for name in presets():
        vocabulary = load_preset(name)
        assert set(vocabulary.expressions) == set(EXPRESSIONS)
        assert from_document(json.loads(json.dumps(vocabulary.document(), sort_keys=True)), name) == vocabulary


def test_the_default_preset_asks_for_adults_only():
    assert load_preset("portrait").attributes["age"].values == ["middle-aged", "old", "young"]


def test_a_file_is_read_and_phrases_are_found(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(small(negative="blurry,\n  dark")))
    vocabulary = load_preset(str(path))
    cell = {"expression": "sad", "age": "old", "gender": "man", "trait": "a bald head"}
    assert vocabulary.phrases(cell)["age"] == "elderly"
    assert vocabulary.negative == "blurry, dark"


def test_the_order_of_names_in_a_file_does_not_matter():
    turned = small()
    turned["attributes"] = dict(reversed(turned["attributes"].items()))
    assert list(from_document(turned, "a").attributes) == ["age", "gender", "trait"]
    assert from_document(turned, "a").document() == from_document(small(), "b").document()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"templates": ["{expression} {gender} {trait} {agee}"]}, ["[0]", "{agee}", "did you mean 'age'"]),
        ({"templates": ["{expression} {gender} {age}"]}, ["templates[0]", "{trait}"]),
        ({"templates": ["{gender} {age} {trait}"]}, ["templates[0]", "{expression}"]),
        ({"templates": ["{expression} {age"]}, ["templates[0]"]),
        ({"templates": [3]}, ["templates[0]", "3"]),
        ({"templates": "a {age}"}, ["templates", "list"]),
        ({"templates": []}, ["templates", "empty"]),
        ({"template": ["a"]}, ["'template'", "did you mean 'templates'"]),
        ({"expressions__fear": None}, ["expressions.fear", "missing"]),
        ({"expressions__feer": "x"}, ["expressions.feer", "did you mean 'fear'"]),
        ({"expressions__fear": True}, ["expressions.fear", "True", "quote"]),
        ({"expressions__fear": " "}, ["expressions.fear", "text"]),
        ({"expressions__fear": "{age} fear"}, ["expressions.fear", "braces"]),
        ({"attributes__gender": []}, ["attributes.gender", "empty vocabulary"]),
        ({"attributes__gender": {}}, ["attributes.gender", "empty vocabulary"]),
        ({"attributes__gender": ["woman", "woman"]}, ["attributes.gender", "twice"]),
        ({"attributes__gender": {"woman": "person", "man": "person"}}, ["attributes.gender.man", "twice"]),
        ({"attributes__gender": {True: "woman"}}, ["attributes.gender", "True", "quote"]),
        ({"attributes__gender": "woman"}, ["attributes.gender", "'woman'"]),
        ({"attributes__hair": ["long"]}, ["attributes.hair", "not a recorded attribute", "trait"]),
        ({"attributes__trait__by": ["gendre", "age"]}, ["attributes.trait.by", "did you mean 'gender'"]),
        ({"attributes__trait__by": "gender"}, ["attributes.trait.by", "list"]),
        ({"attributes__trait__by": []}, ["attributes.trait.by", "list"]),
        ({"attributes__trait__values": None}, ["attributes.trait", "values"]),
        ({"attributes__trait__by": ["gender", "age", "trait"]}, ["attributes.trait.values", "map"]),
        ({"attributes__trait__values__man__old": None}, ["attributes.trait.values.man.old", "missing"]),
        ({"attributes__trait__values__man__old": []}, ["trait.values.man.old", "empty vocabulary"]),
        ({"attributes__trait__values__man__od": ["x"]}, ["man.od", "no such age", "did you mean 'old'"]),
        ({"attributes__age": {"by": ["gender"], "values": ["x"]}}, ["attributes.age.values", "map"]),
        ({"attributes": ["age"]}, ["attributes", "map"]),
    ],
)  # fmt: skip
def test_a_wrong_preset_is_refused_with_file_and_slot(changes, words):
    message = refusal(small(**changes))
    for word in words:
        assert word in message


def test_attributes_in_a_circle_are_refused():
    circle = {
        "gender": {"by": ["age"], "values": {"young": ["woman"], "old": ["man"]}},
        "age": {"by": ["gender"], "values": {"woman": ["young"], "man": ["old"]}},
    }
    document = {**small(), "attributes": circle, "templates": ["{age} {gender} {expression}"]}
    assert "age, gender depend on one another" in refusal(document)


def test_values_for_what_cannot_occur_together_are_refused():
    document = small(attributes__pose={
        "by": ["gender", "trait"],
        "values": {
            "woman": {"long hair": ["left"], "a bob": ["left"], "grey hair": ["left"]},
            "man": {"short hair": ["left"], "a bald head": ["left"], "a bob": ["left"]},
        },
    })  # fmt: skip
    assert "attributes.pose.values.man.a bob: no such trait" in refusal(document)


@pytest.mark.parametrize("text", ["templates: [", "!!python/object/apply:os.system ['true']", "\x00", "- a", ""])
def test_what_is_no_preset_is_refused_with_the_file(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        load_preset(str(path))


@pytest.mark.parametrize(("name", "words"), [("portrat", "did you mean 'portrait'"), ("no.yaml", "cannot be read")])
def test_an_unknown_preset_is_refused(name, words):
    with pytest.raises(ConfigError, match=words):
        load_preset(name)


def test_a_restriction_keeps_what_is_wanted_and_drops_what_depended_on_the_rest():
    vocabulary = from_document(small(), "mine").restricted({"gender": "woman", "age": ["young"]})
    assert vocabulary.attributes["gender"].values == ["woman"]
    assert vocabulary.attributes["trait"].groups == {("woman", "young"): {"long hair": "long hair", "a bob": "a bob"}}
    assert from_document(vocabulary.document(), "again") == vocabulary


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"age": "yung"}, ["plan.attributes.age", "'yung'", "did you mean 'young'", "old, young"]),
        ({"pose": "left"}, ["plan.attributes.pose", "it has age, gender, trait"]),
        ({"age": []}, ["plan.attributes.age", "empty"]),
        ({"trait": ["a bob", "short hair"]}, ["plan.attributes.trait", "gender=woman, age=old", "grey hair"]),
    ],
)
def test_a_wrong_restriction_is_refused_with_its_key(wanted, words):
    with pytest.raises(ConfigError) as caught:
        from_document(small(), "mine").restricted(wanted)
    for word in words:
        assert word in str(caught.value)


def test_a_template_is_filled_and_starts_with_a_capital():
    assert slots("{age} face, {pose}, {age}") == {"age", "pose"}
    assert render("{age} face, {pose}", {"age": "an old", "pose": "head tilted"}) == "An old face, head tilted"


@pytest.mark.parametrize("template", ["{age", "age}", "{}", "{age:>9}", "{age!r}", "{ag{e}}"])
def test_malformed_slots_are_refused_with_the_template(template):
    with pytest.raises(ConfigError) as caught:
        slots(template)
    assert repr(template) in str(caught.value)


def test_attribute_and_index_access_is_no_slot_of_a_vocabulary():
    assert slots("{age.__class__} {age[0]}") == {
        "age.__class__",
        "age[0]",
    }  # unknown slots, so refused on load
