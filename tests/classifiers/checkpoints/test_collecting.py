"""Checkpoints where they lie: a file, a tree, an S3 prefix; errors name what the user named."""

import json
import tempfile

import pyarrow as pa
import pytest
import torch
import yaml

from synthfer import classifiers
from synthfer.checkpoints import CARD_SUFFIXES
from synthfer.classifiers import InputSpec, checkpoints
from synthfer.classifiers.checkpoints import ClassifierCheckpoint, collect
from synthfer.classifiers.network import Classifier
from synthfer.classifiers.training_fingerprint import LINK_COLUMNS, TrainingFingerprint
from synthfer.store import open_store
from synthfer.tensors import write_tensors

FINGERPRINT = TrainingFingerprint.of(pa.table({name: ["a"] for name in LINK_COLUMNS}))


def network(seed: int = 0, channels: tuple[int, ...] = (4,)) -> Classifier:
    torch.manual_seed(seed)
    return classifiers.build("small", channels=channels).eval()


def write(uri: str, key: str, model: Classifier, **facts: object) -> None:
    """A checkpoint as training writes it, in any store: weights, card, fingerprint."""
    store, stem = open_store(uri), key.rpartition(".")[0]
    store.put_new(key, write_tensors(model.state_dict()))
    store.put_new(stem + CARD_SUFFIXES[0], checkpoints.card_of(model, **facts).to_yaml().encode())
    store.put_new(f"{stem}.seen.parquet", FINGERPRINT.to_bytes())


def tree(uri: str) -> list[str]:
    """Two runs below `uri`, one with a state on the way: the keys of their checkpoints."""
    keys = ["mixed/seed-0/model.safetensors", "mixed/seed-1/model.safetensors"]
    for number, key in enumerate(keys):
        write(uri, key, network(number), trained_on=[f"made{number}:train"])
    state = write_tensors(network(9).state_dict())
    open_store(uri).put_new("mixed/seed-1/checkpoints/step-00000004.safetensors", state)
    open_store(uri).put_new("mixed/seed-1/history.json", b"{}")
    return keys


def same(one: Classifier, other: Classifier) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


def check_tree(uri: str) -> None:
    keys = tree(uri)
    found = collect(uri)
    root = open_store(uri).uri
    assert [one.uri for one in found] == [f"{root}/{key}" for key in keys]
    for number, one in enumerate(found):
        assert same(one.restore(), network(number)) and not one.restore().training
        assert one.card.trained_on == [f"made{number}:train"] and one.fingerprint == FINGERPRINT
        assert one.body == write_tensors(network(number).state_dict())
    (alone,) = collect(f"{uri}/{keys[1]}")
    assert alone == found[1]


def test_all_below_a_folder_but_states_on_the_way(tmp_path):
    check_tree(str(tmp_path / "exp"))
    assert [one.uri for one in collect(f"file://{tmp_path}/exp")] == [one.uri for one in collect(str(tmp_path / "exp"))]


def test_all_below_an_s3_prefix_but_states_on_the_way(s3_uri):
    check_tree(f"{s3_uri}/exp")


def test_runs_that_are_not_finished_are_named(tmp_path, caplog):
    """A run with states on the way and no model yet; one that has both is finished."""
    tree(str(tmp_path / "exp"))
    assert len(collect(str(tmp_path / "exp"))) == 2 and not caplog.messages
    store = open_store(str(tmp_path / "exp"))
    for step, run in enumerate(("mixed/seed-2", "mixed/seed-2", "plain/seed-0")):
        store.put_new(f"{run}/checkpoints/step-0000000{step}.safetensors", b"state")
    assert len(collect(str(tmp_path / "exp"))) == 2
    assert caplog.messages == [f"{tmp_path}/exp: not finished and left out: mixed/seed-2, plain/seed-0"]
    with pytest.raises(ValueError, match="there is no checkpoint"):
        collect(str(tmp_path / "exp" / "plain"))
    assert caplog.messages[1:] == [f"{tmp_path}/exp/plain: not finished and left out: seed-0"]


def test_what_was_seen_is_read_once_and_can_be_left_behind(tmp_path):
    write(str(tmp_path), "model.safetensors", network(3))
    (found,) = collect(str(tmp_path))
    assert found.fingerprint is found.fingerprint and found.fingerprint == FINGERPRINT
    light = found.without_fingerprint
    assert light.fingerprint is None and same(light.restore(), network(3)) and light.card == found.card
    assert FINGERPRINT.to_bytes() not in light.files.values() and len(found.files) == len(light.files) + 1


def test_a_checkpoint_goes_into_a_model_that_is_there(tmp_path):
    write(str(tmp_path), "model.safetensors", network(3))
    model = network(4)
    collect(str(tmp_path))[0].load(model)
    assert same(model, network(3))


def test_a_file_in_the_current_folder_needs_no_folder(tmp_path, monkeypatch):
    write(str(tmp_path), "best.safetensors", network(5))
    monkeypatch.chdir(tmp_path)
    (found,) = collect("best.safetensors")
    assert found.uri == f"{tmp_path}/best.safetensors" and same(found.restore(), network(5))


