"""Train a small text-to-image diffusers pipeline from images and captions: an autoencoder, then a flow in its latents.

Methods: the variational autoencoder of Kingma & Welling (2014); diffusion in its latents, steered by text through
cross-attention, of Rombach et al. (2022); straight-path flow matching of Lipman et al. (2023); guidance without a
classifier by leaving out captions of Ho & Salimans (2022). The result is an ordinary `StableDiffusionPipeline`.

The network sees the time as `1000 * sigma`, as diffusers' flow-sigma schedulers pass it, and predicts noise - data.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from synthfer.builtin_faces.autoencoder import Log, centre_weight, shuffled_batches, warm_cosine


@dataclass(frozen=True)
class TextSettings:
    """How long the text encoder learns words alone."""

    steps: int = 700
    batch: int = 64
    rate: float = 2e-3
    seed: int = 0


@dataclass(frozen=True)
class FlowSettings:
    """How long and how the denoiser and the text encoder learn; `draws` noises share one caption's encoding."""

    steps: int = 6000
    batch: int = 48
    draws: int = 2
    rate: float = 1.2e-3
    text_rate: float = 3e-4
    no_caption: float = 0.12
    ema: float = 0.998
    bfloat16: bool = True
    seed: int = 0


def build_tokenizer(words: Iterable[str], length: int = 77) -> CLIPTokenizer:
    """A CLIP tokenizer made by hand: one token for each given word, letters for every other; no training, no ties."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys(["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)])
    merges: dict[tuple[str, str], int] = {}
    for word in sorted(set(words)):
        left, *rest = _pieces(word, merges)
        for right in rest:  # later merges come after all earlier ones, so no earlier word is split differently
            merges[left, right] = len(merges)
            left += right
            tokens[left] = None
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=list(merges), model_max_length=length)


def _pieces(word: str, merges: dict[tuple[str, str], int]) -> list[str]:
    """The pieces of a word under byte-pair merges, the first-ranked pair joined first."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while True:
        ranks = {merges[pair]: pair for pair in pairwise(pieces) if pair in merges}
        if not ranks:
            return pieces
        left, right = ranks[min(ranks)]
        joined: list[str] = []
        for piece in pieces:
            if joined and joined[-1] == left and piece == right:
                joined[-1] = left + right
            else:
                joined.append(piece)
        pieces = joined


def build_text_encoder(tokenizer: CLIPTokenizer, width: int = 96, layers: int = 2, heads: int = 4) -> CLIPTextModel:
    """A small causal transformer over the tokenizer's vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=heads, max_position_embeddings=tokenizer.model_max_length, projection_dim=width,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


def build_unet(channels: tuple[int, int] = (80, 96), latents: int = 8, text: int = 96) -> UNet2DConditionModel:
    """A denoiser of 8x8 latents; text enters at 4x4, where attention over all 77 tokens is cheap."""
    return UNet2DConditionModel(
        sample_size=8, in_channels=latents, out_channels=latents, layers_per_block=1, block_out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=16, cross_attention_dim=text, attention_head_dim=4, time_embedding_dim=2 * channels[0],
    )  # fmt: skip


def build_scheduler() -> DPMSolverMultistepScheduler:
    """DPM-Solver++ (Lu et al. 2022) of second order on the straight paths of flow matching."""
    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000, use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=1.0,
        algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", lower_order_final=True,
        final_sigmas_type="zero", steps_offset=1,
    )  # fmt: skip


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids as the pipeline makes them: padded and cut to the model's length; int64 (N, length)."""
    return tokenizer(texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True,
                     return_tensors="pt").input_ids  # fmt: skip


