"""Checkpoints of generators: cards, licences, strict keys, and errors that say what to do."""

import json
import textwrap
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from synthfer.checkpoints import Card
from synthfer.generators import weights
from synthfer.generators.expression_editor.networks import NetworkConfig as EditorConfig
from synthfer.generators.gan.networks import NetworkConfig
from synthfer.schema import ConfigError
from synthfer.store import open_store
from tests.generators.tiny_weights import save


@pytest.fixture
def module() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_weights_come_back_bit_for_bit_with_what_their_card_says(module, tmp_path):
    uri = save(module, tmp_path, architecture="dcgan", options={"latent": 5}, trained_on=["b:train", "a:train"])
    found = weights.read(uri, "dcgan")
    other = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    weights.load(other, found)
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert weights.facts(found) == {
        "architecture": "dcgan",
        "options": {"latent": 5},
        "weights_sha256": found.sha256,
        "trained_on": ["a:train", "b:train"],
    }
    assert weights.options_of(NetworkConfig, found) == NetworkConfig(latent=5)
    json.dumps(weights.facts(found))


def test_torch_files_and_buckets_are_read_too(module, tmp_path, s3_uri):
    save(module, tmp_path, architecture="dcgan", rename={"net.": ""})
    torch.save({"params_ema": {f"net.{k}": v for k, v in module.state_dict().items()}}, tmp_path / "model.pth")
    store = open_store(s3_uri)
    for name in ("model.pth", "model.card.yaml"):
        store.put_new(name, (tmp_path / name).read_bytes())
    for uri in (str(tmp_path / "model.pth"), f"{s3_uri}/model.pth"):
        weights.load(module, weights.read(uri, "dcgan"))


def test_a_licence_is_logged_once(module, tmp_path, caplog):
    uri = save(module, tmp_path, architecture="dcgan", licence="research only")
    for _ in range(2):
        assert weights.facts(weights.read(uri))["licence"] == "research only"
    assert caplog.text.count("licence: research only") == 1


def test_errors_say_what_is_wrong(module, tmp_path):
    uri = save(module, tmp_path, architecture="vae_gan", options={"latent": "many"})
    for given, message in {
        uri: "is of 'vae_gan', while 'dcgan' is wanted",
        str(tmp_path / "none.safetensors"): r"generator\.weights: there is no .*/none\.safetensors",
        str(tmp_path / "model.card.yaml"): "is not a file of weights; expected one that ends in",
    }.items():
        with pytest.raises(ConfigError, match=message):
            weights.read(given, "dcgan")
    with pytest.raises(ConfigError, match=r"the card's options: latent: expected integer"):
        weights.options_of(NetworkConfig, weights.read(uri))
    with pytest.raises(ConfigError, match=r"does not fit Linear:\n  2 missing: weight, bias\n  7 unexpected"):
        weights.load(nn.Linear(2, 3), weights.read(uri))
    Path(uri).write_bytes(b"no tensors")
    with pytest.raises(ConfigError, match="holds no plain tensors"):
        weights.load(module, weights.read(uri))


def test_a_card_that_is_missing_or_wrong_says_how_to_write_one(module, tmp_path):
    uri = save(module, tmp_path, architecture="dcgan")
    card = tmp_path / "model.card.yaml"
    card.write_text("architectur: dcgan\n")
    with pytest.raises(ConfigError, match=r"(?s)unknown key architectur; did you mean 'architecture'.*architecture:"):
        weights.read(uri)
    card.write_text(textwrap.dedent(Card.example()))
    assert weights.options_of(EditorConfig, weights.read(uri)) == EditorConfig(space="linear", channels="BGR")
    card.unlink()
    with pytest.raises(ConfigError, match=r"(?s)no card \S*/model\.card\.yaml beside it.*trained_on: \[affectnet"):
        weights.read(uri)


def test_code_in_a_file_is_not_run(tmp_path, module):
    save(module, tmp_path, architecture="dcgan")

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run",))

    torch.save({"state_dict": Trap()}, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="holds no plain tensors"):
        weights.load(module, weights.read(str(tmp_path / "model.pt")))
    assert not (tmp_path / "run").exists()


def test_a_card_reads_as_it_was_written(tmp_path):
    card = Card(architecture="dcgan", options={"classes": ["fear", "sad"]}, training={"steps": 3, "loss": None})
    (tmp_path / "model.card.yaml").write_text(card.to_yaml())
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert weights.read(str(tmp_path / "model.safetensors")).card == card
