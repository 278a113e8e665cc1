"""Which kernels run: compiled ones for one shape, and decoding in small batches."""

from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DecoderOutput

from synthfer.generators.diffusion.families import Family
from synthfer.schema import ConfigError


def decode_in_batches(vae: Any, batch_size: int, most: int) -> int:
    """Lets the VAE decode at most `most` pictures at once, for any pipeline; returns how many.

    The number divides the batch, since a picture in a smaller last part would get other bits than its
    neighbours. Decoding takes far more memory than denoising, is slower in large batches, and breaks beyond
    2**31 elements.
    """
    share = max(n for n in range(1, min(most, batch_size) + 1) if batch_size % n == 0)
    whole = vae.decode

    def decode(z: torch.Tensor, return_dict: bool = True, **options: Any) -> Any:
        options.pop("generator", None)  # has one entry per row of the whole batch, and decoders do not use it
        parts = torch.cat([whole(part, return_dict=False, **options)[0] for part in z.split(share)])
        return DecoderOutput(sample=parts) if return_dict else (parts,)

    if share < batch_size:
        vae.decode = decode
    return share


def compile_model(pipe: Any, family: Family, strict: bool) -> None:
    """Compiles denoiser and decoder for one fixed shape. `ConfigError` where the shape cannot be fixed.

    UNets are compiled whole, since compiling their attention blocks alone leaves the convolutions out;
    transformers by their repeated block, which takes a seventh of the time.
    """
    if family.one_row:
        raise ConfigError(
            f"generator.compile: {type(pipe).__name__} takes one row per call ({family.one_row}), so there is"
            " no one shape to compile for, and kernels would depend on the order of rows; leave it off."
        )
    if strict:
        _strict_kernels()
    if getattr(pipe, "unet", None) is not None:
        pipe.unet.compile(fullgraph=True, dynamic=False)
    else:
        transformer = pipe.transformer
        # Empty for SD3 in diffusers 0.42, which then refuses.
        transformer._repeated_blocks = transformer._repeated_blocks or ["JointTransformerBlock"]
        transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)
    if isinstance(pipe.vae, AutoencoderKL):
        pipe.vae.decode = torch.compile(pipe.vae.decode, fullgraph=True, dynamic=False)


def _strict_kernels() -> None:
    from torch._inductor import config

    if not hasattr(config, "batch_invariant"):
        raise ConfigError(f"generator.strict: torch {torch.__version__} lacks batch-invariant kernels; 2.13 has.")
    config.batch_invariant = True


def channels_last(pipe: Any) -> None:
    """The memory layout that convolutions of CUDA want; transformers have none."""
    for part in (getattr(pipe, "unet", None), pipe.vae):
        if isinstance(part, (UNet2DConditionModel, AutoencoderKL)):
            part.to(memory_format=torch.channels_last)
