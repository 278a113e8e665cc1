"""Checkpoints: a file of weights with a card beside it, a small YAML or JSON file that says what the weights are.

    runs/editor/model.safetensors          or .pth, .pt, .ckpt, .tar: tensors by name
    runs/editor/model.card.yaml            or .card.yml, .card.json

    checkpoint = Checkpoint.open("s3://bucket/runs/editor/model.safetensors")          or a local path
    checkpoint.card, checkpoint.sha256
    module.load_state_dict(checkpoint.state_for(module))                strict: every key, every shape

Nothing is guessed from a file: with a wrong order of channels or classes a network still runs, and is wrong. No code of
a file is run, and a card is plain data: nothing in it is imported or looked up (`synthfer.documents`). Classifiers have
a card of their own with more in it: `synthfer.classifiers.checkpoints`.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any, ClassVar, Self

import yaml
from torch import Tensor, nn

from synthfer.documents import DocumentError, parse, read_json, read_yaml
from synthfer.schema import REQUIRED, option
from synthfer.store import open_store
from synthfer.tensors import fitting, read_tensors

log = logging.getLogger(__name__)

OWN = "trained by synthfer"
"""The `source` in a card that the training job wrote."""
CARD_SUFFIXES = (".card.yaml", ".card.yml", ".card.json")
MAX_WEIGHTS_BYTES = 4 * 2**30
"""Of a file of weights, which is read into memory, twice for a moment; the largest published one has 376 MB."""
MAX_CARD_BYTES = 2**20
MAX_RENAMED = 1000
"""Prefixes that a card may rename; each is tried on every name in the file."""

_EXAMPLE = """  architecture: expression_editor           # or vae_gan, dcgan
  options: {space: linear, channels: BGR}   # those of the network that differ from its defaults
  trained_on: [affectnet:train]             # collection:split of the faces that it has learned from
  licence: not for commercial use           # logged whenever it is loaded"""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the weights in a file are."""

    architecture: str = option(REQUIRED, "the network: expression_editor, vae_gan or dcgan")
    options: dict[str, Any] = option({}, "the network's options that differ from its defaults")
    rename: dict[str, str] = option({}, "prefixes of keys in the file, and what they are called here")
    source: str = option("unknown", "where the file comes from")
    licence: str | None = option(None, "what it may be used for; logged when it is loaded")
    trained_on: list[str] = option([], "collection:split of the faces that it has learned from")
    training: dict[str, Any] = option({}, "how it was trained, as the training job writes it")

    def __post_init__(self) -> None:
        if len(self.rename) > MAX_RENAMED:
            raise ValueError(f"rename: {len(self.rename):,} prefixes; at most {MAX_RENAMED:,} are read.")

    @classmethod
    def example(cls) -> str:
        """A card for error messages, as indented YAML."""
        return _EXAMPLE

    @classmethod
    def parse(cls, body: bytes, uri: str) -> Self:
        """The card in the file at `uri` with these bytes; `ValueError` says what is wrong and shows an example."""
        read = read_json if uri.endswith(".json") else read_yaml
        try:
            return read(body, uri, cls, max_bytes=MAX_CARD_BYTES)
        except DocumentError as error:
            raise ValueError(f"{error}\nCorrect the card. A card is:\n{cls.example()}") from error

    def to_dict(self) -> dict[str, Any]:
        """The card in the order in which it is written."""
        return asdict(self)

    def to_yaml(self) -> str:
        """The text of the card's file."""
        return yaml.safe_dump(_with_lists(self.to_dict()), sort_keys=False)

    def network_options(self, schema: type) -> Any:
        """The network's options as an instance of dataclass `schema`; `ValueError` names what does not fit it."""
        return parse(self.options, "the card's options", schema)


@dataclass(frozen=True)
class Checkpoint:
    """The files of a checkpoint in memory: `uri` of the weights, and bytes by suffix, those of the weights first."""

    uri: str
    files: dict[str, bytes]

    suffixes: ClassVar[tuple[str, ...]] = (".safetensors", ".pth", ".pt", ".ckpt", ".tar")
    """What files of weights may end in."""
    companions: ClassVar[tuple[str, ...]] = ()
    """Suffixes of files beside the weights that belong to them, too, where they exist."""

    @classmethod
    def open(cls, uri: str) -> Self:
        """The checkpoint whose weights are at a local path or an s3:// URI; the card is not looked at yet.

        `ValueError`: there is no such file, its suffix is not one of `suffixes`, or a file is too large.
        """
        folder, _, name = uri.rpartition("/")
        suffix = next((suffix for suffix in cls.suffixes if name.endswith(suffix)), None)
        if suffix is None:
            raise ValueError(f"{uri} is not a file of weights; expected one that ends in {', '.join(cls.suffixes)}")
        store = open_store(folder or ("/" if uri.startswith("/") else "."))
        where, stem = store.uri.rstrip("/"), name.removesuffix(suffix)
        beside = dict.fromkeys(CARD_SUFFIXES, MAX_CARD_BYTES) | dict.fromkeys(cls.companions, MAX_WEIGHTS_BYTES)
        files: dict[str, bytes] = {}
        for end, most in ({suffix: MAX_WEIGHTS_BYTES} | beside).items():
            stat = store.stat(stem + end)
            if stat is not None and stat.size > most:
                raise ValueError(f"{where}/{stem + end} has {stat.size:,} bytes; no more than {most:,} are read")
            if stat is not None:
                files[end] = store.get(stem + end)
        if suffix not in files:
            raise ValueError(f"there is no {where}/{name}")
        return cls(f"{where}/{name}", files)

    @property
    def body(self) -> bytes:
        """The file of the weights."""
        return self.files[self.suffix]

    @property
    def suffix(self) -> str:
        """What the file of the weights ends in."""
        return next(iter(self.files))

    @cached_property
    def sha256(self) -> str:
        """Of the file of the weights, in hex."""
        return hashlib.sha256(self.body).hexdigest()

    @cached_property
    def card(self) -> Card:
        """Its card. `ValueError` where there is none, or where it is not valid, shows what to write."""
        return Card.parse(*self.card_file(Card))

    def card_file(self, kind: type[Card]) -> tuple[bytes, str]:
        """Bytes and URI of its card; `ValueError` where there is none shows an example of this kind of card."""
        stem = self.uri.removesuffix(self.suffix)
        for end in CARD_SUFFIXES:
            if end in self.files:
                return self.files[end], stem + end
        raise ValueError(
            f"{self.uri}: there is no card {stem}{CARD_SUFFIXES[0]} beside it, without which it cannot be used. Write"
            f" one:\n{kind.example()}"
        )

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the file by name, as they stand there; `ValueError` where it holds anything else."""
        return read_tensors(self.body, self.suffix, self.uri)

    def state_for(self, module: nn.Module) -> dict[str, Tensor]:
        """The tensors under the names of `module`; `ValueError` lists all that are missing, left over or do not fit."""
        return fitting(module, self.tensors(), self.card.rename, self.uri)


@cache
def log_licence(uri: str, licence: str) -> None:
    """Warns of the terms of a file's use, once per process and file."""
    log.warning("%s: licence: %s", uri, licence)


def _with_lists(value: Any) -> Any:
    """With lists in place of tuples, which YAML does not have."""
    if isinstance(value, Mapping):
        return {key: _with_lists(item) for key, item in value.items()}
    return [_with_lists(item) for item in value] if isinstance(value, (list, tuple)) else value