class Flow:
    """The denoiser and its text encoder while they learn, with running means of their weights (`averages`)."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, decay: float) -> None:
        self.unet, self.text_encoder, self.decay = unet, text_encoder, decay
        self.averages = nn.ModuleList([copy.deepcopy(unet), copy.deepcopy(text_encoder)]).requires_grad_(False).eval()

    def parameters(self) -> list[nn.Parameter]:
        return [*self.unet.parameters(), *self.text_encoder.parameters()]

    def loss(self, latents: Tensor, ids: Tensor, draws: int) -> Tensor:
        """Squared error of the predicted velocity, noise - data, at random times."""
        text = self.text_encoder(ids)[0].repeat(draws, 1, 1)
        data = latents.repeat(draws, 1, 1, 1)
        noise, sigma = torch.randn_like(data), torch.sigmoid(0.3 + 1.2 * torch.randn(len(data)))
        mixed = torch.lerp(data, noise, sigma[:, None, None, None])
        velocity = self.unet(mixed, (sigma * 1000).floor(), text, return_dict=False)[0]
        return (centre_weight(data.shape[-1], 1.5) * (velocity.float() - (noise - data)).square()).mean()

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Move the running means towards the weights; faster at the start."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for average, weight in zip(self.averages.parameters(), self.parameters(), strict=True):
            average.lerp_(weight, 1 - keep)


def train_text(
    text_encoder: CLIPTextModel, ids: Tensor, answers: Tensor, settings: TextSettings, log: Log = print
) -> None:
    """Teach the text encoder its words before any picture: what is drawn must be readable after a caption's end.

    Exact labels make this cheap, and the denoiser then meets a text that already means something.

    Args:
        ids: integer (N, K, length), K captions of each picture.
        answers: int64 (N, Q), the true answer to each of Q questions about the picture.
    """
    torch.manual_seed(settings.seed)
    sizes = (answers.max(0).values + 1).tolist()
    heads = nn.Linear(text_encoder.config.hidden_size, sum(sizes))
    weights = [*text_encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=settings.rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = warm_cosine(optimiser, settings.steps)
    batches, mean = shuffled_batches(len(ids), settings.batch, settings.seed), 0.0
    for step in range(settings.steps):
        chosen = next(batches)
        captions = ids[chosen, torch.randint(ids.shape[1], (len(chosen),))].long()
        with sdpa_kernel(SDPBackend.MATH):
            hidden = text_encoder.train()(captions)[0]
        ended = (captions == text_encoder.config.eos_token_id).unsqueeze(2)
        logits = heads((hidden * ended).sum(1) / ended.sum(1)).split(sizes, 1)
        losses = [F.cross_entropy(one, answers[chosen, q]) for q, one in enumerate(logits)]
        loss = torch.stack(losses).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        mean += 0.05 * ((logits[0].argmax(1) == answers[chosen, 0]).float().mean().item() - mean)
        if step % 100 == 99:
            log(f"text {step + 1}/{settings.steps} loss {loss.item():.3f} first answer right {mean:.3f}")


def train_flow(flow: Flow, latents: Tensor, ids: Tensor, empty_ids: Tensor, settings: FlowSettings, log: Log = print,
               every: int = 500, checkpoint: Callable[[int], None] | None = None) -> None:  # fmt: skip
    """Fit denoiser and text encoder together, in place.

    Args:
        latents: float32 (N, C, h, w), already multiplied by the autoencoder's scaling factor.
        ids: integer (N, K, length), K captions of each picture.
        empty_ids: ids (M, length) of texts that describe nothing; they replace a share `no_caption` of the captions.
        checkpoint: called with the number of steps done, every `every` steps.
    """
    torch.manual_seed(settings.seed)
    groups = [{"params": list(flow.unet.parameters()), "lr": settings.rate},
              {"params": list(flow.text_encoder.parameters()), "lr": settings.text_rate}]  # fmt: skip
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = warm_cosine(optimiser, settings.steps)
    flow.unet.train(), flow.text_encoder.train()
    batches, start, mean = shuffled_batches(len(latents), settings.batch, settings.seed), time.monotonic(), 1.0
    for step in range(settings.steps):
        chosen = next(batches)
        captions = ids[chosen, torch.randint(ids.shape[1], (len(chosen),))].long()
        dropped = torch.rand(len(chosen)) < settings.no_caption
        captions[dropped] = empty_ids[torch.randint(len(empty_ids), (int(dropped.sum()),))]
        # on a CPU the fused attention's backward is far slower than the plain one
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16), sdpa_kernel(SDPBackend.MATH):
            loss = flow.loss(latents[chosen], captions, settings.draws)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        flow.average(step)
        mean += 0.02 * (loss.item() - mean)
        if step % 100 == 99:
            log(f"flow {step + 1}/{settings.steps} loss {mean:.4f} {time.monotonic() - start:.0f}s")
        if checkpoint and step % every == every - 1:
            checkpoint(step + 1)


def build_pipeline(vae: AutoencoderKL, flow: Flow, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """The averaged weights as a pipeline that diffusers loads by itself."""
    unet, text_encoder = flow.averages
    return StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=build_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def save_half(pipeline: StableDiffusionPipeline, folder: Path) -> None:
    """Write a copy in half precision; the pipeline in memory keeps its weights.

    The files name no folder of this machine, and say that the text encoder runs in float32, as diffusers' parts do
    unless told otherwise; transformers would take the precision of the file.
    """
    parts = {name: copy.deepcopy(getattr(pipeline, name)).half() for name in ("vae", "unet", "text_encoder")}
    half = StableDiffusionPipeline(**parts, tokenizer=pipeline.tokenizer, scheduler=pipeline.scheduler,
                                   safety_checker=None, feature_extractor=None,
                                   requires_safety_checker=False)  # fmt: skip
    half.save_pretrained(folder)
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)
        if "dtype" in config:
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
