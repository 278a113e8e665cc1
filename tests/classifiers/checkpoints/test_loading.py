"""Checkpoints: only what fits is loaded, nothing is guessed, and index 3 is happy whoever trained the network."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from synthfer import classifiers
from synthfer.classifiers import checkpoints
from synthfer.classifiers.checkpoints import ClassifierCard, ClassifierCheckpoint
from synthfer.classifiers.network import Classifier
from synthfer.expressions import EXPRESSIONS, ORDERS
from synthfer.tensors import fitting

WIDTH = 1 / 16
INPUT = {"size": 64, "channels": "RGB", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "classes": "resemotenet"}


def card(**changes: object) -> dict:
    """A ResEmoteNet's card; a change to None leaves the key out."""
    read = INPUT | changes.pop("input", {})
    full = {"architecture": "resemotenet", "options": {"width": WIDTH}, "input": read, **changes}
    return {key: value for key, value in full.items() if value is not None}


def network(seed: int = 0, **options: object) -> Classifier:
    torch.manual_seed(seed)
    return classifiers.build("resemotenet", width=WIDTH, **options).eval()


def checkpoint(path: Path, state: object, info: dict | None = None) -> Path:
    torch.save(state, path)
    if info is not None:
        path.with_suffix(".card.yaml").write_text(yaml.safe_dump(info))
    return path


def load(model: Classifier, path: Path) -> ClassifierCard:
    """Puts a checkpoint into a model; its card."""
    opened = ClassifierCheckpoint.open(str(path))
    opened.load(model)
    return opened.card


