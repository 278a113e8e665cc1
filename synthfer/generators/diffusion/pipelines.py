"""Finds, checks and loads the weights of a pipeline, and records exactly what was loaded.

Weights are safetensors and nothing else, since other formats can run code when they are read; pipelines that bring
their own Python are refused. What was loaded is recorded by its content: the commit of a hub model, and the sha256 of
every file that was read; never by a path of this machine.
"""

import contextlib
import functools
import hashlib
import importlib.util
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import AutoPipelineForText2Image, DiffusionPipeline

from synthfer.canonical import sha256
from synthfer.files import read_file
from synthfer.generators.diffusion import Config, network_files, pipeline_files
from synthfer.schema import ConfigError
from synthfer.tensors import read_tensors

log = logging.getLogger(__name__)

MAX_LORA_BYTES = 4 * 2**30
_Index = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pipeline on the CPU, facts about it as JSON for the dataset's spec, and what its card recommends."""

    pipe: Any
    facts: dict[str, Any]
    card: dict[str, Any]


def load(config: Config, dtype: torch.dtype) -> Loaded:
    """The pipeline that `config` names, LoRA fused and scheduler set. `ConfigError` says what to change."""
    folder, name, revision = _find(config)
    index = pipeline_files.read_index(folder, config.model)
    parts = pipeline_files.parts_of(folder, index, config.model)
    _check_weights(config, folder, index, pipeline_files.check_files(folder, index, parts))
    card = pipeline_files.read_card(folder)
    pipe = _load_pipeline(config, folder, index, dtype)
    facts: dict[str, Any] = {"model": name, "revision": revision, "pipeline": type(pipe).__name__}
    facts["variant"] = config.variant
    facts |= _fingerprints(folder, parts, config.variant)
    if "safety_checker" in index:
        log.info("The safety checker of %s is not loaded: prompts come from a plan, not from strangers.", name)
    facts["safety_checker"] = "off"
    facts["lora"] = _fuse_lora(pipe, config)
    _set_scheduler(pipe, config.scheduler)
    facts["scheduler"] = {"class": type(pipe.scheduler).__name__, "config": _plain(pipe.scheduler.config)}
    return Loaded(pipe, facts, card)


def _find(config: Config) -> tuple[Path, str, str | None]:
    """Folder, recorded name and commit of the model."""
    kind, _, name = config.model.partition(":")
    path = Path(config.model)
    if config.revision and (kind == "builtin" or path.exists()):
        raise ConfigError("generator.revision: only models of the hub have revisions; leave it out.")
    if kind == "builtin":
        assets = Path(str(files("synthfer"))) / "assets"
        if not (assets / name / "model_index.json").is_file():
            known = sorted(path.parent.name for path in assets.glob("*/model_index.json"))
            raise ConfigError(f"generator.model: there is no {config.model!r}; built in: {', '.join(known) or 'none'}.")
        return assets / name, config.model, None
    if path.is_dir():
        return path, path.resolve().name, None
    if path.is_file():
        raise ConfigError(
            f"generator.model: {config.model} is a single file; give a folder as `save_pretrained` writes it."
        )
    if config.model.count("/") != 1 or config.model.startswith((".", "/", "~")):
        raise ConfigError(f"generator.model: there is no folder {config.model!r}, and a hub id looks like owner/name.")
    folder = _download(config)
    # The cache keeps every snapshot in a folder named after its commit.
    return folder, config.model, folder.name


def _download(config: Config) -> Path:
    try:
        with _quiet():
            folder = DiffusionPipeline.download(
                config.model,
                revision=config.revision,
                variant=config.variant,
                use_safetensors=True,
                safety_checker=None,
            )
    except (OSError, ValueError) as error:
        raise ConfigError(f"generator.model: {config.model} cannot be fetched from the hub: {error}") from error
    return Path(folder)


def _check_weights(config: Config, folder: Path, index: _Index, networks: Mapping[str, Mapping[str, Any]]) -> None:
    """`ConfigError` for a component whose files lack tensors of its network, or hold others; `networks` are configs."""
    for part, described in networks.items():
        weights = _variant_of(sorted((folder / part).glob("*.safetensors")), config.variant)
        with _quiet():
            network_files.check_weights(pipeline_files.class_of(*index[part]), folder / part, described, weights)


