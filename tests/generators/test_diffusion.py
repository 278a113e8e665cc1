"""The diffusion generator on tiny pipelines of every family: same bits whatever happens around a row."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoPipelineForText2Image, StableDiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from synthfer import generators
from synthfer.canonical import canonical_json
from synthfer.generators import Failure, OutOfMemory
from synthfer.generators._device import exact
from synthfer.generators.diffusion import Config, build
from synthfer.generators.diffusion.generator import Diffusion, to_pictures
from synthfer.sample import Row, pixels_hash
from synthfer.schema import ConfigError
from tests import tiny_pipelines

Folder = Callable[[str], Path]
PROMPTS = ("a happy man", "a sad old woman", "an angry face of a man with glasses", "young face")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A function from a family's name to the folder of its tiny pipeline, built once."""
    root = tmp_path_factory.mktemp("tiny")

    def get(name: str) -> Path:
        path = root / name
        return path if path.exists() else tiny_pipelines.save(name, path)

    return get


@pytest.fixture
def copied(folder: Folder, tmp_path: Path) -> Folder:
    """The same, in a copy to spoil."""
    return lambda name: Path(shutil.copytree(folder(name), tmp_path / name))


def tiny(path: Path, **options: Any) -> Diffusion:
    return build(Config(**{"model": str(path), "height": 32, "width": 32, "steps": 4, "batch_size": 4} | options))


def row(i: int, prompt: str | None = None, negative: str | None = "old", seed: int | None = None) -> Row:
    prompt = PROMPTS[i % len(PROMPTS)] if prompt is None else prompt
    return Row(index=i, label=0, seed=1000 + i if seed is None else seed, prompt=prompt, negative_prompt=negative)


def hashes(generator: Diffusion, rows: list[Row]) -> list[str]:
    made = generator.make(rows)
    assert not [picture for picture in made if isinstance(picture, Failure)]
    return [pixels_hash(picture) for picture in made]


def pixels(generator: Diffusion, rows: list[Row]) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in generator.make(rows)]).astype(int)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# -- a picture is a function of its row


@pytest.mark.parametrize("name", tiny_pipelines.FAMILIES)
def test_a_picture_does_not_depend_on_its_neighbours(folder: Folder, name: str) -> None:
    generator = tiny(folder(name), vae_batch=3)
    rows = [row(0), row(1, negative=""), row(2, negative=None), row(3)]
    alone = hashes(generator, rows)
    assert len(set(alone)) == 4
    assert hashes(generator, rows[::-1]) == alone[::-1]
    assert hashes(generator, [row(7), rows[2], row(9)])[1] == alone[2]
    assert hashes(generator, [rows[3]]) == [alone[3]]
    assert hashes(generator, [rows[1], rows[1]]) == [alone[1]] * 2


@pytest.mark.parametrize("name", tiny_pipelines.FAMILIES)
def test_seed_prompt_and_negative_prompt_reach_the_pixels(folder: Folder, name: str) -> None:
    generator = tiny(folder(name))
    rows = [row(0), row(0, seed=5), row(0, prompt="sad old woman"), row(0, negative="glasses")]
    made = hashes(generator, rows)
    guided = generator.producer()["guided"]
    assert guided == (name not in ("flux", "lcm"))
    assert len(set(made)) == (4 if guided else 3)
    assert (made[3] != made[0]) == guided


