"""What a finished run publishes: weights, their card, the fingerprint of their training rows, the run's history.

Where validation chose the step, the weights are that step's, and its rows count as seen; else they are the last ones.
The card is written last: a run whose card is there is done.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa

import synthfer
from synthfer.checkpoints import CARD_SUFFIXES, OWN
from synthfer.classifiers.checkpoints import open_checkpoint
from synthfer.classifiers.training_fingerprint import SUFFIX, TrainingFingerprint
from synthfer.documents import read_json
from synthfer.schema import REQUIRED, option, to_dict
from synthfer.store import ObjectStore
from synthfer.tensors import write_tensors
from synthfer.training import checkpoint
from synthfer.training.data import Data
from synthfer.training.initial_weights import InitialWeights
from synthfer.training.runs import Run, folder
from synthfer.training.settings import DataConfig, TrainConfig
from synthfer.training.trainer import Trainer
from synthfer.training.training_batches import training_rows
from synthfer.training.world import World

MODEL = "model.safetensors"
CARD = f"model{CARD_SUFFIXES[0]}"
SEEN = f"model{SUFFIX}"
HISTORY = "history.json"
_VERSIONS = ("torch", "numpy", "ray", "pyarrow")


def is_done(store: ObjectStore, run: Run) -> bool:
    """Whether the run has published everything."""
    return store.stat(f"{run.key}/{CARD}") is not None


def weights_of_run(store: ObjectStore, run: Run, classifier: str) -> InitialWeights | None:
    """What the run that this one starts from has published, of this classifier; None where it starts from none."""
    if run.begins_with is None:
        return None
    published = open_checkpoint(f"{store.uri}/{folder(run.begins_with, run.seed)}/{MODEL}", [classifier])
    return InitialWeights.of(published.restore(), published.card, published.fingerprint)


@dataclass(frozen=True, kw_only=True)
class _History:
    """What `history.json` holds; the numbers in its records are the task's own."""

    run: dict[str, Any] = option(REQUIRED, "the run")
    best: dict[str, Any] | None = option(None, "the record of the best validation")
    history: list[dict[str, Any]] = option(REQUIRED, "a record of each validation")


def read_history(store: ObjectStore, run: Run) -> dict[str, Any]:
    """What a run published of its validations; `ValueError` names a file that somebody changed.

    `best` is there for runs that validation chose the step of.
    """
    where = f"{store.uri}/{run.key}/{HISTORY}"
    history = asdict(read_json(store.get(f"{run.key}/{HISTORY}"), where, _History))
    if history["best"] is None:
        del history["best"]
    records = [record for record in (*history["history"][-1:], history.get("best")) if record is not None]
    if not records or not all(isinstance(record.get("step"), int) for record in records):
        raise ValueError(
            f"{where} has no record of a validation with its step: delete the run's folder, and train again"
        )
    return history


def publish(store: ObjectStore, trainer: Trainer, data: Data, initial: InitialWeights | None = None) -> None:
    """Writes the result of a finished training, the card last, and deletes its checkpoints.

    The trainer's modules have the published weights afterwards.
    """
    run, best = trainer.run, trainer.best
    trainer.load_best(store)
    history = {"run": run.to_json()} | ({"best": best} if best else {}) | {"history": trainer.progress.history}
    seen = seen_by(data, run, chosen=best is not None)
    if initial:
        seen = seen | (initial.seen or seen)
    bodies = {
        MODEL: write_tensors(trainer.task.weights()),
        SEEN: seen.to_bytes(),
        HISTORY: json.dumps(history, indent=1).encode(),
        CARD: trainer.task.card(**_card_facts(trainer, data, initial)).to_yaml().encode(),
    }
    for name, body in bodies.items():
        store.put_new(f"{run.key}/{name}", body)
    for step in checkpoint.steps(store, run.key):
        store.delete(checkpoint.key(run.key, step))


def _card_facts(trainer: Trainer, data: Data, initial: InitialWeights | None) -> dict[str, Any]:
    """Where the weights come from: the fields of a card that do not describe the network."""
    run, best = trainer.run, trainer.best
    pairs = trained_on(data, run, chosen=best is not None)
    training = training_facts(trainer.config, run, trainer.world, data)
    if best is None:
        return {"source": OWN, "trained_on": sorted(pairs), "training": training}
    ancestors = {pair for source in data.sources if source.name in run.sources for pair in source.ancestors}
    if initial:
        ancestors, pairs = ancestors | set(initial.ancestors), pairs | set(initial.trained_on) | set(initial.ancestors)
    return {
        "source": OWN,
        "selection": initial.selection if initial else "validation",
        "trained_on": sorted(pairs),
        "ancestors": sorted(ancestors),
        "training": training | {"best": dict(best)},
    }


def seen_by(data: Data, run: Run, chosen: bool) -> TrainingFingerprint:
    """The rows that the weights of a run depend on: the training rows and, if validation chose the step, its rows."""
    rows = training_rows(data, run)
    if chosen:
        rows = np.concatenate([rows, data.numbers("val")])
    return TrainingFingerprint.of(data.rows.take(pa.array(rows)))


def trained_on(data: Data, run: Run, chosen: bool) -> set[str]:
    """collection:split of the rows that the weights depend on, and of what their generators learned from."""
    described = data.describe()
    pairs = {pair for source in described["sources"] if source["name"] in run.sources for pair in source["trained_on"]}
    if chosen:
        validation = described["validation"] or {}
        pairs |= {pair for source in [*described["sources"], validation] for pair in _collections(source, "val")}
    return pairs


def _collections(source: Mapping[str, Any], role: str) -> list[str]:
    pairs: list[str] = source.get("collections", {}).get(role, [])
    return pairs


def training_facts(config: DataConfig, run: Run, world: World, data: Data) -> dict[str, Any]:
    """What the card says of the training: all that another would need to repeat it."""
    keys = to_dict(config)
    # Neither where the result lies nor the cluster decides over the weights: the same training has the same card.
    for key in ("out", "engine", "log", *(["task"] if isinstance(config, TrainConfig) else [])):
        keys.pop(key, None)
    return {
        "run": run.to_json(),
        "config": keys,
        "data": data.describe(),
        "workers": world.size,
        "device": world.device.type,
        "versions": {"synthfer": synthfer.__version__} | dict(_versions()),
    }


def _versions() -> Iterator[tuple[str, str]]:
    for name in _VERSIONS:
        with suppress(PackageNotFoundError):  # nothing here needs Ray
            yield name, version(name)