def _load_pipeline(config: Config, folder: Path, index: _Index, dtype: torch.dtype) -> Any:
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "variant": config.variant}
    if "safety_checker" in index:
        options |= {"safety_checker": None, "requires_safety_checker": False}
    try:
        with _quiet():
            try:
                return AutoPipelineForText2Image.from_pretrained(folder, dtype=dtype, **options)
            except ValueError as error:
                if "AutoPipeline can't find" not in str(error):
                    raise
                return DiffusionPipeline.from_pretrained(folder, dtype=dtype, **options)
    except Exception as error:
        # The tokenizers library raises plain exceptions for files that are none of its own.
        if type(error) is not Exception and not isinstance(error, pipeline_files.LIBRARY_ERRORS):
            raise
        raise ConfigError(f"generator.model: {config.model} cannot be loaded: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of the libraries: they garble a job's log."""
    libraries = (diffusers.utils.logging, transformers.utils.logging)
    shown = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, on in zip(libraries, shown, strict=True):
            if on:
                library.enable_progress_bar()


def _fingerprints(folder: Path, parts: Iterable[str], variant: str | None) -> dict[str, str]:
    """sha256 over the weight files that are read, and over the configs and tokenizers beside them.

    Each is the sha256 of the canonical JSON of {path within the folder: sha256 of the file}.
    """
    weights, others = [], []
    for part in parts:
        paths = sorted(path for path in (folder / part).rglob("*") if path.is_file())
        weights += _variant_of([path for path in paths if path.suffix == ".safetensors"], variant)
        # The scheduler is recorded by its final config; indexes only list which file holds which tensors.
        others += [p for p in paths if p.suffix in {".json", ".txt", ".model", ".jinja"} and part != "scheduler"]
    others = [path for path in others if not path.name.endswith(".index.json")]
    return {
        "weights_sha256": sha256(_file_hashes(folder, weights)),
        "files_sha256": sha256(_file_hashes(folder, others)),
    }


def _variant_of(paths: list[Path], variant: str | None) -> list[Path]:
    """Weight files of one component that are read: name.variant.safetensors, or those without a variant."""
    special = [path for path in paths if variant and f".{variant}" in path.name]
    return special or [path for path in paths if path.name.count(".") == 1]


def _file_hashes(folder: Path, paths: list[Path]) -> dict[str, str]:
    with ThreadPoolExecutor(4) as pool:
        hashes = pool.map(_file_sha256, paths)
        return {path.relative_to(folder).as_posix(): value for path, value in zip(paths, hashes, strict=True)}


def _file_sha256(path: Path) -> str:
    stat = path.stat()
    return _cached_sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _cached_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Cached in memory only: on disk, a file changed later with the same size and time would keep the old hash."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fuse_lora(pipe: Any, config: Config) -> list[dict[str, str]]:
    """Adds the LoRA weights to those of the pipeline for good, so that they cost no time later; names and sha256."""
    if not config.lora:
        return []
    if not hasattr(pipe, "load_lora_weights"):
        raise ConfigError(f"generator.lora: {type(pipe).__name__} takes no LoRA weights.")
    if importlib.util.find_spec("peft") is None:
        raise ConfigError("generator.lora needs the peft library: pip install 'synthfer[lora]'.")
    facts = []
    for number, lora in enumerate(config.lora):
        path = _lora_file(lora)
        _check_lora(path)
        try:
            pipe.load_lora_weights(
                str(path.parent), weight_name=path.name, adapter_name=f"lora{number}", use_safetensors=True
            )
        except pipeline_files.LIBRARY_ERRORS as error:
            raise ConfigError(f"generator.lora: {lora} does not fit {type(pipe).__name__}: {error}") from error
        if not any(f"lora{number}" in names for names in pipe.get_list_adapters().values()):
            raise ConfigError(f"generator.lora: no weight of {lora} belongs to {type(pipe).__name__}.")
        facts.append({"file": path.name, "sha256": _file_sha256(path)})
    if len(facts) > 1:
        pipe.set_adapters([f"lora{number}" for number in range(len(facts))])
    pipe.fuse_lora(lora_scale=config.lora_scale)
    pipe.unload_lora_weights()
    return facts


def _check_lora(path: Path) -> None:
    """`ConfigError` for a file that holds anything but finite numbers by name."""
    try:
        tensors = read_tensors(read_file(path, MAX_LORA_BYTES), ".safetensors", str(path))
    except (ValueError, OSError) as error:
        raise ConfigError(f"generator.lora: {error}") from error
    for name, value in tensors.items():
        if not value.is_floating_point() or not value.float().isfinite().all():
            raise ConfigError(f"generator.lora: {path}: {name[:80]} holds values that are not finite numbers.")


def _lora_file(lora: str) -> Path:
    """The .safetensors file that is named by itself, by its folder or by a hub id."""
    path = Path(lora)
    if not path.exists() and lora.count("/") == 1:
        path = _download_lora(lora)
    if path.is_dir():
        inside = sorted(path.glob("*.safetensors"))
        if len(inside) != 1:
            raise ConfigError(
                f"generator.lora: {lora} holds {len(inside)} .safetensors files"
                f" ({', '.join(file.name for file in inside) or 'none'}); name one file."
            )
        return inside[0]
    if not path.is_file() or path.suffix != ".safetensors":
        raise ConfigError(f"generator.lora: {lora} is neither a .safetensors file, a folder of one, nor a hub id.")
    return path


def _download_lora(model: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns="*.safetensors"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"generator.lora: {model} cannot be fetched from the hub: {error}") from error


def _set_scheduler(pipe: Any, name: str | None) -> None:
    """Another sampler with the settings of the present one. Samplers whose noise is shared or global are refused."""
    if name is not None and name != type(pipe.scheduler).__name__:
        known = compatible_schedulers(pipe)
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise ConfigError(
                f"generator.scheduler: {name!r} does not go with {type(pipe).__name__}{hint}"
                f" These do: {', '.join(known)}."
            )
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    own = type(pipe.scheduler).__name__
    if own == "DPMSolverSDEScheduler" or (
        pipe.scheduler.config.get("stochastic_sampling") and not hasattr(pipe, "prepare_extra_step_kwargs")
    ):
        raise ConfigError(
            f"generator.scheduler: {own} of this model draws one noise for the whole batch, so a picture"
            " would depend on its neighbours; choose another scheduler."
        )


def compatible_schedulers(pipe: Any) -> list[str]:
    """Names of the schedulers that may stand in for the pipeline's own, itself among them."""
    names = {scheduler.__name__ for scheduler in pipe.scheduler.compatibles} | {type(pipe.scheduler).__name__}
    return sorted(names - {"DPMSolverSDEScheduler"})


def _plain(value: Any) -> Any:
    """A config as JSON: private keys left out, infinities and types of libraries as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if not str(key).startswith("_")}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