def test_a_second_process_and_the_hub_cache_give_the_same_bits(folder: Folder, tmp_path: Path) -> None:
    """In a new process the model is a hub id found offline in a cache, as on a worker of a cluster."""
    commit = hashlib.sha1(b"tiny").hexdigest()
    cached = tmp_path / "models--owner--tiny"
    shutil.copytree(folder("sd3"), cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    script = (
        "import json; from synthfer.sample import pixels_hash; from tests.generators.test_diffusion import row, tiny\n"
        "generator = tiny('owner/tiny'); made = generator.make([row(i) for i in (2, 0, 1)])\n"
        "print(json.dumps([[pixels_hash(picture) for picture in made], generator.producer()]))"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    theirs, producer = json.loads(done.stdout.splitlines()[-1])
    here = tiny(folder("sd3"))
    assert theirs == hashes(here, [row(2), row(0), row(1)])
    assert (producer["model"], producer["revision"]) == ("owner/tiny", commit)
    assert producer == here.producer() | {"model": "owner/tiny", "revision": commit}


@pytest.mark.parametrize("name", [name for name in tiny_pipelines.FAMILIES if name != "lcm"])
def test_pictures_are_those_of_plain_diffusers(folder: Folder, name: str) -> None:
    """Same weights, prompts, seeds and batch, through the pipeline's own call and its own PIL pictures."""
    generator = tiny(folder(name))
    rows = [row(i) for i in range(4)]
    pipe = AutoPipelineForText2Image.from_pretrained(folder(name))
    pipe.set_progress_bar_config(disable=True)
    negative = {} if name == "flux" else {"negative_prompt": ["old"] * 4}
    seeds = [torch.Generator().manual_seed(r.seed) for r in rows]
    plain = pipe([r.prompt for r in rows], **negative, height=32, width=32, num_inference_steps=4, generator=seeds)
    difference = np.abs(pixels(generator, rows) - np.stack([np.asarray(image) for image in plain.images]).astype(int))
    # Plain diffusers encodes prompts in a batch of another size, which shows in the last bits.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.002


def test_pictures_equal_plain_diffusers_bit_for_bit_with_the_same_embeddings_and_latents(folder: Folder) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(folder("sd"))
    pipe.set_progress_bar_config(disable=True)
    rows = [row(i) for i in range(4)]
    with torch.no_grad():
        embeds, _ = pipe.encode_prompt([*[r.prompt for r in rows], *[""] * 4], "cpu", 1, False)
        negative, _ = pipe.encode_prompt(["old"] + [""] * 7, "cpu", 1, False)
    latents = torch.cat([torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(r.seed)) for r in rows])
    plain = pipe(
        prompt_embeds=embeds[:4],
        negative_prompt_embeds=negative[:1].expand(4, -1, -1),
        latents=latents,
        height=32,
        width=32,
        num_inference_steps=4,
    )
    generator = tiny(folder("sd"), vae_batch=4)
    np.testing.assert_array_equal(pixels(generator, rows), np.stack([np.asarray(image) for image in plain.images]))


def test_half_precision_draws_the_same_noise_and_keeps_neighbours_apart(folder: Folder) -> None:
    exact, half = tiny(folder("sd")), tiny(folder("sd"), dtype="bfloat16")
    rows = [row(i) for i in range(4)]
    made = pixels(half, rows)
    assert np.abs(made - pixels(exact, rows)).mean() < 4
    np.testing.assert_array_equal(pixels(half, rows[::-1])[::-1], made)
    assert half.producer()["dtype"] == "bfloat16"


def test_settings_and_random_state_of_torch_are_left_alone(folder: Folder) -> None:
    def state() -> tuple[Any, ...]:
        return (
            torch.random.get_rng_state().tolist(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
            torch.get_num_threads(),
        )

    torch.manual_seed(3)
    before = state()
    generator = tiny(folder("lcm"), threads=2, steps=1)
    made = hashes(generator, [row(0)])
    assert state() == before
    torch.manual_seed(4)
    assert hashes(generator, [row(0)]) == made


def test_on_cuda_no_library_may_choose_its_kernels_from_run_to_run() -> None:
    cudnn = torch.backends.cudnn
    before = (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32)
    with exact(1, cuda=True):
        assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (True, False, True, False)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_float32_matmul_precision() == "highest"
    assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before


# -- text


def test_prepared_prompts_give_the_same_pictures_without_text_encoders(folder: Folder) -> None:
    generator, other = tiny(folder("sdxl")), tiny(folder("sdxl"))
    rows = [row(i) for i in range(4)]
    assert generator.prepare([*PROMPTS, "old"])
    assert hashes(generator, rows) == hashes(other, rows)
    (refused,) = generator.make([row(0, prompt="never seen")])
    assert isinstance(refused, Failure) and "not prepared" in refused.reason


def test_more_prompts_than_fit_are_not_prepared_and_forgotten_ones_come_back_equal(folder: Folder) -> None:
    generator = tiny(folder("sdxl"), text_cache_mb=1)
    first = hashes(generator, [row(0)])
    assert not generator.prepare([f"face {i}" for i in range(200)])
    assert hashes(generator, [row(0)]) == first
    assert not tiny(folder("lcm")).prepare(["a face"])


def test_text_length_is_a_setting_where_the_pipeline_has_one(folder: Folder) -> None:
    short = tiny(folder("qwen"), text_tokens=64)
    assert short.producer()["text_tokens"] == 64
    assert hashes(short, [row(0), row(1)])[0] == hashes(short, [row(0)])[0]
    with pytest.raises(ConfigError, match=r"text_tokens: StableDiffusion3Pipeline reads at most 512 tokens"):
        tiny(folder("sd3"), text_tokens=600)
    with pytest.raises(ConfigError, match=r"text_tokens: the tokenizer of StableDiffusionPipeline fixes"):
        tiny(folder("sd"), text_tokens=64)


@pytest.mark.parametrize("name", ["sd", "sd3", "qwen"])
def test_prompts_beyond_the_text_length_are_cut_and_said_once_or_fail(
    folder: Folder, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = {} if name == "sd" else {"text_tokens": 64}
    long = "face " * 90
    strict = tiny(folder(name), long_prompts="fail", **tokens)
    made = strict.make([row(0), row(1, prompt=long), row(2)])
    assert [isinstance(picture, Failure) for picture in made] == [False, True, False]
    assert "more than the model reads" in made[1].reason
    lenient = tiny(folder(name), **tokens)
    with caplog.at_level(logging.WARNING, "synthfer"):
        hashes(lenient, [row(0, prompt=long), row(1, prompt=long + "old")])
    assert len([r for r in caplog.records if r.name.startswith("synthfer") and "are cut" in r.message]) == 1
    assert lenient.producer()["long_prompts"] == "cut"


# -- guidance, decoding, pixels


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_guidance_cut_off_is_right_for_batches(folder: Folder, name: str) -> None:
    batch = tiny(folder(name), guidance=40.0, guidance_until=0.5)
    sizes: list[int] = []
    model = batch._pipe.transformer if name == "sd3" else batch._pipe.unet
    inputs = (lambda args, kwargs: kwargs["hidden_states"]) if name == "sd3" else (lambda args, kwargs: args[0])
    model.register_forward_pre_hook(lambda _, a, k: sizes.append(len(inputs(a, k))), with_kwargs=True)
    rows = [row(i) for i in range(4)]
    made = pixels(batch, rows)
    assert sizes == [8, 8, 4, 4]
    single = tiny(folder(name), guidance=40.0, guidance_until=0.5, batch_size=1)
    alone = np.concatenate([pixels(single, [r]) for r in rows])
    assert np.abs(made - alone).max() <= 1
    uncut = pixels(tiny(folder(name), guidance=40.0), rows)
    assert np.abs(made - uncut).mean() > 20 * np.abs(made - alone).mean()
    assert batch.producer()["guidance_until"] == 0.5


@pytest.mark.parametrize("name", ["flux", "qwen", "z_image", "lcm"])
def test_guidance_cut_off_is_refused_where_it_is_not_proven(folder: Folder, name: str) -> None:
    with pytest.raises(ConfigError, match=r"guidance_until: \w+ (makes no unconditional|is not known)"):
        tiny(folder(name), guidance_until=0.5)


def test_decoding_in_small_batches_changes_no_picture(folder: Folder) -> None:
    rows = [row(i) for i in range(4)]
    whole, parts = tiny(folder("sd"), vae_batch=4), tiny(folder("sd"), vae_batch=1)
    assert np.abs(pixels(whole, rows) - pixels(parts, rows)).max() <= 1
    uneven = tiny(folder("sd"), vae_batch=3)
    assert uneven.producer()["vae_batch"] == 2
    assert np.abs(pixels(whole, rows) - pixels(uneven, rows)).max() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_are_rounded_as_diffusers_does(dtype: torch.dtype) -> None:
    decoded = (torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.8).to(dtype)
    processor = VaeImageProcessor()
    expected = [np.asarray(image) for image in processor.postprocess(decoded, output_type="pil")]
    made = to_pictures(processor.postprocess(decoded, output_type="pt"))
    np.testing.assert_array_equal(np.stack(made), np.stack(expected))
    assert all(picture.flags.c_contiguous and picture.dtype == np.uint8 for picture in made)


def test_nan_and_blank_pictures_fail_alone() -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images[1, 2, 3, 4] = float("nan")
    images[2] = torch.tensor([0.2, 0.5, 0.9]).view(3, 1, 1) + torch.rand(3, 16, 16) * 0.004
    made = to_pictures(images)
    assert isinstance(made[1], Failure) and "NaN" in made[1].reason
    assert isinstance(made[2], Failure) and "blank" in made[2].reason
    assert made[0].shape == made[3].shape == (16, 16, 3)


# -- rows and devices that fail


def poisoned(path: Path) -> Path:
    """Weights in which the word "poison" has an embedding of NaN."""
    file = path / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    word = tiny_pipelines.clip_tokenizer().convert_tokens_to_ids("poison</w>")
    (key,) = [key for key in weights if key.endswith("token_embedding.weight")]
    weights[key][word] = float("nan")
    save_file(weights, file, {"format": "pt"})
    return path


def test_a_row_that_comes_out_nan_fails_alone(copied: Folder) -> None:
    generator = tiny(poisoned(copied("sd")))
    good = hashes(generator, [row(0), row(1), row(2)])
    made = generator.make([row(0), row(8, prompt="a poison face"), row(1), row(2)])
    assert isinstance(made[1], Failure) and "NaN" in made[1].reason
    assert [pixels_hash(made[i]) for i in (0, 2, 3)] == good


def test_a_decoder_of_nan_fails_every_row_and_raises_nothing(copied: Folder) -> None:
    file = copied("sd3") / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.bias"][0] = float("nan")
    save_file(weights, file, {"format": "pt"})
    made = tiny(file.parents[1]).make([row(0), row(1)])
    assert all(isinstance(picture, Failure) and "NaN" in picture.reason for picture in made)


def test_when_a_call_raises_only_the_guilty_row_fails(copied: Folder) -> None:
    generator = tiny(poisoned(copied("sd")))
    rows = [row(0), row(1, prompt="a poison face"), row(2), row(3)]
    good = hashes(generator, [rows[0], rows[2], rows[3]])

    def refuse(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["encoder_hidden_states"].isnan().any():
            raise ValueError("a text that the model refuses")

    generator._pipe.unet.register_forward_pre_hook(refuse, with_kwargs=True)
    made = generator.make(rows)
    assert isinstance(made[1], Failure) and "a text that the model refuses" in made[1].reason
    assert [pixels_hash(made[i]) for i in (0, 2, 3)] == good


def test_prompts_that_cannot_be_encoded_or_are_missing_fail_alone(folder: Folder) -> None:
    generator = tiny(folder("sd"))
    made = generator.make([row(0), row(1, prompt="broken \ud800 text"), row(2, prompt=""), row(3)])
    assert [isinstance(picture, Failure) for picture in made] == [False, True, True, False]
    assert "cannot be encoded" in made[1].reason and "no prompt" in made[2].reason
    assert [pixels_hash(made[0]), pixels_hash(made[3])] == hashes(generator, [row(0), row(3)])
    assert generator.make([]) == []
    with pytest.raises(ValueError, match="5 rows are more than the batch_size of 4"):
        generator.make([row(i) for i in range(5)])


@pytest.mark.parametrize(
    "exhaust", [lambda *_: torch.empty(2**50), lambda *_: np.empty(2**50), lambda *_: _raise(torch.OutOfMemoryError)]
)
def test_memory_errors_become_out_of_memory_and_the_generator_stays_usable(
    folder: Folder, exhaust: Callable[..., Any]
) -> None:
    generator = tiny(folder("sd"))
    before = hashes(generator, [row(0)])
    hook = generator._pipe.unet.register_forward_pre_hook(exhaust)
    with pytest.raises(OutOfMemory):
        generator.make([row(0), row(1)])
    hook.remove()
    assert hashes(generator, [row(0)]) == before


def test_a_batch_that_never_fits_is_said_by_make_whose_caller_halves_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(diffusers.UNet2DConditionModel, "forward", lambda *_, **__: torch.empty(2**50))
        generator = tiny(folder("sd"))
        with pytest.raises(OutOfMemory):
            generator.make([row(0)])
    assert hashes(generator, [row(0)])


def _raise(error: type[BaseException]) -> None:
    raise error("CUDA out of memory. Tried to allocate 20.00 GiB")


# -- what may be loaded


def test_weights_other_than_safetensors_are_refused(copied: Folder) -> None:
    path = copied("sd")
    safe = path / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(safe), safe.with_suffix(".bin"))
    assert tiny(path)
    safe.unlink()
    with pytest.raises(ConfigError, match=r"unet of .* has only diffusion_pytorch_model.bin, .*run code"):
        tiny(path)


def test_pipelines_with_code_of_their_own_are_refused(copied: Folder) -> None:
    path = copied("sd")
    (path / "my_unet.py").write_text("raise SystemExit('this ran')")
    edit(path / "model_index.json", unet=["my_unet", "MyUNet"])
    with pytest.raises(ConfigError, match=r"unet of .* is MyUNet from my_unet.py, .*not run"):
        tiny(path)
    edit(path / "model_index.json", _class_name=["my_unet", "MyPipeline"])
    with pytest.raises(ConfigError, match="brings its own pipeline code"):
        tiny(path)


def test_what_is_no_model_is_refused_with_what_to_give(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    for model, problem in {
        "builtin:cats": "there is no 'builtin:cats'",
        str(file): "is a single file",
        str(tmp_path / "absent"): "there is no folder",
        str(tmp_path): "is not a pipeline folder",
    }.items():
        with pytest.raises(ConfigError, match=problem):
            tiny(Path(model))
    with pytest.raises(ConfigError, match="only models of the hub have revisions"):
        tiny(folder("sd"), revision="main")
    with pytest.raises(ConfigError, match=r"generator.device: unknown device 'tpu'|no CUDA device"):
        tiny(folder("sd"), device="cuda:99")


def test_an_image_to_image_pipeline_is_loaded_as_text_to_image_and_others_are_refused(copied: Folder) -> None:
    path = copied("sd")
    edit(path / "model_index.json", _class_name="StableDiffusionImg2ImgPipeline")
    assert tiny(path).producer()["pipeline"] == "StableDiffusionPipeline"
    for name, problem in {
        "DDIMPipeline": "DDIMPipeline is not a text-to-image pipeline of one call",
        "StableDiffusionLatentUpscalePipeline": "cannot run with these settings",
        "NoSuchPipeline": "cannot be loaded",
    }.items():
        edit(path / "model_index.json", _class_name=name)
        with pytest.raises(ConfigError, match=problem):
            tiny(path)


def test_schedulers_go_by_name_and_unknown_ones_list_those_that_fit(folder: Folder) -> None:
    chosen = tiny(folder("sd"), scheduler="DPMSolverMultistepScheduler")
    rows = [row(0), row(1)]
    assert hashes(chosen, rows)[0] != hashes(tiny(folder("sd")), rows)[0]
    assert hashes(chosen, [rows[1]]) == hashes(chosen, rows)[1:]
    recorded = chosen.producer()["scheduler"]
    assert recorded["class"] == "DPMSolverMultistepScheduler" and recorded["config"]["beta_end"] == 0.012
    with pytest.raises(ConfigError, match=r"did you mean EulerDiscreteScheduler\? These do: DDIMScheduler"):
        tiny(folder("sd"), scheduler="EulerDiscretScheduler")
    with pytest.raises(ConfigError, match="These do: FlowMatchEulerDiscreteScheduler"):
        tiny(folder("sd3"), scheduler="DDIMScheduler")


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "DDPMScheduler", "HeunDiscreteScheduler"])
def test_samplers_that_draw_noise_at_every_step_draw_it_per_row(folder: Folder, name: str) -> None:
    generator = tiny(folder("sdxl"), scheduler=name)
    rows = [row(i) for i in range(4)]
    assert hashes(generator, rows[::-1])[::-1] == hashes(generator, rows)


def test_samplers_that_share_their_noise_are_refused(copied: Folder) -> None:
    path = copied("sd3")
    edit(path / "scheduler" / "scheduler_config.json", stochastic_sampling=True)
    with pytest.raises(ConfigError, match="one noise for the whole batch"):
        tiny(path)
    with pytest.raises(ConfigError, match="does not go with StableDiffusionPipeline"):
        tiny(copied("sd"), scheduler="DPMSolverSDEScheduler")


def test_sizes_the_pipeline_cannot_make_are_refused(folder: Folder) -> None:
    with pytest.raises(ConfigError, match=r"generator.height: StableDiffusionPipeline makes multiples of 8 pixels"):
        tiny(folder("sd"), height=36)
    with pytest.raises(ConfigError, match=r"generator.width: FluxPipeline makes multiples of 16 pixels, not 40"):
        tiny(folder("flux"), width=40)
    made = tiny(folder("flux"), height=32, width=48).make([row(0)])[0]
    assert made.shape == (32, 48, 3)


# -- LoRA


@pytest.fixture(scope="session")
def lora(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA weights for the tiny SD, large enough to show."""
    pipe = StableDiffusionPipeline.from_pretrained(folder("sd"))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        pipe.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
        for name, parameter in pipe.unet.named_parameters():
            if "lora" in name:
                parameter.data.normal_(std=0.5)
    target = tmp_path_factory.mktemp("lora")
    StableDiffusionPipeline.save_lora_weights(target, unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    return target


def test_lora_weights_change_pictures_and_are_recorded(folder: Folder, lora: Path) -> None:
    (file,) = lora.iterdir()
    rows = [row(0), row(1)]
    plain = pixels(tiny(folder("sd")), rows)
    with_lora = tiny(folder("sd"), lora=[str(lora)])
    assert np.abs(pixels(with_lora, rows) - plain).max() > 3
    assert np.abs(pixels(tiny(folder("sd"), lora=[str(file)], lora_scale=0.0), rows) - plain).max() <= 1
    expected = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert with_lora.producer()["lora"] == [expected] and with_lora.producer()["lora_scale"] == 1.0
    double = tiny(folder("sd"), lora=[str(lora), str(file)])
    assert len(double.producer()["lora"]) == 2
    assert np.abs(pixels(double, rows) - pixels(with_lora, rows)).max() > 1


def test_lora_weights_that_do_not_fit_are_refused(folder: Folder, lora: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no weight of .* belongs to StableDiffusion3Pipeline"):
        tiny(folder("sd3"), lora=[str(lora)])
    with pytest.raises(ConfigError, match=r"generator.lora: .* takes no LoRA|neither a .safetensors file"):
        tiny(folder("sd"), lora=[str(tmp_path / "absent.safetensors")])
    for name in ("a", "b"):
        shutil.copy(next(lora.iterdir()), tmp_path / f"{name}.safetensors")
    with pytest.raises(ConfigError, match=r"holds 2 .safetensors files \(a.safetensors, b.safetensors\)"):
        tiny(folder("sd"), lora=[str(tmp_path)])


# -- the record


def test_the_producer_is_canonical_json_and_knows_neither_paths_nor_machine(folder: Folder, tmp_path: Path) -> None:
    here = tiny(folder("sd"), scheduler="DPMSolverMultistepScheduler")  # its config holds an infinity
    moved = tiny(
        Path(shutil.copytree(folder("sd"), tmp_path / "elsewhere" / "sd")), scheduler="DPMSolverMultistepScheduler"
    )
    text = canonical_json(here.producer())
    assert text == canonical_json(moved.producer())
    assert str(folder("sd").parent).encode() not in text
    producer = here.producer()
    assert "trained_on" not in producer  # nobody said
    assert tiny(folder("sd"), trained_on=["b:train", "a:val"]).producer()["trained_on"] == ["a:val", "b:train"]
    assert producer["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert producer["versions"]["diffusers"] == diffusers.__version__
    assert producer["model"] == "sd" and producer["batch_size"] == 4 and producer["safety_checker"] == "off"
    notes = here.device_notes()
    assert notes["device"] and not set(notes) & set(producer)


def test_the_producer_changes_with_everything_that_changes_pictures(copied: Folder) -> None:
    path = copied("sd")
    seen = [canonical_json(tiny(path, **options).producer()) for options in _CHANGES]
    weights, tokenizer = path / "unet" / "diffusion_pytorch_model.safetensors", path / "tokenizer" / "tokenizer.json"
    weights.write_bytes(weights.read_bytes()[:-3] + b"\0\0\0")
    seen.append(canonical_json(tiny(path).producer()))
    tokenizer.write_text(tokenizer.read_text() + "\n")
    seen.append(canonical_json(tiny(path).producer()))
    assert len(set(seen)) == len(seen)


_CHANGES: list[dict[str, Any]] = [
    {},
    {"steps": 5},
    {"guidance": 3.0},
    {"guidance_until": 0.5},
    {"batch_size": 2},
    {"vae_batch": 1},
    {"width": 40},
    {"dtype": "bfloat16"},
    {"scheduler": "EulerDiscreteScheduler"},
    {"long_prompts": "fail"},
    {"threads": 2},
]


def test_a_card_recommends_and_options_overrule(copied: Folder) -> None:
    path = copied("sd")
    (path / "synthfer.json").write_text(json.dumps({"steps": 3, "guidance": 2.5, "height": 40, "width": 24}))
    recommended = build(Config(model=str(path), batch_size=2))
    assert recommended.make([row(0)])[0].shape == (40, 24, 3)
    producer = recommended.producer()
    assert (producer["steps"], producer["guidance"]) == (3, 2.5)
    overruled = build(Config(model=str(path), batch_size=2, steps=2, guidance=1.0, width=32)).producer()
    assert (overruled["steps"], overruled["guided"], overruled["height"], overruled["width"]) == (2, False, 40, 32)


def test_the_registry_builds_it_by_name(folder: Folder) -> None:
    made = generators.build("diffusion", model=str(folder("sd")), steps=1, batch_size=1)
    assert made.batch_size == 1 and made.producer()["generator"] == "diffusion"


# -- compiled kernels


def test_compilation_is_refused_where_no_shape_is_fixed(folder: Folder) -> None:
    with pytest.raises(ConfigError, match="compile: ZImagePipeline takes one row per call"):
        tiny(folder("z_image"), compile=True)
    with pytest.raises(ConfigError, match="strict chooses among compiled kernels"):
        tiny(folder("sd"), strict=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "strict"), [("sd", False), ("sd3", True)])
def test_compiled_pictures_are_the_same_and_as_independent(folder: Folder, name: str, strict: bool) -> None:
    compiled = tiny(folder(name), compile=True, strict=strict, guidance_until=0.5)
    rows = [row(i) for i in range(4)]
    made = pixels(compiled, rows)
    assert np.abs(made - pixels(tiny(folder(name), guidance_until=0.5), rows)).max() <= 1
    np.testing.assert_array_equal(pixels(compiled, rows[::-1])[::-1], made)


# -- the weights that ship


@pytest.mark.skipif(
    not (Path(str(files("synthfer"))) / "assets" / "faces" / "model_index.json").is_file(), reason="no assets"
)
def test_builtin_faces_makes_its_pictures_the_same_in_any_company() -> None:
    generator = build(Config(batch_size=4))
    prompts = [f"a young woman with a {word} expression" for word in ("happy", "sad", "surprised", "angry")]
    rows = [row(i, prompt=prompt, negative=None) for i, prompt in enumerate(prompts)]
    made = hashes(generator, rows)
    assert hashes(generator, rows[::-1]) == made[::-1]
    producer = generator.producer()
    assert producer["model"] == "builtin:faces" and (producer["height"], producer["width"]) == (64, 64)
    assert hashes(generator, rows[2:3]) == made[2:3]
