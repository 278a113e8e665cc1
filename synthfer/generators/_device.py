"""What all generators share: the device, exact kernels, memory errors, batches of one shape, rows that fail alone.

Two runs of one shape give the same bits only if no library chooses another algorithm in between. So cuDNN does not
benchmark, matrix products keep full float32, and torch is told to use deterministic algorithms: during calls of a
generator only, its settings are restored afterwards. Attention goes to torch's fused kernels in order of speed, since
the attention switch of diffusers has no effect on SD, SDXL and SD3.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from synthfer.generators import Failure, OutOfMemory, Picture
from synthfer.schema import ConfigError
from synthfer.tensors import to_uint8

R = TypeVar("R")
T = TypeVar("T")

ROW_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError)
"""What networks and pipelines raise for a row that they cannot do, and for a device: see `concerns_the_device`."""
BLANK = 1.0
"""A picture is blank if no channel's standard deviation reaches this, in levels of 0..255."""
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
        raise ConfigError(f"generator.device: unknown device {name!r}; give auto, cpu, cuda or cuda:N.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"generator.device: torch finds no CUDA device here for {name!r}; use auto or cpu.")
    return device


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The floating-point type of that name; auto is bfloat16 on CUDA and float32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]


def device_notes(device: torch.device) -> dict[str, str]:
    """What may differ between workers, and with it the last bits of a picture: recorded, not hashed."""
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
    """Inside, the same call gives the same bits again; afterwards torch's settings are as they were before."""
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
    """The result of `call` by exact kernels; every kind of memory error becomes `OutOfMemory`."""

    def run() -> R:
        with exact(threads, device.type == "cuda"):
            return call()

    return guarded(run)


def check_batch(rows: Sequence[Any], batch_size: int) -> None:
    """`ValueError` where a call was given more rows than a batch holds."""
    if len(rows) > batch_size:
        raise ValueError(f"{len(rows)} rows are more than the batch_size of {batch_size}.")


def padded(parts: Sequence[torch.Tensor], size: int) -> torch.Tensor:
    """A batch of one shape whatever the number of parts: the last one is repeated up to `size`."""
    return torch.stack([*parts, *[parts[-1]] * (size - len(parts))])


def to_pixels(values: torch.Tensor) -> list[np.ndarray | Failure]:
    """Pictures (uint8, H x W x 3) of float (n, 3, H, W) in [-1, 1]; a `Failure` for one that is not finite."""
    finite = values.isfinite().flatten(1).all(1).tolist()
    pixels = to_uint8(values.nan_to_num(0.0)).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return [one if good else not_finite() for one, good in zip(pixels, finite, strict=True)]


def not_finite() -> Failure:
    """Of a picture with NaN or infinite values."""
    return Failure("the picture has values that are not finite (NaN)")


def blank() -> Failure:
    """Of a picture below `BLANK`."""
    return Failure(f"the picture is blank: no channel varies by more than {BLANK:g} of 255 levels")


def fill_missing(pictures: Sequence[Picture | None], make: Callable[[list[int]], Sequence[Picture]]) -> list[Picture]:
    """The pictures of a call: those that are None, if any, are made by `make`, which is given their indexes."""
    missing = [i for i, picture in enumerate(pictures) if picture is None]
    filled = dict(zip(missing, make(missing) if missing else [], strict=True))
    return [filled[i] if picture is None else picture for i, picture in enumerate(pictures)]


def fail_alone(call: Callable[[Sequence[T]], list[Picture]], items: Sequence[T], what: str) -> list[Picture]:
    """The pictures of `call(items)`. If it raises, each item has a call of its own, and those that raise again fail.

    `what` failed stands in the reason. Errors that concern the device are raised.
    """
    try:
        return call(items)
    except ROW_ERRORS as error:
        if concerns_the_device(error):
            raise
        if len(items) == 1:
            return [Failure(f"{what} failed: {type(error).__name__}: {error}")]
    return [picture for item in items for picture in fail_alone(call, [item], what)]


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that a device, or the host, has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # How the CPU's allocator and cuBLAS, cuDNN and drivers say it.
    words = ("not enough memory", "can't allocate memory", "out of memory", "alloc_failed")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def concerns_the_device(error: BaseException) -> bool:
    """Whether the error is about the device, not about a row: no memory, or a fault after which nothing runs on it."""
    return out_of_memory(error) or isinstance(error, torch.AcceleratorError)


def guarded(call: Callable[[], R]) -> R:
    """The result of `call`; every kind of memory error becomes `OutOfMemory`, once the memory that it held is freed."""
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
