"""Tensors: weight files read without running their code and fitted key by key, and pixels as floats and back.

A key that is missing, left over or of another shape is an error that lists it: nothing is skipped in silence.
"""

import io
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from synthfer.torch_pickles import check_pickles

WRAPPERS = ("state_dict", "model_state_dict", "params_ema", "params", "netG_state_dict", "generator")
"""Keys below which authors put the weights in a torch file."""

MAX_TENSORS = 20_000
"""In a file; published classifiers have hundreds, the largest editors about two thousand."""
_LISTED = 10  # keys of each kind of problem that an error shows
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_NOT_TENSORS = (
    SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, struct.error, MemoryError, EOFError, OSError,
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError, ImportError,
)  # fmt: skip
"""What safetensors and torch raise for bytes that are something else; nothing but their parsers runs there."""


def to_floats(pixels: Tensor) -> Tensor:
    """Pixels uint8 0..255, of any shape, as float32 in -1..1."""
    return pixels.float() / 127.5 - 1


def to_uint8(values: Tensor) -> Tensor:
    """Floats in -1..1, of any shape, as pixels uint8 0..255: rounded, and clipped where they lie outside."""
    return ((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def write_tensors(state: Mapping[str, Tensor]) -> bytes:
    """A safetensors file with copies of these tensors, on any device and in any memory layout, under their names."""
    return safetensors.torch.save({name: value.detach().cpu().contiguous().clone() for name, value in state.items()})


def read_tensors(body: bytes, suffix: str, where: str) -> dict[str, Tensor]:
    """The state dict of a file's bytes, also where its authors wrapped it; no code of the file is run.

    `suffix` is that of the file's name: .safetensors, or that of a file by torch. `where` is its path or URI, for
    errors. `ValueError`: the file holds anything else.
    """
    try:
        content = _read_safetensors(body) if suffix == ".safetensors" else _read_torch(body)
    except ValueError as error:
        raise ValueError(
            f"{where} holds no plain tensors: {error} If you trust the file, load it once with"
            " torch, and save its state dict as .safetensors."
        ) from error
    for key in WRAPPERS if suffix != ".safetensors" else ():
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    return _checked(content, where, len(body))


def _read_safetensors(body: bytes) -> dict[str, Tensor]:
    """`ValueError` for bytes that are something else."""
    try:
        # Its order of names differs from call to call; errors list them in one order.
        return dict(sorted(safetensors.torch.load(body).items()))
    except _NOT_TENSORS as error:
        first = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(f"it is not a safetensors file ({first[:300]}).") from error


def _read_torch(body: bytes) -> Any:
    """What torch reads; `ValueError` for bytes that are something else, and for a pickle of more than tensors."""
    try:
        _check_archive(body)
        check_pickles(body)
    except ValueError:
        raise
    except _NOT_TENSORS as error:
        raise ValueError("it is no zip as torch writes it, or cut off.") from error
    try:
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except _NOT_TENSORS as error:
        raise ValueError("torch cannot read it: it is damaged, or holds more than tensors.") from error


def _check_archive(body: bytes) -> None:
    """`ValueError` for a zip that is not as torch writes it: torch stores members as they are, so none can grow."""
    if not zipfile.is_zipfile(io.BytesIO(body)):
        return  # as torch before 1.6 wrote: a pickle, which cannot be larger than the file
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        members = archive.infolist()
        if packed := [one.filename for one in members if one.compress_type != zipfile.ZIP_STORED]:
            raise ValueError(f"its member {packed[0][:80]!r} is compressed, which torch never does.")
        if sum(one.file_size for one in members) > len(body):
            raise ValueError("its members claim more bytes than the file has.")


def _checked(content: Any, where: str, size: int) -> dict[str, Tensor]:
    """The content of a file, if it is a state dict: a bounded number of plain tensors on the CPU by name."""
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{where} holds no state dict; expected tensors by name, or those under {WRAPPERS[0]}.")
    if len(content) > MAX_TENSORS:
        raise ValueError(f"{where} holds {len(content):,} tensors; no more than {MAX_TENSORS:,} are read.")
    for key, value in content.items():
        if not isinstance(key, str):
            raise ValueError(f"{where} holds no state dict: a tensor's name is {str(key)[:40]}, which is no text.")
        if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
            kind = "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.")
            kind = kind if value.device.type == "cpu" else f"without data ({value.device.type})"
            raise ValueError(f"{where}: {key[:80]} is {kind}; expected a plain tensor.")
    stored = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in content.values()}
    if sum(stored.values()) > size:  # torch leaves what an old file lacks as the memory was
        raise ValueError(f"{where} holds {sum(stored.values()):,} bytes of tensors by its own words, but has {size:,}.")
    return content


