"""Weight files of anybody: tensors by name, no code run, and a strict fit into a network, key by key.

A key that is missing, left over or of another shape is an error that lists it: nothing is skipped in silence.
"""

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

WRAPPERS = ("state_dict", "model_state_dict", "params_ema", "params", "netG_state_dict", "generator")
"""Keys below which authors put the weights in a torch file."""

_LISTED = 10  # keys of each kind of trouble that an error shows


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a .safetensors or torch file, also where its authors wrapped it; no code of the file is run.

    `ValueError`: it holds anything else.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        body: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} holds no plain tensors: {str(error).splitlines()[0]} Where you trust it, load it once with torch,"
            " and save its state dict as .safetensors."
        ) from error
    for key in WRAPPERS:
        if isinstance(body, dict) and isinstance(body.get(key), dict):
            body = body[key]
    if not isinstance(body, dict) or not all(isinstance(value, Tensor) for value in body.values()):
        raise ValueError(f"{path} holds no state dict; expected tensors by name, or those under {WRAPPERS[0]}.")
    return body


def fitting(module: nn.Module, given: Mapping[str, Tensor], rename: Mapping[str, str], where: str) -> dict[str, Tensor]:
    """The tensors under the names of `module`, whose children may list beginnings of names as `unused`.

    `rename` maps beginnings of names; `where` is the file, for errors. `ValueError` where they are not exactly the
    module's own.
    """
    own = module.state_dict()
    unused = tuple(
        f"{name}.{key}".removeprefix(".")
        for name, child in module.named_modules()
        for key in getattr(child, "unused", ())
    )
    state: dict[str, Tensor] = {}
    for key, value in given.items():
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
    kinds = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "of another shape": shapes,
    }
    if any(kinds.values()):
        told = "\n".join(f"  {len(keys)} {kind}: {_some(keys)}" for kind, keys in kinds.items() if keys)
        raise ValueError(
            f"{where} does not fit {type(module).__name__}:\n{told}\nGive the options it was trained with; where only"
            " names differ, map their beginnings by `rename`."
        )
    return state


def _renamed(key: str, rename: Mapping[str, str]) -> str:
    """The key with its longest known beginning replaced."""
    start = max((start for start in rename if key.startswith(start)), key=len, default="")
    return rename.get(start, "") + key[len(start) :]


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_LISTED]) + (f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else "")