def faces(size: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_logits_come_in_the_order_of_the_expressions_whoever_trained_the_network(tmp_path: Path):
    theirs = network(1)
    path = checkpoint(tmp_path / "best.pth", theirs.state_dict(), card())
    ours = checkpoints.restore(path)
    assert ours.input.classes == EXPRESSIONS and ours.input.channels == "RGB" and ours.input.mean == (0.1, 0.2, 0.3)
    theirs.set_input(ours.input)
    said = dict(zip(ORDERS["resemotenet"], theirs(faces()).logits.unbind(1), strict=True))
    for i, expression in enumerate(EXPRESSIONS):
        torch.testing.assert_close(ours(faces()).logits[:, i], said[expression])
    assert not torch.equal(ours(faces()).logits, theirs(faces()).logits)


def test_classes_may_be_listed_in_any_usual_words_and_more_than_seven(tmp_path: Path):
    words = ["Neutral", "happiness", "sadness", "surprised", "fear", "disgust", "anger", "contempt"]
    theirs = network(1, num_classes=8)
    path = checkpoint(tmp_path / "eight.pth", theirs.state_dict(), card(input={"classes": words}))
    ours = checkpoints.restore(path)
    assert ours.input.classes == (*EXPRESSIONS, "contempt")
    for row, name in ((0, "neutral"), (1, "happy"), (6, "anger"), (7, "contempt")):
        assert torch.equal(ours.last_layer.weight[ours.input.classes.index(name)], theirs.last_layer.weight[row])
        assert torch.equal(ours.last_layer.bias[ours.input.classes.index(name)], theirs.last_layer.bias[row])


@pytest.mark.parametrize("wrap", [None, "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrapped_and_data_parallel_files_are_understood(tmp_path: Path, wrap: str | None, prefix: str):
    theirs = network(1)
    state = {prefix + key: value for key, value in theirs.state_dict().items()}
    path = checkpoint(tmp_path / "best.pth", {wrap: state, "epoch": 3} if wrap else state, card())
    assert torch.equal(checkpoints.restore(path).res_block3.conv2.weight, theirs.res_block3.conv2.weight)


def test_the_files_of_a_data_parallel_module_are_those(tmp_path: Path):
    path = checkpoint(tmp_path / "best.pth", nn.DataParallel(network(1)).state_dict(), card())
    load(network(), path)


def test_cards_may_be_json(tmp_path: Path):
    path = checkpoint(tmp_path / "best.pth", network(1).state_dict(), card())
    in_yaml = load(network(), path)
    (tmp_path / "best.card.yaml").unlink()
    (tmp_path / "best.card.json").write_text(json.dumps(card()))
    assert load(network(), path) == in_yaml


def test_without_a_card_the_error_says_what_to_write(tmp_path: Path):
    path = checkpoint(tmp_path / "best.pth", network(1).state_dict())
    with pytest.raises(ValueError, match=r"there is no card .*best\.card\.yaml") as error:
        checkpoints.restore(path)
    template = yaml.safe_load(str(error.value).split("Write one:")[1])
    assert template.keys() == {"architecture", "options", "input"} and template["input"].keys() == INPUT.keys()


@pytest.mark.parametrize("left_out", INPUT)
def test_a_card_that_leaves_out_what_cannot_be_guessed_is_refused(tmp_path: Path, left_out: str):
    partial = card()
    partial["input"].pop(left_out)
    with pytest.raises(ValueError, match=f"input.{left_out} is missing"):
        checkpoints.restore(checkpoint(tmp_path / "best.pth", network(1).state_dict(), partial))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resemotnet"}, r"did you mean 'resemotenet'\?"),
        ({"options": {}}, "its card does not state width"),
        (
            {"options": {"width": WIDTH, "num_classes": 7}},
            "leave out num_classes: architecture and input state",
        ),
        ({"input": {"classes": "raf"}}, "unknown order 'raf'; give a list, or one of synthfer"),
        ({"input": {"classes": ["happy", "joy"]}}, "happy is listed more than once"),
        ({"input": {"classes": ["happy", "glee"]}}, "unknown expression 'glee'"),
        ({"input": {"channels": "rgb"}}, "input.channels: expected one of RGB, BGR, grey"),
        ({"input": {"size": 4}}, "input.size is 4; it reads at least 8"),
        ({"notes": "mine"}, "unknown key notes"),
    ],
)
def test_wrong_cards_are_refused(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        checkpoints.restore(checkpoint(tmp_path / "best.pth", network(1).state_dict(), card(**changes)))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path):
    path = checkpoint(tmp_path / "best.pth", network(1).state_dict(), card())
    with pytest.raises(ValueError, match=r"is of 'resemotenet', the model is 'small'"):
        load(classifiers.build("small"), path)
    with pytest.raises(ValueError, match=r"is of a resemotenet with width: 0.0625, not 0.125"):
        load(classifiers.build("resemotenet", width=1 / 8), path)
    with pytest.raises(ValueError, match="num_classes: 7, not 8"):
        load(network(num_classes=8), path)


def test_all_keys_that_do_not_fit_are_listed_and_the_model_is_left_as_it_was(tmp_path: Path):
    state = network(1).state_dict()
    del state["conv1.weight"], state["se.fc.0.weight"]
    state["fc1.weight"] = state["fc1.weight"][:5]
    state["fc9.bias"] = torch.zeros(1)
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load(model, checkpoint(tmp_path / "best.pth", state, card()))
    message = str(error.value)
    assert "does not fit ResEmoteNet" in message
    assert "2 missing: conv1.weight, se.fc.0.weight" in message
    assert "1 unexpected: fc9.bias" in message
    assert "1 of another shape: fc1.weight is (5, 128), here (64, 128)" in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.input.mean != (0.1, 0.2, 0.3)


def test_other_names_are_mapped_by_their_beginnings(tmp_path: Path):
    theirs = network(1)
    state = {key.replace("fc4.", "classifier."): value for key, value in theirs.state_dict().items()}
    path = checkpoint(tmp_path / "best.pth", state, card(rename={"classifier.": "fc4."}))
    assert torch.equal(checkpoints.restore(path).fc3.weight, theirs.fc3.weight)
    assert torch.equal(checkpoints.restore(path).fc4.weight[3], theirs.fc4.weight[0])


def test_files_from_before_batch_counters_load(tmp_path: Path):
    state = {k: v for k, v in network(1).state_dict().items() if not k.endswith("num_batches_tracked")}
    checkpoints.restore(checkpoint(tmp_path / "best.pth", state, card()))


def test_layers_that_the_published_code_carries_unused_are_passed_over(tmp_path: Path):
    """A face recognition file brings its own output layer and a fourth stage; nothing else may be too much."""
    model = classifiers.build("ir50", width=WIDTH)
    state = {f"module.{key}": torch.ones_like(value) for key, value in model.ir_back.state_dict().items()}
    state |= {f"module.{key}": torch.zeros(1) for key in ("output_layer.3.weight", "body.21.res_layer.0.weight")}
    model.ir_back.load_state_dict(fitting(model.ir_back, state, {}, "ir50.pth"))
    assert all((p == 1).all() for p in model.ir_back.parameters())
    state["module.body.24.res_layer.0.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"1 unexpected: body\.24\.res_layer\.0\.weight"):
        model.ir_back.load_state_dict(fitting(model.ir_back, state, {}, "ir50.pth"))
    whole = dict(model.state_dict()) | {"ir_back.output_layer.0.bias": torch.zeros(1)}
    info = {"architecture": "ir50", "options": {"width": WIDTH, "tokens": "published"}, "input": INPUT | {"size": 224}}
    restored = checkpoints.restore(checkpoint(tmp_path / "whole.pth", whole, info))
    assert restored.config.tokens == "published" and restored.input.size == 224


class Opaque:
    pass


@pytest.mark.parametrize("body", [Opaque(), {"state_dict": {"epoch": 3}}, [torch.zeros(1)]])
def test_files_with_anything_but_tensors_are_refused(tmp_path: Path, body: object):
    with pytest.raises(ValueError, match=r"holds no (plain tensors|state dict)"):
        checkpoints.restore(checkpoint(tmp_path / "best.pth", body, card()))


@pytest.mark.parametrize("name", ["best.pth", "best.safetensors"])
def test_damaged_files_are_refused(tmp_path: Path, name: str):
    path = checkpoint(tmp_path / name, {}, card())
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="holds no plain tensors"):
        checkpoints.restore(path)


def test_safetensors_load_too(tmp_path: Path):
    theirs = network(1)
    save_file(theirs.state_dict(), tmp_path / "best.safetensors")
    (tmp_path / "best.card.yaml").write_text(yaml.safe_dump(card(input={"classes": list(EXPRESSIONS)})))
    assert torch.equal(checkpoints.restore(tmp_path / "best.safetensors").fc4.weight, theirs.fc4.weight)


@pytest.mark.parametrize(("name", "options"), [("small", {"channels": (8, 8)}), ("ir50", {"width": WIDTH})])
def test_what_is_saved_comes_back(tmp_path: Path, name: str, options: dict):
    torch.manual_seed(0)
    model = classifiers.build(name, **options).to(memory_format=torch.channels_last).eval()
    checkpoints.save(model, tmp_path / "mine.safetensors", source="a test")
    back = checkpoints.restore(tmp_path / "mine.safetensors")
    assert (back.config, back.input) == (model.config, model.input)
    images = faces(model.input.size)
    torch.testing.assert_close(back(images).logits, model(images).logits)


def test_a_model_whose_classes_have_no_names_is_not_saved(tmp_path: Path):
    with pytest.raises(ValueError, match=r"input\.classes"):
        checkpoints.save(classifiers.build("small", num_classes=3), tmp_path / "mine.safetensors")
