"""How each family of pipelines takes text and guidance: one table with all their differences.

A family states how texts become embeddings of one canonical shape, which argument is the guidance and from which value
on it costs a second forward pass, and which tensors to halve when guidance is cut off. All this comes from the code of
the pipelines of diffusers 0.42 and is tested with tiny ones.

Pipelines that are not in the table run too, one row per call and with the prompt itself: whatever they do with a
batch, a picture cannot depend on its neighbours then.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from synthfer.schema import ConfigError

Embeds = dict[str, torch.Tensor]
"""The arguments of a pipeline's call that replace one text: name -> tensor without batch dimension."""
Encoder = Callable[[Any, list[str], int, torch.device], list[Embeds]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """Facts about the pipelines of one kind."""

    encode: Encoder | None
    """(text pipeline, texts, tokens, device) -> one `Embeds` per text; None: the pipeline is given the prompt."""
    encode_rows: int = 8
    """Texts per encoder call, always padded: pooled embeddings differ in the last bits between batch sizes."""
    guidance: str = "guidance_scale"
    guided_above: float | None = 1.0
    """Guidance beyond which an unconditional pass is made; None: never, the model has its guidance built in."""
    cut: tuple[str, ...] | None = None
    """Tensors that hold (unconditional, conditional) halves in the loop; None: a cut-off is not supported."""
    text_limit: int | None = None
    """The longest text length that can be chosen; None: fixed by the tokenizer."""
    template: int = 0
    """Tokens that the pipeline's own template takes from the text length."""
    multiple: int = 2
    """Height and width in latents must be multiples of this."""
    one_row: str | None = None
    """Why a call takes one row only."""
    ragged: bool = False
    """Embeddings are a list of tensors, each of its own length."""


def _tensors(**batch: torch.Tensor) -> list[Embeds]:
    return [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]


def _sd(pipe: Any, texts: list[str], tokens: int, device: torch.device) -> list[Embeds]:
    embeds, _ = pipe.encode_prompt(texts, device, 1, False)
    return _tensors(prompt_embeds=embeds)


def _sdxl(pipe: Any, texts: list[str], tokens: int, device: torch.device) -> list[Embeds]:
    embeds, _, pooled, _ = pipe.encode_prompt(texts, device=device, do_classifier_free_guidance=False)
    return _tensors(prompt_embeds=embeds, pooled_prompt_embeds=pooled)


def _sd3(pipe: Any, texts: list[str], tokens: int, device: torch.device) -> list[Embeds]:
    embeds, _, pooled, _ = pipe.encode_prompt(
        texts, None, None, device=device, do_classifier_free_guidance=False, max_sequence_length=tokens
    )
    return _tensors(prompt_embeds=embeds, pooled_prompt_embeds=pooled)


def _flux(pipe: Any, texts: list[str], tokens: int, device: torch.device) -> list[Embeds]:
    embeds, pooled, _ = pipe.encode_prompt(texts, device=device, max_sequence_length=tokens)
    return _tensors(prompt_embeds=embeds, pooled_prompt_embeds=pooled)


def _qwen(pipe: Any, texts: list[str], tokens: int, device: torch.device) -> list[Embeds]:
    # The pipeline pads to the longest text of a batch and drops the mask where nothing is padded; here every
    # text is padded to `tokens`, the last of which is always padding, so that all rows go one way.
    embeds, _ = pipe.encode_prompt(texts, device, max_sequence_length=tokens - 1)
    used = embeds.shape[1]
    mask = torch.arange(tokens, device=device).lt(used).long().expand(len(texts), tokens)
    return _tensors(prompt_embeds=pad(embeds, (0, 0, 0, tokens - used)), prompt_embeds_mask=mask)


def _z_image(pipe: Any, texts: list[str], tokens: int, device: torch.device) -> list[Embeds]:
    # The pipeline writes its template into the list that it is given.
    embeds, _ = pipe.encode_prompt(list(texts), device, False, max_sequence_length=tokens)
    return [{"prompt_embeds": row} for row in embeds]


_FAMILIES = {
    "StableDiffusionPipeline": Family(encode=_sd, cut=("prompt_embeds",), multiple=1),
    "StableDiffusionXLPipeline": Family(
        encode=_sdxl, cut=("prompt_embeds", "add_text_embeds", "add_time_ids"), multiple=1
    ),
    "StableDiffusion3Pipeline": Family(encode=_sd3, cut=("prompt_embeds", "pooled_prompt_embeds"), text_limit=512),
    "FluxPipeline": Family(encode=_flux, guided_above=None, text_limit=512),
    "QwenImagePipeline": Family(encode=_qwen, encode_rows=1, guidance="true_cfg_scale", text_limit=1024, template=6),
    "ZImagePipeline": Family(
        encode=_z_image,
        encode_rows=1,
        guided_above=0.0,
        text_limit=1024,
        template=8,
        one_row="it pads each batch to its longest prompt",
        ragged=True,
    ),
}


def family_of(pipe: Any) -> Family:
    """The family of a loaded pipeline; `ConfigError` if it does not make pictures from text."""
    known = _FAMILIES.get(type(pipe).__name__)
    if known is not None:
        return known
    accepted = inspect.signature(pipe.__call__).parameters
    missing = {"prompt", "generator", "num_inference_steps", "output_type"} - set(accepted)
    if missing or not hasattr(pipe, "vae"):
        raise ConfigError(
            f"generator.model: {type(pipe).__name__} is not a text-to-image pipeline of one call"
            f" (it does not take {', '.join(sorted(missing)) or 'a VAE'}); choose one such as SDXL or SD3."
        )
    return Family(
        encode=None,
        guidance="guidance_scale" if "guidance_scale" in accepted else "",
        guided_above=None if "negative_prompt" not in accepted else 1.0,
        multiple=1,
        one_row="what it does with a batch is not known",
    )


def cut_guidance(family: Family, guided_steps: int) -> dict[str, Any]:
    """Arguments of a pipeline's call that end guidance after so many steps, for batches of any size.

    The cut-off callbacks of diffusers 0.42 keep the last prompt for all (SD3) or fail (SD, SDXL) beyond one
    row; here each tensor keeps its conditional half.
    """
    names = family.cut or ()

    def at_step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == guided_steps - 1:
            tensors = {name: tensors[name].chunk(2)[-1] for name in names}
            pipe._guidance_scale = 0.0
        return tensors

    return {"callback_on_step_end": at_step_end, "callback_on_step_end_tensor_inputs": list(names)}
