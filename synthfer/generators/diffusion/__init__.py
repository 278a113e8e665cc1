"""Faces by text-to-image diffusion: any such pipeline of diffusers, one picture a pure function of its row.

The options and `build` are here; pipelines.py finds, checks and loads weights; families.py has how each family of
pipelines takes text and guidance; settings.py resolves options; texts.py encodes prompts; kernels.py chooses kernels;
generator.py turns rows into pictures. This module does not import torch, so that options are listed and checked fast.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from synthfer.limits import MAX_BATCH, MAX_BATCH_BYTES, MAX_THREADS, check_memory
from synthfer.schema import option

if TYPE_CHECKING:
    from synthfer.generators.diffusion.generator import Diffusion

# The widest maps of the usual decoders: 128 channels of 4 bytes for each pixel, in and out and between.
_DECODER_BYTES = 3 * 128 * 4


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the diffusion generator. None: as the pipeline itself recommends."""

    model: str = option("builtin:faces", "builtin:NAME, a local pipeline folder, or a model id on the Hugging Face hub")
    revision: str | None = option(None, "branch, tag or commit of a hub model; the commit found is recorded")
    variant: str | None = option(None, "weight variant of the pipeline folder, such as fp16")
    lora: list[str] = option([], "LoRA weights to fuse: .safetensors files, folders, or hub ids")
    lora_scale: float = option(1.0, "strength of the LoRA weights", low=-10, high=10)
    scheduler: str | None = option(None, "scheduler class, such as DPMSolverMultistepScheduler (null: the model's own)")
    steps: int | None = option(None, "denoising steps (null: what the model recommends)", low=1, high=1000)
    guidance: float | None = option(
        None, "guidance scale, in the pipeline's own sense (null: what the model recommends)", low=0, high=100
    )
    guidance_until: float = option(1.0, "share of the steps with classifier-free guidance", low=0.01, high=1)
    height: int | None = option(None, "height of the picture in pixels (null: the model's own)", low=8, high=8192)
    width: int | None = option(None, "width of the picture in pixels (null: the model's own)", low=8, high=8192)
    batch_size: int = option(
        16, "rows per device call; a fixed shape, since the bits of a picture depend on it", low=1, high=MAX_BATCH
    )
    vae_batch: int = option(8, "most pictures decoded at once", low=1, high=MAX_BATCH)
    dtype: str = option(
        "auto",
        "auto is bfloat16 on CUDA and float32 on CPU",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    compile: bool = option(False, "compile the model for the job's one shape")
    strict: bool = option(False, "with compile: kernels that give the same bits for every batch size")
    text_encoder: str = option("device", "where text encoders live", choices=("device", "cpu"))
    text_tokens: int | None = option(None, "text length in tokens, where the pipeline has a choice", low=16, high=1024)
    text_cache_mb: int = option(2048, "memory for encoded prompts in MiB", low=1, high=2**20)
    long_prompts: str = option(
        "cut", "whether a prompt beyond the text length is cut, or its row fails", choices=("cut", "fail")
    )
    trained_on: list[str] = option(
        [], "collection:split of faces that the weights have learned from, for the check of shared training data (G7)"
    )
    threads: int = option(
        1, "CPU threads of torch; the number changes the bits of pictures made on a CPU", low=1, high=MAX_THREADS
    )

    def __post_init__(self) -> None:
        pixels = (self.height or 0) * (self.width or 0)
        size = 12 * self.batch_size * pixels
        check_memory("a batch of pictures", size, "lower batch_size, height or width", MAX_BATCH_BYTES)
        decoding = _DECODER_BYTES * self.vae_batch * pixels
        check_memory(f"decoding {self.vae_batch} pictures at once", decoding, "lower vae_batch, height or width")


def build(config: Config) -> "Diffusion":
    """The generator, weights loaded and one trial batch made. `ConfigError` says what cannot be and what can."""
    from synthfer.generators.diffusion.generator import Diffusion

    return Diffusion(config)
