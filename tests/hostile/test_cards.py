"""Cards from strangers: plain data, bounded; each kind of wrong card is one message that names the card and the key."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.checkpoints import Card
from synthfer.classifiers.checkpoints import ClassifierCard, ClassifierCheckpoint, collect, restore
from synthfer.evaluation.naming import name_checkpoints
from tests.hostile.cards import card, checkpoint
from tests.hostile.exit_codes import refusal

SECRET = "hush-7f3a"
DEEP = 5000

OF_ANOTHER_KIND = {
    "no architecture": (card(architecture=None), "architecture: expected text"),
    "an architecture that is a list": (card(architecture=["small"]), "architecture: expected text"),
    "an architecture that is a number": (card(architecture=7), "architecture: expected text"),
    "an architecture of nothing": (card(architecture=""), "unknown classifier ''"),
    "options that are null": (card(options=None), "options: expected map"),
    "options that are a list": (card(options=[1]), "options: expected map"),
    "options that are a text": (card(options="wide"), "options: expected map"),
    "an unknown option": (card(options={"channels": [4], "depth": 3}), "unknown option 'depth'"),
    "an option left out": (card(options={}), "does not state channels"),
    "a name among the options": (card(options={"channels": [4], "name": "x"}), "leave out name"),
    "classes among the options": (card(options={"channels": [4], "num_classes": 7}), "leave out num_classes"),
    "channels that are a text": (card(options={"channels": "4"}), "channels is 4, it takes list"),
    "channels that are texts": (card(options={"channels": ["4"]}), "channels is"),
    "channels that are a map": (card(options={"channels": {}}), "channels is"),
    "half a channel": (card(options={"channels": [1.5]}), "channels is"),
    "an input that is null": (card(input=None), "input"),
    "an input that is a list": (card(input=[48]), "input"),
    "an input with an unknown key": (card(input={"sizes": 48}), "unknown key input.sizes; did you mean"),
    "a size that is a text": (card(input={"size": "48"}), "input.size: expected integer"),
    "a size that is true": (card(input={"size": True}), "input.size: expected integer"),
    "a size that is null": (card(input={"size": None}), "input.size: expected integer"),
    "half a pixel": (card(input={"size": 48.5}), "input.size: expected integer"),
    "unknown channels": (card(input={"channels": "CMYK"}), "input.channels: expected one of"),
    "a mean of two": (card(input={"mean": [0.5, 0.5]}), "three numbers"),
    "a mean of texts": (card(input={"mean": ["a", "b", "c"]}), "input.mean: expected list of number"),
    "a deviation of none": (card(input={"std": []}), "three numbers"),
    "a deviation of zero": (card(input={"std": [0, 1, 1]}), "input.std: expected"),
    "a deviation below zero": (card(input={"std": [-1, 1, 1]}), "input.std: expected"),
    "no classes": (card(input={"classes": []}), "num_classes"),
    "one class": (card(input={"classes": ["happy"]}), "num_classes"),
    "an unknown class": (card(input={"classes": ["happy", "os.path"]}), "unknown expression"),
    "a class twice": (card(input={"classes": ["happy", "joy"]}), "listed more than once"),
    "an unknown order": (card(input={"classes": "random"}), "unknown order 'random'"),
    "classes in a map": (card(input={"classes": {"0": "happy"}}), "input.classes: expected"),
    "a new name that is a list": (card(rename={"a": ["b"]}), "rename: expected map"),
    "new names in a list": (card(rename=["a"]), "rename: expected map"),
    "a scale below zero": (card(cosine_scale=-1), "cosine_scale: expected number"),
    "a scale that is a text": (card(cosine_scale="big"), "cosine_scale: expected number"),
    "an unknown selection": (card(selection="luck"), "selection: expected one of"),
    "trained on a text": (card(trained_on="affectnet:train"), "trained_on: expected list"),
    "trained on maps": (card(trained_on=[{"a": 1}]), "trained_on: expected list"),
    "a licence that is a list": (card(licence=["MIT"]), "licence: expected"),
    "a training that is a list": (card(training=[1]), "training: expected map"),
    "an unknown key": (card(notes="mine"), "unknown key notes"),
}
TOO_LARGE = {
    "pictures of 20,000 pixels": (card(input={"size": 20_000}), "input.size: expected integer from 1 to"),
    "pictures of a million pixels": (card(input={"size": 10**6}), "input.size: expected integer from 1 to"),
    "pictures of 10^18 pixels": (card(input={"size": 10**18}), "input.size: expected integer from 1 to"),
    "pictures of no pixels": (card(input={"size": 0}), "input.size: expected integer from 1 to"),
    "pictures of -1 pixels": (card(input={"size": -1}), "input.size: expected integer from 1 to"),
    "500 stages of 10,000 channels": (card(options={"channels": [10_000] * 500}), "channels"),
    "10 stages of 4,096 channels": (card(options={"channels": [4096] * 10}), "does not fit"),
    "a stage of 10^9 channels": (card(options={"channels": [10**9]}), "channels is"),
    "10,000 stages": (card(options={"channels": [1] * 10_000}), "channels"),
    "no stage": (card(options={"channels": []}), "channels"),
    "a stage of no channels": (card(options={"channels": [0]}), "channels is"),
    "a factor of a million": (card(architecture="resemotenet", options={"width": 1e6}), "width is"),
    "a factor of 4": (card(architecture="resemotenet", options={"width": 4}, input={"size": 64}), "does not fit"),
    "another network": (
        card(architecture="ir50", options={"tokens": "spatial", "width": 4}, input={"size": 112}),
        "does not fit",
    ),
    "ten thousand classes": (card(input={"classes": [f"c{n}" for n in range(10_000)]}), "unknown expression"),
    "five thousand new names": (card(rename={f"p{n}": "" for n in range(5000)}), "rename"),
    "channels of 30 digits": ("options: {channels: [" + "9" * 30 + "]}", "integer"),
    "a scale beyond all": ("cosine_scale: 1.0e+999", "is not a number"),
    "a mean that is none": ("input: {mean: [.nan, 0, 0]}", "is not a number"),
    "a deviation beyond all": ("input: {std: [.inf, 1, 1]}", "is not a number"),
    "a huge deviation": (card(input={"std": [1e308, 1, 1]}), "input.std: expected list of number from"),
    "a huge mean": (card(input={"mean": [-1e308, 0, 0]}), "input.mean: expected list of number from"),
    "a huge scale": (card(cosine_scale=1e300), "cosine_scale: expected number from 0 to"),
    "a tiny deviation": (card(input={"std": [1e-300, 1, 1]}), "std > 0|input.std: expected"),
}
NO_CARD = {
    "empty": ("", "must be a map"),
    "null": ("null", "must be a map"),
    "a list": ("- small", "must be a map"),
    "a text": ("small", "must be a map"),
    "garbage": (b"\x00\x01\x02", "is not YAML"),
    "not UTF-8": (b"source: \xff", "is not UTF-8"),
    "cut off": ("{architecture: small", "is not YAML"),
    "deep lists": ("[" * DEEP, "deep"),
    "deep maps": ("{a: " * DEEP, "deep"),
    "an alias of itself": ("training: &a {b: *a}", "deep"),
    "a billion laughs": (
        "a0: &a0 [x, x]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)),
        "",
    ),
    "code as a tag": ("architecture: !!python/object/apply:os.system [id]", "is not YAML"),
    "two documents": ("architecture: small\n---\narchitecture: small", "is not YAML"),
    "a key twice": ("architecture: small\narchitecture: small", "stands 2 times"),
    "5,000 digits": ("cosine_scale: " + "9" * 5000, "digits"),
    "larger than any card": ("source: " + "x" * 2**21, "bytes"),
}
NO_JSON = {
    "an empty JSON": ("", "is not JSON"),
    "a JSON that is null": ("null", "must be a map"),
    "a JSON that is YAML": ("architecture: small", "is not JSON"),
    "a JSON with NaN": ('{"cosine_scale": NaN}', "is not a number"),
    "a deep JSON": ("[" * 100_000, "deep"),
    "a JSON with a key twice": ('{"source": "a", "source": "b"}', "stands 2 times"),
    "a JSON with half a surrogate": (json.dumps(card()).replace('"RGB"', '"\\ud800"'), "is not Unicode"),
}
RUNS = {
    "is a list": ([1], "training.run"),
    "is a text": ("real_only", "training.run"),
    "is a number": (7, "training.run"),
    "has no name": ({"seed": 0}, "name is missing"),
    "has no seed": ({"name": "real_only"}, "seed is missing"),
    "has a seed that is a text": ({"name": "real_only", "seed": "0"}, "seed: expected integer"),
    "has a seed that is null": ({"name": "real_only", "seed": None}, "seed: expected integer"),
    "has a seed that is half": ({"name": "real_only", "seed": 0.5}, "seed: expected integer"),
    "has a seed below zero": ({"name": "real_only", "seed": -1}, "seed: expected integer"),
    "has a name that is a number": ({"name": 7, "seed": 0}, "name: expected text"),
    "has a name that is a list": ({"name": ["a"], "seed": 0}, "name: expected text"),
    "has no letters in its name": ({"name": "", "seed": 0}, "name"),
    "has lines in its name": ({"name": "a\nb", "seed": 0}, "name"),
    "has a terminal's colours in its name": ({"name": "\x1b[31ma", "seed": 0}, "name"),
    "has a name of 100,000 letters": ({"name": "a" * 100_000, "seed": 0}, "name"),
}


@pytest.mark.parametrize("body, message", OF_ANOTHER_KIND.values(), ids=OF_ANOTHER_KIND)
def test_what_is_of_another_kind_is_named_with_the_card(body, message, tmp_path, capsys):
    said = refusal(lambda: restore(checkpoint(tmp_path, body)), capsys)
    assert message in said and str(tmp_path) in said


@pytest.mark.parametrize("body, message", TOO_LARGE.values(), ids=TOO_LARGE)
def test_what_no_machine_holds_is_refused_before_anything_is_built(body, message, tmp_path, capsys):
    said = refusal(lambda: restore(checkpoint(tmp_path, body)), capsys)
    assert any(part in said for part in message.split("|")) and str(tmp_path) in said


@pytest.mark.parametrize("body, message", NO_CARD.values(), ids=NO_CARD)
def test_what_is_no_card_is_named(body, message, tmp_path, capsys):
    said = refusal(lambda: restore(checkpoint(tmp_path, body)), capsys)
    assert f"{tmp_path}/model.card.yaml" in said and message in said


@pytest.mark.parametrize("body, message", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_is_named(body, message, tmp_path, capsys):
    said = refusal(lambda: restore(checkpoint(tmp_path, body, ".card.json")), capsys)
    assert f"{tmp_path}/model.card.json" in said and message in said


@pytest.mark.parametrize("run, message", RUNS.values(), ids=[f"a run that {name}" for name in RUNS])
def test_a_run_that_cannot_be_named_is_refused(run, message, tmp_path, capsys):
    uri = checkpoint(tmp_path, card(training={"run": run}))
    said = refusal(lambda: name_checkpoints(collect(uri)), capsys)
    assert message in said and f"{tmp_path}/model" in said


INTERPOLATED = {
    "the architecture": card(architecture="${oc.env:SYNTHFER_SECRET}"),
    "the source": card(source="${oc.env:SYNTHFER_SECRET}"),
    "the licence": card(licence="${oc.env:SYNTHFER_SECRET}"),
    "what it was trained on": card(trained_on=["${oc.env:SYNTHFER_SECRET}:train"]),
    "the classes": card(input={"classes": "${oc.env:SYNTHFER_SECRET}"}),
    "a class": card(input={"classes": ["${oc.env:SYNTHFER_SECRET}", "happy"]}),
    "the channels": card(input={"channels": "${oc.env:SYNTHFER_SECRET}"}),
    "the size": card(input={"size": "${oc.env:SYNTHFER_SECRET}"}),
    "an option": card(options={"channels": "${oc.env:SYNTHFER_SECRET}"}),
    "an option's name": card(options={"${oc.env:SYNTHFER_SECRET}": 1}),
    "a new name": card(rename={"stages.": "${oc.env:SYNTHFER_SECRET}"}),
    "a run's name": card(training={"run": {"name": "${oc.env:SYNTHFER_SECRET}", "seed": 0}}),
    "a run's seed": card(training={"run": {"name": "a", "seed": "${oc.env:SYNTHFER_SECRET}"}}),
    "another key of the card": card(source="${licence}", licence="${oc.env:SYNTHFER_SECRET}"),
    "a decoded text": card(source="${oc.decode:${oc.env:SYNTHFER_SECRET}}"),
    "what is nowhere": card(source="${nowhere.at.all}"),
    "what is not closed": card(source="${"),
}


@pytest.mark.parametrize("body", INTERPOLATED.values(), ids=INTERPOLATED)
@pytest.mark.parametrize("end", [".card.yaml", ".card.json"])
def test_the_environment_is_in_no_error_card_log_or_name(body, end, tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setenv("SYNTHFER_SECRET", SECRET)
    caplog.set_level("DEBUG")
    uri = checkpoint(tmp_path, body if end == ".card.yaml" else json.dumps(body), end)
    seen = []
    for use in (
        restore,
        lambda uri: ClassifierCheckpoint.open(uri).card.to_yaml(),
        lambda uri: name_checkpoints(collect(uri)),
    ):
        try:
            seen.append(repr(use(uri)))
        except ValueError as error:
            seen.append(repr(error))
    assert SECRET not in "".join(seen) + caplog.text + capsys.readouterr().err
    literal = body.get("source")
    assert literal is None or ClassifierCheckpoint.open(uri).card.source == literal


UNNAMED = ("os.path", "idlelib.idle", "antigravity.x", "tests.hostile.own_classifier", "this.that", "synthfer.cli",
           "synthfer.classifiers.small", "a.", ".a", "..small", "small.", "small/../x", "a b.c", "a;b.c", "x" * 100_000,
           "checkpoints", "_mobilefacenet", "__init__", "SMALL", "${oc.env:HOME}.x")  # fmt: skip


@pytest.mark.parametrize("name", UNNAMED, ids=[name[:40] for name in UNNAMED])
def test_no_module_is_imported_by_a_name_that_stands_in_a_card(name, tmp_path, capsys, monkeypatch):
    imported = []
    load = importlib.import_module
    monkeypatch.delitem(sys.modules, "tests.hostile.own_classifier", raising=False)  # another test may have named it
    monkeypatch.setattr(importlib, "import_module", lambda name, *rest: imported.append(name) or load(name, *rest))
    said = refusal(lambda: restore(checkpoint(tmp_path, card(architecture=name))), capsys)
    assert "architecture" in said and str(tmp_path) in said
    assert not [one for one in imported if not one.startswith("synthfer.")]
    assert "tests.hostile.own_classifier" not in sys.modules


WORDS = st.text(max_size=8) | st.sampled_from(["architecture", "options", "input", "small", "channels", "size", "${a}"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, derandomize=False)
@given(
    body=st.binary(max_size=200) | PLAIN.map(lambda value: yaml.dump(value).encode()),
    end=st.sampled_from([".yaml", ".json"]),
)
def test_any_bytes_are_a_card_or_an_error_that_names_it(body, end):
    for kind in (Card, ClassifierCard):
        try:
            assert isinstance(kind.parse(body, f"a.card{end}"), kind)
        except ValueError as error:
            assert str(error).startswith(f"a.card{end}")


@settings(max_examples=60, deadline=None, derandomize=False)
@given(
    changes=st.dictionaries(
        st.sampled_from(
            ["architecture", "options", "input", "rename", "cosine_scale", "trained_on", "training", "selection"]
        ),
        PLAIN,
        max_size=2,
    )
)
def test_any_change_of_a_card_gives_a_network_or_an_error(changes, tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("card")
    uri = checkpoint(folder, yaml.dump(card(**changes)))
    try:
        name_checkpoints(collect(uri))
        restore(uri)
    except ValueError as error:
        assert str(folder) in str(error)
