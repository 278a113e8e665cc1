"""What all generators share on their way to a device: which one, exact kernels, memory errors, what is recorded.

Two runs of one shape give the same bits only if no library may choose another algorithm in between. So cuDNN
does not benchmark, matrix products keep full float32, and deterministic algorithms are asked for, during
calls of a generator only: settings of torch are restored afterwards. Attention goes to torch's fused
kernels in order of speed, since the attention switch of diffusers reaches none of SD, SDXL and SD3.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from synthfer.config import ConfigError
from synthfer.generators import Failure, OutOfMemory

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
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_of(name: str) -> torch.device:
    """The device of that name; auto is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"generator.device: {name!r} is none; expected auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"generator.device: torch finds no CUDA device here for {name!r}; use auto or cpu.")
    return device


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The floating-point type of that name; auto is bfloat16 on CUDA and float32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]


def device_notes(device: torch.device) -> dict[str, str]:
    """What may change from worker to worker, and with it the last bits of a picture: recorded, not hashed."""
    notes = {"device": device.type, "torch": torch.__version__}
    if device.type == "cuda":
        notes["device"] = torch.cuda.get_device_name(device)
        notes["cuda"] = str(torch.version.cuda)
        notes["cudnn"] = str(torch.backends.cudnn.version())
    else:
        notes["cpu"] = torch.backends.cpu.get_cpu_capability()
    return notes


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


def run_exactly(call: Callable[[], R], threads: int, device: torch.device) -> R:
    """The result of `call` by exact kernels, without gradients; every kind of memory error becomes `OutOfMemory`."""

    def run() -> R:
        with exact(threads, device.type == "cuda"), torch.inference_mode():
            return call()

    return guarded(run)


def filled(parts: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """A batch of one shape whatever the number of parts: the last one is repeated up to `size`."""
    return torch.stack([*parts, *[parts[-1]] * (size - len(parts))])


def to_pixels(values: torch.Tensor) -> list[np.ndarray | Failure]:
    """Pictures (uint8, H x W x 3) of float (n, 3, H, W) in [-1, 1]; a `Failure` for one that is not finite."""
    finite = values.isfinite().flatten(1).all(1).tolist()
    levels = ((values.nan_to_num(0.0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    pixels = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    broken = Failure("the picture has values that are not finite (NaN)")
    return [one if good else broken for one, good in zip(pixels, finite, strict=True)]


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
