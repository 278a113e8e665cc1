"""The tensors in a pipeline's files, compared by name and shape with those of its networks.

The libraries give a network random values where its files lack some, and so pictures that nobody asked for. Here both
sides are compared without memory, and what a class itself passes over is passed over.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import safe_open

from synthfer.generators.diffusion.pipeline_files import LIBRARY_ERRORS
from synthfer.schema import ConfigError

_LISTED = 3
_Problems = Mapping[str, Sequence[str]]


def check_weights(kind: Any, folder: Path, config: Mapping[str, Any], paths: Sequence[Path]) -> None:
    """`ConfigError` where the files `paths` of a component lack tensors of its network, or hold others.

    `config` is that of the component, whose class is `kind` and whose folder and files have been checked.
    """
    if not inspect.isclass(kind) or not paths or config.get("quantization_config"):
        return  # packed weights have other names and shapes
    try:
        with torch.random.fork_rng(devices=[]):
            if issubclass(kind, transformers.PreTrainedModel):
                problems = _of_transformers(kind, folder, paths)
            elif issubclass(kind, diffusers.ModelMixin):
                problems = _of_diffusers(kind, config, paths)
            else:
                return
    except LIBRARY_ERRORS:
        return  # loading it in earnest says what is wrong
    for problem, keys in problems.items():
        if keys:
            named = ", ".join(key[:120] for key in keys[:_LISTED]) + (" and more" if len(keys) > _LISTED else "")
            files = paths[0].name if len(paths) == 1 else f"{len(paths)} .safetensors files"
            raise ConfigError(
                f"generator.model: {folder}: {files} and config.json do not fit: {len(keys)} {problem} {kind.__name__}:"
                f" {named}. Save the component anew with `save_pretrained`."
            )


def _of_transformers(kind: Any, folder: Path, paths: Sequence[Path]) -> _Problems:
    """By what the library itself reports, which knows old names and what each class may lack; no values are read."""
    parts = paths[0].name.split(".")
    variant = re.sub(r"-\d+-of-\d+$", "", parts[1]) if len(parts) > 2 else None
    options = {"variant": variant, "local_files_only": True, "use_safetensors": True}
    _, report = kind.from_pretrained(folder, output_loading_info=True, device_map="meta", **options)
    return {
        "tensors are missing of": sorted(report["missing_keys"]),
        "tensors are none of": sorted(report["unexpected_keys"]),
    }


def _of_diffusers(kind: Any, config: Mapping[str, Any], paths: Sequence[Path]) -> _Problems:
    with torch.device("meta"):
        network = kind.from_config(dict(config))
    given: dict[str, tuple[int, ...]] = {}
    for path in paths:
        with safe_open(str(path), "pt") as file:
            given |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    network._fix_state_dict_keys_on_load(given)
    own = network.state_dict(keep_vars=True)
    there = {id(own[key]) for key in given if key in own}  # what is tied to another is stored once
    ignored = kind._keys_to_ignore_on_load_unexpected or ()
    return {
        "tensors are missing of": [key for key in own if id(own[key]) not in there],
        "tensors are none of": [
            key for key in given if key not in own and not any(re.search(pattern, key) for pattern in ignored)
        ],
        "tensors are of another shape in": [
            f"{key} is {shape}, there {tuple(own[key].shape)}"
            for key, shape in given.items()
            if key in own and shape != tuple(own[key].shape)
        ],
    }