def fitting(module: nn.Module, given: Mapping[str, Tensor], rename: Mapping[str, str], where: str) -> dict[str, Tensor]:
    """The tensors under the names of `module`, ready for `load_state_dict`.

    `rename` maps prefixes of names in the file to those of the module; `where` is the file, for errors. A child module
    may list prefixes of names that it ignores as its attribute `unused`. `ValueError` lists what is missing, left over
    or of another shape.
    """
    own = module.state_dict()
    state, repeated = _by_own_names(module, given, rename)
    # Files of torch before 0.4.1 have no counters, which evaluation does not use.
    counters = (key for key in own if key.endswith("num_batches_tracked"))
    state = {key: torch.zeros_like(own[key], device="cpu") for key in counters} | state
    shapes = [
        f"{key} is {tuple(value.shape)}, here {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    problems = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "there twice": repeated,
        "of another shape": shapes,
        "of another type": [
            f"{key} is {value.dtype}" for key, value in state.items() if not _same_kind(own, key, value)
        ],
    }
    if any(problems.values()):
        listed = "\n".join(f"  {len(keys)} {kind}: {_shortened(keys)}" for kind, keys in problems.items() if keys)
        raise ValueError(
            f"{where} does not fit {type(module).__name__}:\n{listed}\nGive the options that it was trained with. Where"
            " only names differ, map their prefixes by `rename` in its card."
        )
    if broken := _not_finite(module, state):
        raise ValueError(f"{where} is damaged: not finite (NaN or infinite) are values of {_shortened(broken)}.")
    return state


def _by_own_names(
    module: nn.Module, given: Mapping[str, Tensor], rename: Mapping[str, str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under the module's names, and the names that more than one of them would have."""
    unused = tuple(
        f"{name}.{key}".removeprefix(".")
        for name, child in module.named_modules()
        for key in getattr(child, "unused", ())
    )
    state: dict[str, Tensor] = {}
    repeated = []
    for key, value in given.items():
        # Prefixes that torch's wrappers for several GPUs and for compiling leave in names.
        key = _renamed(re.sub(r"^(module\.|_orig_mod\.)+", "", key), rename)
        if key in state:
            repeated.append(key)
        elif not key.startswith(unused):
            state[key] = value
    return state, repeated


def _same_kind(own: Mapping[str, Tensor], key: str, value: Tensor) -> bool:
    if key not in own:
        return True
    return value.dtype in (_FLOATS if own[key].is_floating_point() else _INTEGERS)


def _not_finite(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that hold NaN or infinities, without the statistics of norms that never read them."""
    norms = [name for name, child in module.named_modules() if isinstance(child, _InstanceNorm)]
    unread = {
        f"{name}.{statistic}".removeprefix(".") for name in norms for statistic in ("running_mean", "running_var")
    }
    return [key for key, value in state.items() if key not in unread and not value.isfinite().all()]


def _renamed(key: str, rename: Mapping[str, str]) -> str:
    """The key with its longest known prefix replaced."""
    prefix = max((prefix for prefix in rename if key.startswith(prefix)), key=len, default="")
    return rename.get(prefix, "") + key[len(prefix) :]


def _shortened(keys: Sequence[str]) -> str:
    return ", ".join(key[:200] for key in keys[:_LISTED]) + (
        f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    )
