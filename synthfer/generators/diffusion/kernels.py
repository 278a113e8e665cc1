"""Which kernels run: exact ones in eager mode, compiled ones for one shape, and decoding in small batches.

Two runs of one shape give the same bits only if no library may choose another algorithm in between. So cuDNN
does not benchmark, matrix products keep full float32, and deterministic algorithms are asked for, during
calls of the generator only: settings of torch are restored afterwards. Attention goes to torch's fused
kernels in order of speed, since the attention switch of diffusers reaches none of SD, SDXL and SD3.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DecoderOutput
from torch.nn.attention import SDPBackend, sdpa_kernel

from synthfer.config import ConfigError
from synthfer.generators import OutOfMemory
from synthfer.generators.diffusion.families import Family

R = TypeVar("R")

ROW_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError)
"""What a pipeline raises for a row that it cannot do; see `concerns_the_device` for what is no row's fault."""
_ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""Fused kernels of torch in order of speed on recent GPUs, and the one that always runs."""


@contextlib.contextmanager
def exact(threads: int, cuda: bool) -> Iterator[None]:
    """Inside, the same call gives the same bits again; settings of torch are as before afterwards."""
    filling: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        filling.fill_uninitialized_memory,
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
    )
    with contextlib.ExitStack() as stack:
        if cuda:
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
            stack.enter_context(sdpa_kernel(_ATTENTION, set_priority=True))
        try:
            torch.use_deterministic_algorithms(True, warn_only=True)
            # Filling fresh memory guards against reads of garbage, of which there are none here; it costs time.
            filling.fill_uninitialized_memory = False
            torch.set_float32_matmul_precision("highest")
            torch.set_num_threads(threads)
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            filling.fill_uninitialized_memory = before[2]
            torch.set_float32_matmul_precision(before[3])
            torch.set_num_threads(before[4])


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that a device, or the host, has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # How the CPU's allocator and cuBLAS, cuDNN and drivers say it.
    words = ("not enough memory", "can't allocate memory", "out of memory", "alloc_failed")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def concerns_the_device(error: BaseException) -> bool:
    """Whether the error is about the device, not about a row: memory, or a fault after which nothing runs."""
    return out_of_memory(error) or isinstance(error, torch.AcceleratorError)


def guarded(call: Callable[[], R]) -> R:
    """The result of `call`; every kind of memory error becomes `OutOfMemory`, after what it held is freed."""
    try:
        return call()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
    # Outside the handler: the traceback would keep the batch's tensors alive.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise OutOfMemory(reason)


def decode_in_batches(vae: Any, batch_size: int, most: int) -> int:
    """Lets the VAE decode at most `most` pictures at once, for any pipeline; returns how many.

    The number divides the batch, since a picture in a smaller last part would get other bits than its
    neighbours. Decoding takes far more memory than denoising, is slower in large batches, and breaks beyond
    2**31 elements.
    """
    share = max(n for n in range(1, min(most, batch_size) + 1) if batch_size % n == 0)
    whole = vae.decode

    def decode(z: torch.Tensor, return_dict: bool = True, **options: Any) -> Any:
        options.pop("generator", None)  # of no use to a decoder, and one per row of the whole batch
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
