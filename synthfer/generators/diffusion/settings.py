"""The settings of a job: the user's options, else what the model's card recommends, else the pipeline's defaults."""

import inspect
from dataclasses import dataclass
from typing import Any

from synthfer.generators.diffusion import Config
from synthfer.generators.diffusion.families import Family
from synthfer.schema import ConfigError

MAX_SIDE = 8192
"""Pixels; the largest that `Config` takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that decides over the pixels, with a value for each; pixels depend on every one."""

    steps: int
    guidance: float | None
    guided: bool
    """Whether there is an unconditional pass, too, and so whether negative prompts have an effect."""
    guidance_until: float
    height: int
    width: int
    text_tokens: int | None
    """Text length in tokens where the pipeline has a choice."""


def settle(config: Config, pipe: Any, family: Family, card: dict[str, Any]) -> Settings:
    """The settings of a job; `ConfigError` names the option that the pipeline cannot follow, and why."""
    guidance = _first(config.guidance, card.get("guidance"), _default(pipe, family.guidance))
    guided = _guides(pipe, family, guidance)
    if config.guidance_until < 1 and (family.cut is None or not guided):
        why = "is not known to allow it" if guided else "makes no unconditional pass at this guidance"
        raise ConfigError(f"generator.guidance_until: {type(pipe).__name__} {why}; leave it at 1.")
    height, width = _size(config, pipe, family, card)
    return Settings(
        steps=int(_first(config.steps, card.get("steps"), _default(pipe, "num_inference_steps"), 50)),
        guidance=guidance,
        guided=guided,
        guidance_until=config.guidance_until,
        height=height,
        width=width,
        text_tokens=_text_tokens(config, pipe, family),
    )


def takes(pipe: Any, argument: str) -> bool:
    """Whether the pipeline's call takes an argument of that name."""
    return argument in inspect.signature(pipe.__call__).parameters


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _default(pipe: Any, argument: str) -> Any:
    parameter = inspect.signature(pipe.__call__).parameters.get(argument)
    return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def _guides(pipe: Any, family: Family, guidance: float | None) -> bool:
    if guidance is None or family.guided_above is None or guidance <= family.guided_above:
        return False
    # Models that take the guidance as an input (LCM) make one pass only.
    unet = getattr(pipe, "unet", None)
    return unet is None or getattr(unet.config, "time_cond_proj_dim", None) is None


def _size(config: Config, pipe: Any, family: Family, card: dict[str, Any]) -> tuple[int, int]:
    """Height and width in pixels; some pipelines would silently make another size than the given one."""
    scale = int(getattr(pipe, "vae_scale_factor", 8))
    sample = getattr(pipe, "default_sample_size", None)
    if sample is None and getattr(pipe, "unet", None) is not None:
        sample = pipe.unet.config.sample_size
    own = tuple(sample) if isinstance(sample, (list, tuple)) else (sample or 1024 // scale,) * 2
    size = (
        int(_first(config.height, card.get("height"), own[0] * scale)),
        int(_first(config.width, card.get("width"), own[1] * scale)),
    )
    step = scale * family.multiple
    for key, value in zip(("height", "width"), size, strict=True):
        if not 8 <= value <= MAX_SIDE:
            raise ConfigError(f"generator.{key}: the model's own is {value} pixels; give 8 to {MAX_SIDE}.")
        if value % step:
            raise ConfigError(f"generator.{key}: {type(pipe).__name__} makes multiples of {step} pixels, not {value}.")
    return size


def _text_tokens(config: Config, pipe: Any, family: Family) -> int | None:
    tokens, limit, name = config.text_tokens, family.text_limit, type(pipe).__name__
    if limit is None:
        if tokens is not None:
            raise ConfigError(f"generator.text_tokens: the tokenizer of {name} fixes the length; leave it out.")
        return None
    if tokens is not None and tokens > limit:
        raise ConfigError(f"generator.text_tokens: {name} reads at most {limit} tokens, not {tokens}.")
    return tokens or int(_default(pipe, "max_sequence_length"))
