"""The files of a pipeline's folder, checked before a library reads them: a folder may come from a stranger.

Files are regular ones, names lead nowhere but into the folder, configs are plain JSON whose numbers have bounds, and
nothing names code. A network is built without memory first and compared with the number of values in its files, since
the libraries build it as large as its config says. Errors are `ConfigError`s that name the file, the key and what is
wrong.
"""

import importlib.util
import inspect
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open

from synthfer.documents import read_json, read_library_json
from synthfer.files import check_regular, read_file
from synthfer.schema import ConfigError, option

CARD = "synthfer.json"
"""A file beside model_index.json with recommended `steps`, `guidance`, `height` and `width`."""
LIBRARY_ERRORS = (
    OSError, ValueError, TypeError, ImportError, AttributeError, LookupError, ArithmeticError, RuntimeError,
    AssertionError, SafetensorError, StrictDataclassError,
)  # fmt: skip
"""What diffusers and transformers raise where a folder is not what they expect."""
MAX_JSON_BYTES = 64 * 2**20
"""The vocabulary of the largest published tokenizer has 34 MB."""
MAX_FILES = 1000
MAX_TENSORS = 100_000
MAX_LIST = 1000
MAX_BLOCKS = 32
"""Entries of a list in a config whose key speaks of blocks."""
SPARE = 4
"""So many times the values of its files a network may have: packed weights hold several in one."""
_UNSAFE = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".msgpack", ".h5"}
_BOUNDS = (
    (re.compile(r"theta$"), 10**9),
    (re.compile(r"vocab_size$|vocab_size_.*"), 2_000_000),
    (re.compile(r"layers|depth|repeats|num_.*blocks"), 256),
    (re.compile(r"(sample|image|pos_embed_max)_size$|^height$|^width$|^resolution$"), 4096),
    (re.compile(r"channels|hidden|heads|_dims?$|^dim|d_model|d_ff|d_kv|_size$|groups$|kernel"), 131_072),
    (re.compile(r""), 10_000_000),
)
"""The most that numbers in a config may be, by key; the first pattern counts. Beyond the largest published model."""
_MAX_STEPS = 100_000
"""In the config of a scheduler, whose tables have an entry for each step of its training; published ones have 1000."""
_CODE = ("auto_map", "custom_pipelines", "custom_pipeline")
_Index = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PipelineCard:
    """What the file `CARD` may recommend."""

    steps: int | None = option(None, "denoising steps", low=1, high=1000)
    guidance: float | None = option(None, "guidance scale", low=0, high=100)
    height: int | None = option(None, "height in pixels", low=8, high=8192)
    width: int | None = option(None, "width in pixels", low=8, high=8192)


def read_card(folder: Path) -> dict[str, Any]:
    """What the model's own card recommends; empty where it has none."""
    path = folder / CARD
    if not path.exists() and not path.is_symlink():
        return {}
    return asdict(_named(lambda: read_json(read_file(path, 2**20), str(path), PipelineCard)))


def read_index(folder: Path, model: str) -> _Index:
    """The content of model_index.json, which names the pipeline's class and its components."""
    path = folder / "model_index.json"
    if not path.exists() and not path.is_symlink():
        raise ConfigError(f"generator.model: {model} is not a pipeline folder: there is no {path}")
    index = read_config(path)
    if not isinstance(index.get("_class_name"), str):
        raise ConfigError(
            f"generator.model: {model} brings its own pipeline code ({str(index.get('_class_name'))[:80]}), which is"
            " not run; use a pipeline class of diffusers."
        )
    if not index["_class_name"].isidentifier():
        raise _wrong(path, f"_class_name {index['_class_name'][:80]!r} is not the name of a class")
    return index


def parts_of(folder: Path, index: _Index, model: str) -> list[str]:
    """Names of the components that are loaded; custom code and weights other than safetensors are refused."""
    parts = []
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, (list, dict)):
            continue
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not all(isinstance(one, (str, type(None))) for one in value)
        ):
            raise _wrong(folder / "model_index.json", f"{name[:80]} must be a library and a class, not {value!r:.80}")
        if value[0] is None or name == "safety_checker":
            continue
        if not name.isidentifier() or not str(value[1]).isidentifier():
            raise _wrong(folder / "model_index.json", f"{name[:80]} is {str(value[1])[:80]!r}, which is no class")
        _check_class(name, value[0], str(value[1]), model)
        _check_folder(folder / name, name, model)
        parts.append(name)
    return parts


def check_files(folder: Path, index: _Index, parts: list[str]) -> dict[str, dict[str, Any]]:
    """Checks all files of the components that a library may read; the configs of networks, by component."""
    networks = {}
    for part in parts:
        paths = [path for path in sorted((folder / part).iterdir()) if not path.is_dir()]
        if len(paths) > MAX_FILES:
            raise _wrong(folder / part, f"it holds {len(paths):,} files")
        for path in paths:
            _named(lambda path=path: check_regular(path))
        configs = {path.name: read_config(path, part) for path in paths if path.suffix == ".json"}
        values = _values_of({path.name: path for path in paths if path.suffix == ".safetensors"})
        if "config.json" in configs:
            networks[part] = configs["config.json"]
            if values:
                _check_network(class_of(*index[part]), networks[part], values, folder / part / "config.json")
    return networks


