"""Tensors: weight files read without running their code and fitted key by key, and pixels as floats and back.

A key that is missing, left over or of another shape is an error that lists it: nothing is skipped in silence.
"""

import io
import pickle
import re
from collections.abc import Mapping, Sequence
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "params_ema", "params", "netG_state_dict", "generator")
"""Keys below which authors put the weights in a torch file."""

_LISTED = 10  # keys of each kind of problem that an error shows


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
        if suffix == ".safetensors":
            # Its order of names differs from call to call; errors list them in one order.
            return dict(sorted(safetensors.torch.load(body).items()))
        content: Any = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{where} holds no plain tensors: {str(error).splitlines()[0]} If you trust the file, load it once with"
            " torch, and save its state dict as .safetensors."
        ) from error
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{where} holds no state dict; expected tensors by name, or those under {WRAPPERS[0]}.")
    return content


def fitting(module: nn.Module, given: Mapping[str, Tensor], rename: Mapping[str, str], where: str) -> dict[str, Tensor]:
    """The tensors under the names of `module`, ready for `load_state_dict`.

    `rename` maps prefixes of names in the file to those of the module; `where` is the file, for errors. A child module
    may list prefixes of names that it ignores as its attribute `unused`. `ValueError` lists what is missing, left over
    or of another shape.
    """
    own = module.state_dict()
    unused = tuple(
        f"{name}.{key}".removeprefix(".")
        for name, child in module.named_modules()
        for key in getattr(child, "unused", ())
    )
    state: dict[str, Tensor] = {}
    for key, value in given.items():
        # Prefixes that torch's wrappers for several GPUs and for compiling leave in names.
        key = _renamed(re.sub(r"^(module\.|_orig_mod\.)+", "", key), rename)
        if not key.startswith(unused):
            state[key] = value
    # Files of torch before 0.4.1 have no counters, which evaluation does not use.
    state = {key: v for key, v in own.items() if key.endswith("num_batches_tracked")} | state
    shapes = [
        f"{key} is {tuple(value.shape)}, here {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    problems = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "of another shape": shapes,
    }
    if any(problems.values()):
        listed = "\n".join(f"  {len(keys)} {kind}: {_shortened(keys)}" for kind, keys in problems.items() if keys)
        raise ValueError(
            f"{where} does not fit {type(module).__name__}:\n{listed}\nGive the options that it was trained with. Where"
            " only names differ, map their prefixes by `rename` in its card."
        )
    return state


def _renamed(key: str, rename: Mapping[str, str]) -> str:
    """The key with its longest known prefix replaced."""
    prefix = max((prefix for prefix in rename if key.startswith(prefix)), key=len, default="")
    return rename.get(prefix, "") + key[len(prefix) :]


def _shortened(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_LISTED]) + (f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else "")
