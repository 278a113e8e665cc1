"""Checkpoints wherever they lie: one file, or all below a folder or s3:// prefix, with card and what each has seen."""

import logging
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from synthfer.classifiers import weights
from synthfer.classifiers._network import Classifier
from synthfer.classifiers.training_fingerprint import SUFFIX, TrainingFingerprint
from synthfer.classifiers.weights import SUFFIXES, Card
from synthfer.expressions import EXPRESSIONS
from synthfer.store import open_store

log = logging.getLogger(__name__)
T = TypeVar("T")

BODIES = (".safetensors", ".pth", ".pt")
# A state on the way of a training, below the folder of its run.
_STATE = re.compile(r"(.+)/checkpoints/step-\d+\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The files of a checkpoint: `uri` of its weights, bytes by suffix (that of the weights first, then its card's)."""

    uri: str
    files: dict[str, bytes]

    @property
    def body(self) -> bytes:
        """The file of its weights."""
        return next(iter(self.files.values()))

    @cached_property
    def seen(self) -> TrainingFingerprint | None:
        """The rows that it learned from, or None where nobody wrote them down; `ValueError` for a damaged list."""
        if SUFFIX not in self.files:
            return None
        try:
            return TrainingFingerprint.from_bytes(self.files[SUFFIX])
        except ValueError as error:
            raise ValueError(f"{self.uri}: {error}") from error

    @property
    def without_seen(self) -> "Checkpoint":
        """The same without the list of what it learned from, which is long and not needed to restore it."""
        return Checkpoint(self.uri, {suffix: body for suffix, body in self.files.items() if suffix != SUFFIX})

    @cached_property
    def card(self) -> Card:
        """Its card. Errors are those of `weights.card_at`."""
        return self._at_path(weights.card_at)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of `restore()` in order: `weights.load` puts the expressions first, in their order."""
        classes = self.card.classes
        return tuple(name for name in dict.fromkeys((*EXPRESSIONS, *classes)) if name in classes)

    def restore(self) -> Classifier:
        """The classifier in eval mode on the CPU. Errors are those of `weights.restore`."""
        return self._at_path(weights.restore)

    def load(self, model: Classifier) -> None:
        """Puts it into a model that is there. Errors are those of `weights.load`."""
        self._at_path(lambda path: weights.load(model, path))

    def _at_path(self, use: Callable[[Path], T]) -> T:
        """What `use` makes of it as files."""
        with tempfile.TemporaryDirectory() as folder:
            for suffix, body in self.files.items():
                (Path(folder) / f"model{suffix}").write_bytes(body)
            suffix = next(iter(self.files))
            stem, theirs = str(Path(folder) / "model"), self.uri.removesuffix(suffix)
            try:
                return use(Path(stem + suffix))
            except ValueError as error:  # of the weights or of the card, which has another suffix
                raise ValueError(str(error).replace(stem, theirs)) from error


def collect(uri: str) -> list[Checkpoint]:
    """The checkpoint at `uri`, or all below it that have a card, by name; `ValueError` where there is none.

    States on the way of a training have no card and are passed over; a warning names the runs that have nothing else.
    """
    if uri.endswith(BODIES):
        folder, slash, name = uri.rpartition("/")
        return [read(folder or slash or ".", name)]
    store = open_store(uri)
    keys = {key for key, _ in store.list()}
    found = sorted(key for key in keys if key.endswith(BODIES) and any(_stem(key) + card in keys for card in SUFFIXES))
    finished = {key.rpartition("/")[0] for key in found}
    if unfinished := sorted({state[1] for key in keys if (state := _STATE.fullmatch(key))} - finished):
        log.warning("%s: not finished and left out: %s", store.uri, ", ".join(unfinished))
    if not found:
        raise ValueError(
            f"checkpoints: there is none at {store.uri}. Name a {' or '.join(BODIES)} file or a folder of "
            f"jobs/train.py; each needs its card beside it, as model{SUFFIXES[0]}"
        )
    return [read(store.uri, key) for key in found]


def _stem(key: str) -> str:
    return key[: -len(next(suffix for suffix in BODIES if key.endswith(suffix)))]


def read(folder: str, key: str) -> Checkpoint:
    """The checkpoint of one object below a folder or prefix; `ValueError` where it is not there."""
    store, stem = open_store(folder), _stem(key)
    there = {name for name, _ in store.list(stem)}
    if key not in there:
        raise ValueError(f"checkpoints: there is no {store.uri}/{key}")
    suffixes = [key[len(stem) :], *SUFFIXES, SUFFIX]
    files = {suffix: store.get(stem + suffix) for suffix in suffixes if stem + suffix in there}
    return Checkpoint(f"{store.uri}/{key}", files)