def _check_class(name: str, library: str, class_name: str, model: str) -> None:
    pipelines = library.isidentifier() and importlib.util.find_spec(f"diffusers.pipelines.{library}")
    if library not in ("diffusers", "transformers") and not pipelines:
        raise ConfigError(
            f"generator.model: {name} of {model} is {class_name} from {library[:80]}.py, code that the model"
            " brings along and that is not run; its parts must be classes of diffusers or transformers."
        )
    kind = class_of(library, class_name)
    if kind is not None and not (inspect.isclass(kind) and hasattr(kind, "from_pretrained")):
        raise ConfigError(f"generator.model: {name} of {model} is {class_name} of {library}, which is no component.")


def class_of(library: str, class_name: str) -> Any:
    """The class of a component; None where the library has none of that name, which it says itself."""
    module = {"diffusers": diffusers, "transformers": transformers}.get(library)
    module = module or getattr(diffusers.pipelines, library, None)
    try:
        return getattr(module, class_name, None)
    except (ImportError, RuntimeError):  # it needs a library that is not installed
        return None


def _check_folder(folder: Path, name: str, model: str) -> None:
    if not folder.is_dir():
        raise ConfigError(f"generator.model: {model} has no folder {name}, which its model_index.json names.")
    unsafe = [path for path in folder.glob("*") if path.suffix in _UNSAFE]
    if unsafe and not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"generator.model: {name} of {model} has only {unsafe[0].name}, a format that can run code"
            " when read; save it as safetensors with `save_pretrained(folder, safe_serialization=True)`."
        )


def read_config(path: Path, part: str = "") -> dict[str, Any]:
    """A JSON file with bounds on its numbers, unless it is a vocabulary."""
    config = _named(lambda: read_library_json(read_file(path, MAX_JSON_BYTES), str(path)))
    if not isinstance(config, dict):
        raise _wrong(path, "it must be a map")
    if path.name.endswith(".index.json"):
        _check_shards(path, config)
    elif not part.startswith("tokenizer"):
        for key, value in _entries(config):
            _check_entry(path, key, value, part)
    for key in _CODE:
        if config.get(key):
            raise _wrong(path, f"{key} names code, which is not run; remove it where the model works without")
    return config


def _entries(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a config with the nearest key above it; the depth is bounded already."""
    yield key, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _entries(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner, key)


def _check_entry(path: Path, key: str, value: Any, part: str) -> None:
    if isinstance(value, list):
        most = MAX_BLOCKS if "block" in key else MAX_LIST
        if len(value) > most:
            raise _wrong(path, f"{key[:80]} has {len(value):,} entries, more than {most}")
    elif isinstance(value, str):
        if "attn_implementation" in key and "/" in value:
            raise _wrong(path, f"{key[:80]} names code ({value[:80]}), which is not run")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        most = _MAX_STEPS if part.startswith("scheduler") else next(most for one, most in _BOUNDS if one.search(key))
        if math.isfinite(value) and abs(value) > most:
            raise _wrong(path, f"{key[:80]} is {value:g}, more than {most:,}")


def _check_shards(path: Path, index: Mapping[str, Any]) -> None:
    """The list of which file holds which tensor names files beside it only."""
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise _wrong(path, "weight_map must map names of tensors to names of files")
    for name in sorted(set(shards.values())):
        if not name.endswith(".safetensors") or "/" in name or "\\" in name or not (path.parent / name).is_file():
            raise _wrong(path, f"weight_map names {name[:80]!r}, which is no safetensors file beside it")


def _values_of(paths: Mapping[str, Path]) -> int:
    """How many numbers the weight files hold at most, of all variants; they are not read, only their headers."""
    total = 0
    for path in paths.values():
        try:
            with safe_open(str(path), "pt") as file:
                names = file.keys()
                if len(names) > MAX_TENSORS:
                    raise _wrong(path, f"it holds {len(names):,} tensors")
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
        except (SafetensorError, OSError, ValueError, LookupError) as error:
            if isinstance(error, ConfigError):
                raise
            raise _wrong(path, f"it is not a safetensors file: {error}") from error
    return total


def _check_network(kind: Any, config: dict[str, Any], values: int, path: Path) -> None:
    """`ConfigError` for a config that makes a far larger network than its files can fill."""
    if not inspect.isclass(kind) or not issubclass(kind, torch.nn.Module):
        return
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            by_config = getattr(kind, "from_config", None) if issubclass(kind, diffusers.ModelMixin) else None
            network: Any = by_config(dict(config)) if by_config else kind(kind.config_class.from_dict(dict(config)))  # type: ignore[attr-defined]
    except LIBRARY_ERRORS as error:
        if "meta" in str(error):  # a network that reads its own values while it is built
            return
        raise _wrong(path, f"it does not describe a {kind.__name__}: {_first_line(error)}") from error
    needed = sum(one.numel() for one in (*network.parameters(), *network.buffers()))
    if needed > SPARE * values + 10_000_000:
        raise _wrong(
            path, f"it describes a {kind.__name__} of {needed:,} numbers, of which the files beside it hold {values:,}"
        )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"


def _wrong(path: Path, problem: str) -> ConfigError:
    return ConfigError(f"generator.model: {path}: {problem}.")


def _named(call: Any) -> Any:
    """The result of `call`, whose errors about a file name the key."""
    try:
        return call()
    except (ValueError, OSError) as error:
        raise ConfigError(f"generator.model: {error}") from error
