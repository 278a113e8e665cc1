"""Checkpoints of generators: published ones and our own, each with a card, a YAML or JSON file that says what it is.

    found = weights.read("runs/editor/seed-0/model.safetensors")      its card, model.card.yaml, lies beside it
    weights.load(module, found)                                       strict: every key, every shape

Nothing is guessed from a file: a wrong channel order makes blue faces and raises no error. No code of a file is run.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor, nn

from synthfer import config
from synthfer.config import REQUIRED, ConfigError, option
from synthfer.store import open_store
from synthfer.tensors import fitting, read_tensors

log = logging.getLogger(__name__)
N = TypeVar("N", bound=nn.Module)

OWN = "trained by synthfer"
"""The source of a card that the training job wrote."""
SUFFIXES = (".card.yaml", ".card.yml", ".card.json")
_BODIES = (".safetensors", ".pth", ".pt", ".ckpt", ".tar")
_HOW_TO = """write it:
  architecture: expression_editor        # or vae_gan, dcgan
  options: {space: linear, channels: BGR}   # those of the network, where not its defaults
  trained_on: [affectnet:train]          # collection:split of the faces that it has learned from
  licence: not for commercial use        # said whenever it is loaded"""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a checkpoint is."""

    architecture: str = option(REQUIRED, "the network: expression_editor, vae_gan or dcgan")
    options: dict[str, Any] = option({}, "the network's options, where they are not its defaults")
    rename: dict[str, str] = option({}, "beginnings of keys in the file, and what they are called here")
    source: str = option("unknown", "where the file comes from")
    licence: str | None = option(None, "what it may be used for; said when it is loaded")
    trained_on: list[str] = option([], "collection:split of the faces that it has learned from")
    training: dict[str, Any] = option({}, "how it was trained, as the training job writes it")


@dataclass(frozen=True)
class Weights:
    """A checkpoint that was read: where from, the sha256 of its file, its card, and its tensors by name."""

    uri: str
    sha256: str
    card: Card
    state: dict[str, Tensor]


def read(uri: str, architecture: str | None = None, key: str = "generator.weights") -> Weights:
    """The checkpoint at a path or s3:// URI, of this architecture, with its card beside it.

    `ConfigError` names `key` and what is wrong: no file, no card, another architecture, no plain tensors.
    """
    folder, _, name = uri.rpartition("/")
    suffix = next((end for end in _BODIES if name.endswith(end)), None)
    if suffix is None:
        raise ConfigError(f"{key}: {uri} is no weights file; expected one that ends in {', '.join(_BODIES)}")
    store, stem = open_store(folder or ("/" if uri.startswith("/") else ".")), name.removesuffix(suffix)
    try:
        body = store.get(name)
    except FileNotFoundError:
        raise ConfigError(f"{key}: there is no {store.uri}/{name}") from None
    cards = {end: store.get(f"{stem}{end}") for end in SUFFIXES if store.stat(f"{stem}{end}")}
    if not cards:
        raise ConfigError(f"{key}: {uri} has no card {stem}{SUFFIXES[0]} beside it, without which it cannot be used; "
                          f"{_HOW_TO}")  # fmt: skip
    try:
        end, text = next(iter(cards.items()))
        return of_bytes(uri, body, _card(text, end), architecture, suffix)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def of_bytes(uri: str, body: bytes, card: Card, architecture: str | None, suffix: str) -> Weights:
    """The checkpoint of a file's bytes; `suffix` says its format. `ValueError`: another architecture, or no tensors."""
    if architecture not in (None, card.architecture):
        raise ValueError(f"{uri} is of {card.architecture!r}, while {architecture!r} is wanted")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"weights{suffix}"
        path.write_bytes(body)
        try:
            state = read_tensors(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), uri)) from error
    sha256 = hashlib.sha256(body).hexdigest()
    if card.licence:
        _tell_licence(uri, card.licence)
    return Weights(uri, sha256, card, state)


def load(module: nn.Module, weights: Weights) -> None:
    """Puts a checkpoint into a module; `ConfigError` lists keys and shapes that do not fit."""
    try:
        module.load_state_dict(fitting(module, weights.state, weights.card.rename, weights.uri))
    except ValueError as error:
        raise ConfigError(f"generator.weights: {error}") from error


def restored(build: Callable[[], N], weights: Weights) -> N:
    """The network that `build` makes with a checkpoint in it, in eval mode, without gradients; errors as of `load`.

    What a network draws when it is made is not drawn from torch's own random state.
    """
    with torch.random.fork_rng(devices=[]):
        module = build()
    load(module, weights)
    return module.requires_grad_(False).eval()


def facts(weights: Weights) -> dict[str, Any]:
    """What a generator's producer says of its weights: no path, no machine."""
    card = weights.card
    told: dict[str, Any] = {
        "architecture": card.architecture,
        "options": card.options,
        "weights_sha256": weights.sha256,
    }
    if card.trained_on:
        told["trained_on"] = sorted(card.trained_on)
    return told | ({"licence": card.licence} if card.licence else {})


def card_text(card: Card) -> str:
    """The card as YAML."""
    return yaml.safe_dump(json.loads(json.dumps(asdict(card))), sort_keys=False)


def options_of(schema: type, card: Card) -> Any:
    """The network's `Config` that a card means; `ConfigError` names an option that is unknown or out of range."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(card.options, file)
        file.flush()
        try:
            return config.load(schema, files=[file.name] if card.options else [])
        except ValueError as error:
            raise ConfigError(f"generator.weights: the card's options: {error}") from error


@cache
def _tell_licence(uri: str, licence: str) -> None:
    """Once per process and checkpoint."""
    log.warning("%s: licence: %s", uri, licence)


def _card(body: bytes, suffix: str) -> Card:
    with tempfile.NamedTemporaryFile("wb", suffix=suffix) as file:
        file.write(body)
        file.flush()
        try:
            return config.load(Card, files=[file.name])
        except ValueError as error:
            raise ValueError(f"its card is none: {error}\nCorrect it, or {_HOW_TO}") from error