@pytest.mark.parametrize("suffix", CARD_SUFFIXES)
@pytest.mark.parametrize("body", [".pth", ".pt"])
def test_a_published_file_with_a_card_that_somebody_wrote(body, suffix, tmp_path):
    """Wrapped as authors wrap it; nobody wrote down what it has seen."""
    torch.save({"state_dict": network(6).state_dict()}, tmp_path / f"best.of.all{body}")
    card = yaml.safe_load(checkpoints.card_of(network(6), trained_on=["rafdb:train"]).to_yaml())
    text = json.dumps(card) if suffix.endswith("json") else yaml.safe_dump(card)
    (tmp_path / f"best.of.all{suffix}").write_text(text)
    for uri in (tmp_path, tmp_path / f"best.of.all{body}"):
        (found,) = collect(str(uri))
        assert found.fingerprint is None and found.card.trained_on == ["rafdb:train"]
        assert same(found.restore(), network(6))


@pytest.mark.parametrize("order", ["rafdb", "resemotenet", ["sad", "contempt", "happy", "fear"]])
def test_outputs_are_named_as_the_restored_network_has_them(order, tmp_path):
    """A card names classes in its own order, and loading puts the expressions into ours."""
    number = 4 if isinstance(order, list) else 7
    torch.manual_seed(0)
    model = classifiers.build("small", channels=(4,), num_classes=number, spec=InputSpec(size=48, classes=()))
    torch.save(model.state_dict(), tmp_path / "best.pth")
    read = {"size": 48, "channels": "RGB", "mean": [0.5] * 3, "std": [0.25] * 3, "classes": order}
    card = {"architecture": "small", "options": {"channels": [4]}, "input": read}
    (tmp_path / "best.card.yaml").write_text(yaml.safe_dump(card))
    (found,) = collect(str(tmp_path))
    assert found.outputs == found.restore().input.classes != found.card.classes


def test_names_that_begin_alike_are_told_apart(tmp_path):
    write(str(tmp_path), "model.safetensors", network(1), trained_on=["one:train"])
    write(str(tmp_path), "model2.safetensors", network(2), trained_on=["two:train"])
    (found,) = collect(str(tmp_path / "model.safetensors"))
    assert found.card.trained_on == ["one:train"] and same(found.restore(), network(1))
    assert len(collect(str(tmp_path))) == 2


def test_nothing_there_says_what_to_name(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "bare.pth").write_bytes(b"weights without a card")
    with pytest.raises(ValueError, match=rf"there is no checkpoint at {tmp_path}\. Name a .*\.card\.yaml"):
        collect(str(tmp_path))


def test_nothing_at_an_s3_prefix_says_so(s3_uri):
    with pytest.raises(ValueError, match=f"there is no checkpoint at {s3_uri}/absent"):
        collect(f"{s3_uri}/absent")


def test_a_file_that_is_not_there_is_named(tmp_path, s3_uri):
    for uri in (str(tmp_path), s3_uri):
        with pytest.raises(ValueError, match=f"there is no {uri}/absent.pth"):
            collect(f"{uri}/absent.pth")
    with pytest.raises(ValueError, match=f"there is no {tmp_path}/sub/model.safetensors"):
        ClassifierCheckpoint.open(f"{tmp_path}/sub/model.safetensors")
    with pytest.raises(ValueError, match=r"there is no //?absent\.pth"):
        collect("/absent.pth")


def error_of(call) -> str:
    with pytest.raises(ValueError) as caught:
        call()
    assert tempfile.gettempdir() + "/tmp" not in str(caught.value)
    return str(caught.value)


def test_errors_name_the_uri_and_no_temporary_file(tmp_path, s3_uri):
    for uri in (str(tmp_path), s3_uri):
        store = open_store(uri)
        store.put_new("bare.pth", b"x")
        (bare,) = collect(f"{uri}/bare.pth")
        for call in (lambda one=bare: one.card, bare.restore):
            assert error_of(call).startswith(
                f"{uri}/bare.pth: there is no card {uri}/bare.card.yaml beside it, without which"
            )
        store.put_new("odd.pth", b"x")
        store.put_new("odd.card.yml", b"architecture: small\nlayers: 3\n")
        assert error_of(lambda base=uri: collect(f"{base}/odd.pth")[0].card).startswith(f"{uri}/odd.card.yml: ")
        write(uri, "other.safetensors", network(channels=(4, 8)))
        message = error_of(lambda base=uri: collect(f"{base}/other.safetensors")[0].load(network()))
        assert message.startswith(f"{uri}/other.safetensors is of a small with channels")
        store.put_new("damaged.safetensors", b"no tensors")
        store.put_new("damaged.card.yaml", checkpoints.card_of(network()).to_yaml().encode())
        message = error_of(collect(f"{uri}/damaged.safetensors")[0].restore)
        assert message.startswith(f"{uri}/damaged.safetensors holds no plain tensors")


def test_a_damaged_fingerprint_is_refused(tmp_path):
    write(str(tmp_path), "model.safetensors", network())
    (tmp_path / "model.seen.parquet").write_bytes(b"PAR1 nothing")
    message = error_of(lambda: collect(str(tmp_path))[0].fingerprint)
    assert message.startswith(
        f"{tmp_path}/model.safetensors: its *.seen.parquet is damaged, or not the fingerprint of a training"
    )
