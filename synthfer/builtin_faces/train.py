"""How `builtin:faces` is trained: faces are drawn and captioned, and a small text-to-image pipeline is fitted to them.

`train` goes on from what an earlier run left in its work folder: drawings, autoencoder, captions.
"""

import json
import logging
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from diffusers import StableDiffusionPipeline
from torch import Tensor

import synthfer
from synthfer.builtin_faces.autoencoder import AutoencoderSettings, build_autoencoder, encode, train_autoencoder
from synthfer.builtin_faces.captions import caption, empty_captions, preset_caption, preset_phrases, vocabulary
from synthfer.builtin_faces.text_to_image import (
    Flow,
    FlowSettings,
    TextSettings,
    build_pipeline,
    build_text_encoder,
    build_tokenizer,
    build_unet,
    save_half,
    tokenize,
    train_flow,
    train_text,
)
from synthfer.limits import MAX_STEPS
from synthfer.schema import REQUIRED, option
from synthfer.sources.avatars import AvatarAttributes, draw, sample_attributes

log = logging.getLogger(__name__)

TRAIN_SEED = 0
"""First seed of the drawn faces for training; the seeds for evaluation are millions away."""
PRESETS = ("portrait", "syntfer")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long to train, and where the pipeline goes."""

    out: str = option(REQUIRED, "folder of the pipeline; replaced when a better one is ready")
    work: str | None = option(None, "folder for drawings, autoencoder and captions, which a second run reuses")
    faces: int = option(28_000, "drawn faces", low=100, high=10_000_000)
    captions: int = option(13, "captions of each face", low=1, high=1000)
    autoencoder_steps: int = option(
        2_400, "steps of the autoencoder's first phase; two shorter ones follow", low=1, high=MAX_STEPS
    )
    text_steps: int = option(700, "steps of the text encoder on words alone", low=1, high=MAX_STEPS)
    flow_steps: int = option(6_000, "steps of the denoiser and the text encoder", low=1, high=MAX_STEPS)
    seed: int = option(0, "the seed of weights, batches and noise", low=0)
    steps: int = option(10, "denoising steps to recommend", low=1, high=1000)
    guidance: float = option(4.0, "guidance to recommend", low=0)


def train(config: TrainConfig) -> None:
    """Draw, fit the autoencoder, fit the flow, write the pipeline."""
    torch.set_num_threads(1)
    folder = Path(config.work or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    people, images = drawn_faces(TRAIN_SEED, config.faces, folder / "train.npy")
    vae = autoencoder(images, config, folder / "vae")
    presets = load_presets()
    tokenizer = build_tokenizer(vocabulary(p for preset in presets for p in preset_phrases(preset)))
    ids = training_ids(tokenizer, people, presets, config.captions, folder / "ids.npy")
    latents = encode(vae, images) * vae.config.scaling_factor
    torch.manual_seed(config.seed)
    settings = FlowSettings(steps=config.flow_steps, seed=config.seed)
    text_encoder = build_text_encoder(tokenizer)
    train_text(
        text_encoder, ids, attribute_labels(people), TextSettings(steps=config.text_steps, seed=config.seed), log.info
    )
    flow = Flow(build_unet(), text_encoder, settings.ema)

    def checkpoint(step: int) -> None:
        publish(build_pipeline(vae, flow, tokenizer), Path(config.out), config.steps, config.guidance)
        log.info("wrote %s after %d steps", config.out, step)

    empty_ids = tokenize(tokenizer, empty_captions(400, [p["negative"] for p in presets if p.get("negative")]))
    train_flow(flow, latents, ids, empty_ids, settings, log.info, 500, checkpoint)
    checkpoint(config.flow_steps)


def autoencoder(images: Tensor, config: TrainConfig, folder: Path) -> Any:
    """The autoencoder in `folder`, or a new one that is kept there."""
    torch.manual_seed(config.seed)
    vae = build_autoencoder()
    if folder.exists():
        return type(vae).from_pretrained(folder)
    train_in_phases(vae, images, config.autoencoder_steps, config.seed)
    vae.save_pretrained(folder)
    return vae


def train_in_phases(vae: Any, images: Tensor, total: int, seed: int) -> None:
    """Shapes first, on half of the faces; then colours; then the decoder alone, on latents a little off."""
    train_autoencoder(vae, images[: len(images) // 2], AutoencoderSettings(steps=total, seed=seed), log.info)
    colour = AutoencoderSettings(steps=total * 2 // 5, rate=1.5e-3, kl=1e-4, colour=3.0, seed=seed + 2)
    train_autoencoder(vae, images, colour, log.info)
    decoder = AutoencoderSettings(
        steps=total * 5 // 8, rate=1e-3, colour=2.0, decoder_only=True, noise=0.15, seed=seed + 3
    )
    train_autoencoder(vae, images, decoder, log.info)


def drawn_faces(start: int, number: int, cache: Path) -> tuple[list[AvatarAttributes], Tensor]:
    """Attributes and uint8 (N, 3, 64, 64) pictures of the seeds from `start`; the pictures are kept in `cache`."""
    people = [sample_attributes(seed) for seed in range(start, start + number)]
    if not cache.exists():
        # Not by fork: this process may have threads (torch's, Ray's), and a child could inherit a lock that one holds.
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            np.save(cache, np.stack(list(pool.map(draw, people, chunksize=100))))
    return people, torch.from_numpy(np.load(cache)).permute(0, 3, 1, 2).contiguous()


def load_presets() -> list[dict[str, Any]]:
    """The planning presets whose sentences are part of the training mixture."""
    folder = Path(synthfer.__file__).parent / "planning" / "presets"
    return [
        yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in PRESETS if (folder / f"{name}.yaml").exists()
    ]


def training_ids(
    tokenizer: Any, people: list[AvatarAttributes], presets: list[dict[str, Any]], each: int, cache: Path
) -> Tensor:
    """Token ids of `each` captions a face, int16 (N, each, length), from presets, grammar and its full sentences."""
    if not cache.exists():
        texts = [training_caption(face, presets, f"{i}.{k}", k) for i, face in enumerate(people) for k in range(each)]
        parts = [tokenize(tokenizer, texts[i : i + 10_000]).to(torch.int16) for i in range(0, len(texts), 10_000)]
        np.save(cache, torch.cat(parts).reshape(len(people), each, -1).numpy())
    return torch.from_numpy(np.load(cache))


def training_caption(face: AvatarAttributes, presets: list[dict[str, Any]], seed: str, k: int) -> str:
    """The k-th caption of a face: every third from the first preset, the second from the second, two in full."""
    source = 0 if k % 3 == 0 else 1 if k == 1 else len(presets)
    text = preset_caption(face, presets[source], seed) if source < len(presets) else None
    return text or caption(face, seed, full=k >= 10)


def attribute_labels(people: list[AvatarAttributes]) -> Tensor:
    """What captions describe, as class numbers, the expression first; int64 (N, 10)."""
    values = [(a.expression, a.intensity, a.gender, a.age, a.skin, a.hair_color, a.hair_style, a.glasses or "",
             a.facial_hair or "", a.pose) for a in people]  # fmt: skip
    columns = [{word: i for i, word in enumerate(sorted(set(column)))} for column in zip(*values, strict=True)]
    return torch.tensor([[column[word] for column, word in zip(columns, row, strict=True)] for row in values])


def publish(pipe: StableDiffusionPipeline, out: Path, steps: int, guidance: float) -> None:
    """Write the pipeline beside `out`, then swap the two folders; a model card that is in `out` already stays."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    save_half(pipe, fresh)
    advice = {"steps": steps, "guidance": guidance, "height": 64, "width": 64}
    (fresh / "synthfer.json").write_text(json.dumps(advice, indent=2) + "\n")
    if (out / "README.md").exists():
        (fresh / "README.md").write_text((out / "README.md").read_text())
    for path in (fresh, *fresh.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    old = out.with_name(f".{out.name}-old")
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    if old.exists():
        for path in sorted(old.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        old.rmdir()
