"""What a finished run leaves: the best weights, their card, what they have seen, and the history of the run.

The card is written last: a run whose card is there is done.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch

import synthfer
from synthfer import classifiers
from synthfer.checkpoints import CARD_SUFFIXES, OWN
from synthfer.classifiers import InputSpec
from synthfer.classifiers._network import Classifier
from synthfer.classifiers.checkpoints import ClassifierCard, ClassifierCheckpoint, card_of
from synthfer.classifiers.training_fingerprint import SUFFIX, TrainingFingerprint
from synthfer.config import Choice, to_dict
from synthfer.sample import seed_of
from synthfer.store import ObjectStore
from synthfer.tensors import write_tensors
from synthfer.training import checkpoint
from synthfer.training.aux_batchnorm import without_aux
from synthfer.training.data import Data
from synthfer.training.feed import trained
from synthfer.training.loop import Training
from synthfer.training.runs import Run, folder
from synthfer.training.settings import DataConfig, TrainConfig
from synthfer.training.world import World

MODEL = "model.safetensors"
CARD = f"model{CARD_SUFFIXES[0]}"
SEEN = f"model{SUFFIX}"
HISTORY = "history.json"
_VERSIONS = ("torch", "numpy", "ray", "pyarrow")


@dataclass(frozen=True)
class InitialWeights:
    """The weights that a run begins with, and what they have learned from already."""

    body: bytes
    input: InputSpec
    cosine_scale: float
    trained_on: tuple[str, ...]
    ancestors: tuple[str, ...]
    selection: str
    seen: TrainingFingerprint | None

    @classmethod
    def of(cls, model: Classifier, card: ClassifierCard, seen: TrainingFingerprint | None) -> "InitialWeights":
        """A model with what its card says; where nobody wrote down the rows that it saw, collections have to do."""
        return cls(
            body=write_tensors(model.state_dict()),
            input=model.input,
            cosine_scale=model.cosine_scale,
            trained_on=tuple(card.trained_on),
            ancestors=tuple(card.ancestors if seen else card.trained_on),
            selection=card.selection,
            seen=seen,
        )


def build(config: TrainConfig, run: Run, beginning: InitialWeights | None) -> Classifier:
    """The network of a run at its first step: weights by the run's seed, or those that it begins with."""
    choice: Choice = config.classifier
    options = to_dict(choice)
    name = options.pop("name")
    spec = input_of(config, beginning)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(run.seed, "weights"))
        model = classifiers.build(name, spec=spec, **options)
    if beginning:
        model.set_cosine(beginning.cosine_scale)
        model.load_state_dict(safetensors.torch.load(beginning.body))
    return model


def input_of(config: TrainConfig, beginning: InitialWeights | None) -> InputSpec:
    """What the network reads: what the weights that it begins with read, else its own input at the size asked for."""
    default: InputSpec = classifiers.module(config.classifier.name).INPUT
    return beginning.input if beginning else replace(default, size=config.size or default.size)


def is_done(store: ObjectStore, run: Run) -> bool:
    """Whether the run has left all that it leaves."""
    return store.stat(f"{run.key}/{CARD}") is not None


def beginning_of(store: ObjectStore, run: Run) -> InitialWeights | None:
    """What the run that this one begins with has left, or None."""
    if run.begins_with is None:
        return None
    before = folder(run.begins_with, run.seed)
    found = ClassifierCheckpoint.open(f"{store.uri}/{before}/{MODEL}")
    return InitialWeights.of(found.restore(), found.card, found.fingerprint)


def write(store: ObjectStore, training: Training, data: Data, beginning: InitialWeights | None) -> None:
    """Leaves the best step's weights as a plain checkpoint, and deletes the states on the way there."""
    run, best = training.run, training.best
    assert best is not None
    _, modules, _ = checkpoint.unpack(store.get(checkpoint.key(run.key, best["step"])))
    model = build(training.config, run, beginning)
    if training.config.loss.name == "ldam":
        model.set_cosine(training.config.loss.scale)
    model.load_state_dict(without_aux(modules.get("average", modules["network"])))
    seen = seen_by(data, run)
    ancestors = {pair for source in data.sources if source.name in run.sources for pair in source.ancestors}
    if beginning:
        seen, ancestors = seen | (beginning.seen or seen), ancestors | set(beginning.ancestors)
    card = card_of(
        model,
        source=OWN,
        selection=beginning.selection if beginning else "validation",
        trained_on=sorted({*trained_on(data, run), *ancestors, *(beginning.trained_on if beginning else ())}),
        ancestors=sorted(ancestors),
        training=facts(training.config, run, training.place, data) | {"best": dict(best)},
    )
    history = json.dumps({"run": run.to_json(), "best": best, "history": training.progress.history}, indent=1)
    bodies = {
        MODEL: write_tensors(model.state_dict()),
        SEEN: seen.to_bytes(),
        HISTORY: history.encode(),
        CARD: card.to_yaml().encode(),
    }
    publish(store, run, bodies)


def publish(store: ObjectStore, run: Run, bodies: Mapping[str, bytes]) -> None:
    """Writes the objects that a run leaves, in this order, and deletes the states on the way there."""
    for name, body in bodies.items():
        store.put_new(f"{run.key}/{name}", body)
    for step in checkpoint.steps(store, run.key):
        store.delete(checkpoint.key(run.key, step))


def seen_by(data: Data, run: Run) -> TrainingFingerprint:
    """The rows that decide over the weights of a run: those trained on, and those it was chosen by."""
    rows = np.concatenate([trained(data, run), data.numbers("val")])
    return TrainingFingerprint.of(data.rows.take(pa.array(rows)))


def trained_on(data: Data, run: Run) -> set[str]:
    """collection:split of the rows that decide over the weights of a run."""
    told = data.describe()
    used = [source for source in told["sources"] if source["name"] in run.sources]
    chosen_by = {pair for source in [*told["sources"], told["validation"] or {}] for pair in _pairs(source, "val")}
    return {pair for source in used for pair in _pairs(source, "train")} | chosen_by


def _pairs(source: Mapping[str, Any], role: str) -> list[str]:
    found: list[str] = source.get("collections", {}).get(role, [])
    return found


def facts(config: DataConfig, run: Run, place: World, data: Data) -> dict[str, Any]:
    """What the card says of the training: all that another would need to do it again."""
    told = to_dict(config)
    # What chose the job, its places and its cluster: the same training elsewhere has the same card.
    for key in ("out", "engine", "log", *(["task"] if isinstance(config, TrainConfig) else [])):
        told.pop(key, None)
    return {
        "run": run.to_json(),
        "config": told,
        "data": data.describe(),
        "workers": place.world,
        "device": place.device.type,
        "versions": {"synthfer": synthfer.__version__} | dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in _VERSIONS:
        with suppress(PackageNotFoundError):  # nothing here needs Ray
            yield name, version(name)
