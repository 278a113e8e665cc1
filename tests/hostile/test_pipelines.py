"""Pipeline folders from strangers: a wrong file is one message that names it and the key, before anything is loaded."""

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from synthfer.generators.diffusion import Config, build, pipeline_files, pipelines
from synthfer.schema import ConfigError
from tests import tiny_pipelines
from tests.hostile.exit_codes import refusal
from tests.hostile.weight_files import torch_file

INDEX, UNET, CLIP, VAE, STEPS = (
    "model_index.json",
    "unet/config.json",
    "text_encoder/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
)
DEEP = b"[" * 100_000


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save("sd", tmp_path_factory.mktemp("pipelines") / "sd")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "sd"))


def load(folder: Path, **options: Any) -> pipelines.Loaded:
    return pipelines.load(Config(model=str(folder), **options), torch.float32)


def edited(name: str, **changes: Any) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def written(name: str, body: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes(body)


def linked(name: str, target: str) -> Callable[[Path], Any]:
    def link(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return link


def piped(name: str) -> Callable[[Path], Any]:
    def pipe(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return pipe


def sharded(weight_map: Any) -> Callable[[Path], Any]:
    return written(
        "unet/diffusion_pytorch_model.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode()
    )


BODIES = {"empty": b"", "garbage": b"\x00\xff", "null": b"null", "a list": b"[]", "deep": DEEP, "NaN": b'{"a": NaN}',
          "a key twice": b'{"a": 1, "a": 2}', "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}"}  # fmt: skip
FILES = {
    f"{name}: {what}": (written(name, body), name)
    for name in (INDEX, UNET, CLIP, STEPS, "synthfer.json")
    for what, body in BODIES.items()
}
TOKENIZERS = {
    f"{name}: {what}": (written(f"tokenizer/{name}", BODIES[what]), name)
    for name in ("tokenizer.json", "tokenizer_config.json")
    for what in ("empty", "garbage", "null", "deep")
}
SPECIAL = {
    "a pipe for the index": (piped(INDEX), "is a named pipe"),
    "a pipe for a config": (piped(UNET), "is a named pipe"),
    "a pipe for weights": (piped("unet/diffusion_pytorch_model.safetensors"), "is a named pipe"),
    "a pipe for a vocabulary": (piped("tokenizer/tokenizer.json"), "is a named pipe"),
    "a pipe for the card": (piped("synthfer.json"), "is a named pipe"),
    "a pipe beside them": (piped("vae/notes.txt"), "is a named pipe"),
    "a device for the index": (linked(INDEX, "/dev/zero"), "is a device"),
    "a device for a config": (linked(VAE, "/dev/zero"), "is a device"),
    "a device for weights": (linked("vae/diffusion_pytorch_model.safetensors", "/dev/zero"), "is a device"),
    "a link to itself": (linked(UNET, "config.json"), "leads back to itself"),
    "a link to nothing": (linked(UNET, "nowhere.json"), "unet/config.json"),
    "a folder for the index": (lambda folder: ((folder / INDEX).unlink(), (folder / INDEX).mkdir()), "is a folder"),
    "no index": (lambda folder: (folder / INDEX).unlink(), "there is no"),
    "no component": (lambda folder: shutil.rmtree(folder / "unet"), "no folder unet"),
    "a file for a component": (lambda f: (shutil.rmtree(f / "unet"), (f / "unet").touch()), "no folder unet"),
    "a config of 100 MB": (lambda folder: os.truncate(folder / UNET, 10**8), "is larger than"),
    "a vocabulary of 2 TB": (lambda folder: os.truncate(folder / "tokenizer/tokenizer.json", 2 * 10**12), "is larger"),
}
NAMES = {
    "a class that is a number": (edited(INDEX, _class_name=7), "brings its own pipeline code"),
    "a class that is a path": (edited(INDEX, _class_name="../x"), "_class_name '../x' is not the name of a class"),
    "a class that is a function": (edited(INDEX, _class_name="logging"), "cannot be loaded"),
    "a component that is one text": (edited(INDEX, unet=["diffusers"]), "unet must be a library and a class"),
    "a component of three": (edited(INDEX, unet=["diffusers", "a", "b"]), "unet must be a library and a class"),
    "a component of numbers": (edited(INDEX, unet=[1, 2]), "unet must be a library and a class"),
    "a component that is a map": (edited(INDEX, unet={}), "unet must be a library and a class"),
    "a component upwards": (edited(INDEX, **{"../unet": ["diffusers", "UNet2DModel"]}), "../unet"),
    "an absolute component": (edited(INDEX, **{"/etc": ["diffusers", "UNet2DModel"]}), "/etc"),
    "a library of Python": (edited(INDEX, unet=["os", "system"]), "that is not run"),
    "a dotted library": (edited(INDEX, unet=["os.path", "join"]), "that is not run"),
    "a library that is a path": (edited(INDEX, unet=["../evil", "Net"]), "that is not run"),
    "a module within diffusers": (edited(INDEX, unet=["diffusers.utils", "Net"]), "that is not run"),
    "a helper of diffusers": (edited(INDEX, unet=["TYPE_CHECKING", "Net"]), "that is not run"),
    "a function of a library": (edited(INDEX, text_encoder=["transformers", "pipeline"]), "is no component"),
    "a constant of a library": (edited(INDEX, text_encoder=["transformers", "TYPE_CHECKING"]), "cannot be loaded"),
    "a class of nowhere": (edited(INDEX, unet=["diffusers", "NoSuchNet"]), "cannot be loaded"),
    "a class that is dotted": (edited(INDEX, unet=["diffusers", "utils.logging"]), "is no class"),
    "another network": (edited(INDEX, unet=["diffusers", "SD3Transformer2DModel"]), "generator.model"),
    "a map of code": (edited(CLIP, auto_map={"AutoModel": "evil.Model"}), "auto_map names code"),
    "a map of code for a tokenizer": (
        edited("tokenizer/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tok", None]}),
        "auto_map names code",
    ),
    "a custom pipeline": (edited(INDEX, custom_pipeline="evil"), "custom_pipeline names code"),
    "kernels from the hub": (edited(CLIP, _attn_implementation="evil/kernels"), "names code"),
    "shards in a list": (sharded([]), "weight_map must map"),
    "shards that are numbers": (sharded({"a": 1}), "weight_map must map"),
    "a shard elsewhere": (sharded({"a": "/etc/passwd.safetensors"}), "no safetensors file beside it"),
    "a shard upwards": (sharded({"a": "../vae/diffusion_pytorch_model.safetensors"}), "no safetensors file beside it"),
    "a shard that is a pickle": (sharded({"a": "a.bin"}), "no safetensors file beside it"),
    "a shard that is not there": (sharded({"a": "a-00001-of-00002.safetensors"}), "no safetensors file beside it"),
}
NUMBERS = {
    "10^9 steps of training": (edited(STEPS, num_train_timesteps=10**9), "num_train_timesteps is 1e+09"),
    "10^9 steps as a float": (edited(STEPS, num_train_timesteps=1e9), "num_train_timesteps is 1e+09"),
    "10^30 steps": (edited(STEPS, num_train_timesteps=10**30), "num_train_timesteps is"),
    "betas of nothing": (edited(STEPS, beta_schedule="magic"), "cannot be loaded"),
    "10^6 pixels": (edited(UNET, sample_size=10**6), "sample_size is 1e+06"),
    "10^6 pixels by 8": (edited(UNET, sample_size=[10**6, 8]), "sample_size is 1e+06"),
    "an absurd width": (edited(UNET, cross_attention_dim=10**9), "cross_attention_dim is 1e+09"),
    "a network larger than its file": (
        edited(UNET, cross_attention_dim=100_000),
        "describes a UNet2DConditionModel of",
    ),
    "a wide network": (edited(UNET, block_out_channels=[4096, 8192]), "describes a UNet2DConditionModel of"),
    "10^5 layers": (edited(UNET, layers_per_block=10**5), "layers_per_block is 100000"),
    "1,000 blocks": (edited(UNET, down_block_types=["DownBlock2D"] * 1000), "down_block_types has 1,000 entries"),
    "layers below zero": (edited(UNET, layers_per_block=-(10**9)), "layers_per_block is -1e+09"),
    "layers that are a text": (edited(UNET, layers_per_block="two"), "does not describe a UNet2DConditionModel"),
    "blocks of nothing": (edited(UNET, down_block_types=["Evil", "Evil"]), "does not describe a UNet2DConditionModel"),
    "channels of nothing": (edited(UNET, block_out_channels=[]), "does not describe a UNet2DConditionModel"),
    "channels that are null": (edited(UNET, block_out_channels=None), "does not describe a UNet2DConditionModel"),
    "channels of zero": (edited(VAE, block_out_channels=[0, 0, 0, 0]), "generator.model"),
    "10^9 channels": (edited(VAE, latent_channels=10**9), "latent_channels is 1e+09"),
    "10^9 words": (edited(CLIP, vocab_size=10**9), "vocab_size is 1e+09"),
    "two million words": (edited(CLIP, vocab_size=2_000_000, hidden_size=64), "describes a CLIPTextModel of"),
    "10^9 positions": (edited(CLIP, max_position_embeddings=10**9), "max_position_embeddings is 1e+09"),
    "10^7 positions": (edited(CLIP, max_position_embeddings=10**7), "describes a CLIPTextModel of"),
    "10^6 layers": (edited(CLIP, num_hidden_layers=10**6), "num_hidden_layers is 1e+06"),
    "no heads": (edited(CLIP, num_attention_heads=0), "does not describe a CLIPTextModel"),
    "an unknown key of 10^12": (edited(CLIP, anything=10**12), "anything is 1e+12"),
    "10,000 entries": (edited(CLIP, anything=[0] * 10_000), "anything has 10,000 entries"),
    "a number deep within": (edited(CLIP, a={"b": [{"c": 10**12}]}), "c is 1e+12"),
    "a card of 10^9 steps": (written("synthfer.json", b'{"steps": 1000000000}'), "steps: expected integer from 1 to"),
    "a card of 10^6 pixels": (written("synthfer.json", b'{"height": 1000000}'), "height: expected integer from 8"),
    "a card of half a step": (written("synthfer.json", b'{"steps": 1.5}'), "steps: expected integer"),
    "a card of texts": (written("synthfer.json", b'{"guidance": "much"}'), "guidance: expected number"),
    "a card of other keys": (written("synthfer.json", b'{"step": 1}'), "unknown key step; did you mean 'steps'?"),
    "weights that are none": (written("unet/diffusion_pytorch_model.safetensors", b"x"), "is not a safetensors file"),
    "weights that are a pickle": (
        written("unet/diffusion_pytorch_model.safetensors", torch_file({"a": torch.zeros(1)})),
        "is not a safetensors file",
    ),
    "weights whose header lies": (
        written("unet/diffusion_pytorch_model.safetensors", b"\xff" * 7 + b"\x7f{}"),
        "is not a safetensors file",
    ),
}
UNET_FILE, CLIP_FILE = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


def retensored(name: str, key: str, value: torch.Tensor | None) -> Callable[[Path], Any]:
    """Weights with one tensor more or another one, or (None) without it."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / name)
        tensors.pop(key, None)
        save_file(tensors if value is None else tensors | {key: value}, folder / name, {"format": "pt"})

    return change


POSITIONS = "embeddings.position_embedding.weight"
WEIGHTS = {
    "a text encoder without a tensor": (
        retensored(CLIP_FILE, POSITIONS, None),
        f"1 tensors are missing of CLIPTextModel: {POSITIONS}|1 tensors are missing of CLIPTextModel: text_model.",
    ),
    "a text encoder with one more": (retensored(CLIP_FILE, "x", torch.ones(1)), "1 tensors are none of CLIPTextModel"),
    "a text encoder of another shape": (retensored(CLIP_FILE, POSITIONS, torch.ones(7, 32)), "cannot be loaded"),
    "a network without a tensor": (
        retensored(UNET_FILE, "conv_in.weight", None),
        "1 tensors are missing of UNet2DConditionModel: conv_in.weight",
    ),
    "a network with one more": (retensored(UNET_FILE, "x", torch.ones(1)), "1 tensors are none of UNet2DCond"),
    "a network of another shape": (
        retensored(UNET_FILE, "conv_in.bias", torch.ones(7)),
        "1 tensors are of another shape in UNet2DConditionModel: conv_in.bias is (7,), there (32,)",
    ),
    "a decoder without a tensor": (
        retensored("vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.bias", None),
        "1 tensors are missing of AutoencoderKL: decoder.conv_in.bias",
    ),
}
ALL = WEIGHTS | FILES | TOKENIZERS | SPECIAL | NAMES | NUMBERS


@pytest.mark.parametrize("spoil, message", ALL.values(), ids=ALL)
def test_what_is_wrong_with_a_folder_is_named(spoil, message, folder, capsys):
    spoil(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = refusal(lambda: load(folder), capsys)
    assert any(part in said for part in message.split("|")) and "generator." in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_a_prediction_of_nothing_is_found_by_the_trial_batch(folder, capsys):
    edited(STEPS, prediction_type="magic")(folder)
    said = refusal(lambda: build(Config(model=str(folder), height=32, width=32, steps=1, batch_size=1)), capsys)
    assert "cannot run with these settings" in said and "magic" in said


LORA = {
    "garbage": b"\x00\x01",
    "empty": b"",
    "a pickle": torch_file({"a": torch.zeros(1)}),
    "a pickle of a module": torch_file(torch.nn.Linear(1, 1)),
    "a header that lies": b"\xff" * 8,
}
KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_{}.weight"
RANKS = {
    "NaN": {KEY.format("A"): torch.full((2, 32), float("nan")), KEY.format("B"): torch.zeros(32, 2)},
    "infinity": {KEY.format("A"): torch.full((2, 32), float("inf")), KEY.format("B"): torch.zeros(32, 2)},
    "whole numbers": {KEY.format("A"): torch.zeros(2, 32, dtype=torch.int64)},
    "keys of nothing": {"a": torch.zeros(1)},
    "no keys": {},
    "half a pair": {KEY.format("A"): torch.zeros(2, 32)},
    "other shapes": {KEY.format("A"): torch.zeros(2, 5), KEY.format("B"): torch.zeros(7, 2)},
    "one number": {KEY.format("A"): torch.zeros(()), KEY.format("B"): torch.zeros(())},
}


@pytest.mark.parametrize("body", [*LORA.values(), *RANKS.values()], ids=[*LORA, *RANKS])
def test_what_is_no_lora_is_named(body, whole, tmp_path, capsys):
    path = tmp_path / "lora.safetensors"
    path.write_bytes(body) if isinstance(body, bytes) else save_file(body, path)
    said = refusal(lambda: load(whole, lora=[str(path)]), capsys)
    assert said.startswith("generator.lora") and str(path) in said


def test_a_pipe_for_a_lora_is_refused(whole, tmp_path, capsys):
    os.mkfifo(tmp_path / "lora.safetensors")
    assert "generator.lora" in refusal(lambda: load(whole, lora=[str(tmp_path / "lora.safetensors")]), capsys)
    (tmp_path / "a.safetensors").symlink_to("/dev/zero")
    assert "generator.lora" in refusal(lambda: load(whole, lora=[str(tmp_path / "a.safetensors")]), capsys)


def test_what_published_folders_hold_is_let_through(folder):
    """Numbers of real ones: T5's length without limit, DPM's clipping at minus infinity, a cache's links."""
    edited("tokenizer/tokenizer_config.json", model_max_length=1000000000000000019884624838656)(folder)
    path = folder / STEPS
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lambda_min_clipped": float("-inf")}))
    edited(CLIP, rope_theta=5_000_000, vocab_size_text=262_144, max_window_layers=70, sliding_window=None)(folder)
    index = pipeline_files.read_index(folder, "sd")
    pipeline_files.check_files(
        folder, index, [part for part in pipeline_files.parts_of(folder, index, "sd") if part != "text_encoder"]
    )
    for blob in [*folder.glob("unet/*"), *folder.glob("vae/*")]:
        moved = folder.parent / f"blob-{blob.parent.name}-{blob.name}"
        shutil.move(blob, moved)
        blob.symlink_to(moved)
    pipeline_files.check_files(folder, index, ["unet", "vae"])


def test_a_variant_in_half_precision_counts_as_its_network(folder):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(
        {key: value.half() for key, value in load_file(weights).items()}, weights.with_suffix(".fp16.safetensors")
    )
    index = pipeline_files.read_index(folder, "sd")
    pipeline_files.check_files(folder, index, ["unet"])


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
)


@settings(max_examples=20, deadline=None, derandomize=False)
@given(
    name=st.sampled_from([INDEX, UNET, VAE, CLIP, STEPS]),
    place=st.integers(0, 100),
    value=VALUES,
)
def test_any_value_of_any_key_is_an_error_of_ours_or_harmless(name, place, value, whole, tmp_path_factory):
    folder = Path(shutil.copytree(whole, tmp_path_factory.mktemp("any") / "sd"))
    path = folder / name
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {sorted(config)[place % len(config)]: value}))
    try:
        index = pipeline_files.read_index(folder, "sd")
        pipeline_files.check_files(folder, index, pipeline_files.parts_of(folder, index, "sd"))
    except ConfigError as error:
        assert str(error).startswith("generator.model")
