"""An experiment: its config, its opened data, its runs; and one run from where it stands to its published result.

`open_experiment` finds every mistake that can be found without training, before anything is started. No Ray here: the
engine calls `Experiment.train` in each worker.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from synthfer.sample import seed_of
from synthfer.schema import ConfigError, to_dict
from synthfer.store import ObjectStore
from synthfer.training import result, runs, tasks
from synthfer.training.augment import draw
from synthfer.training.balance import double_corrections
from synthfer.training.data import Data, open_data
from synthfer.training.initial_weights import InitialWeights, build_classifier, input_of, weights_of_init
from synthfer.training.runs import Run
from synthfer.training.settings import TaskConfig, TrainConfig, task_module
from synthfer.training.tasks import Task
from synthfer.training.tasks.classifier import ClassifierTask
from synthfer.training.trainer import Report, Trainer
from synthfer.training.training_batches import TrainingBatches
from synthfer.training.world import World

log = logging.getLogger(__name__)

# More runs may be added to an experiment, on any machines; what decides over a run's weights may not change.
_NOT_IN_CONTRACT = ("out", "engine", "log", "seeds", "strategy", "sweep", "controls")


@dataclass(frozen=True)
class Experiment:
    """What is trained, opened and checked. It pickles.

    `runs` stand in the order in which they are trained. `size` is the side in pixels of the pictures that the networks
    read. `initial` are the weights that `init` names.
    """

    config: TrainConfig | TaskConfig
    data: Data
    runs: Sequence[Run]
    size: int
    initial: InitialWeights | None = None

    def contract(self) -> dict[str, Any]:
        """JSON: what makes it this experiment and no other. A resume must have the same."""
        classifier = isinstance(self.config, TrainConfig)
        left_out = (*_NOT_IN_CONTRACT, *(["task"] if classifier else []))
        config = {key: value for key, value in to_dict(self.config).items() if key not in left_out}
        contract = {"config": config, "data": self.data.describe()}
        if not classifier:
            return {"format": "synthfer-task/1", **contract}
        initial = hashlib.sha256(self.initial.body).hexdigest() if self.initial else None
        return {"format": "synthfer-training/1", **contract, "init_sha256": initial}

    def trainer(self, run: Run, images: np.ndarray, world: World, initial: InitialWeights | None = None) -> Trainer:
        """The trainer of a run at its first step; `images` uint8 (n, 3, size, size) are those of all rows of `data`."""
        config = self.config
        if isinstance(config, TaskConfig):
            batches = TrainingBatches.of(self.data, images, run, config.batch, soft=False)
            return Trainer(config, run, batches, build_task(config, run), world)
        batches = TrainingBatches.of(self.data, images, run, config.batch, config.loss.soft_labels)
        model = build_classifier(config, run, initial)
        return Trainer(config, run, batches, ClassifierTask(config, run, batches, model, world), world)

    def train(self, run: Run, images: np.ndarray, world: World, store: ObjectStore, report: Report) -> None:
        """Trains one run to its end, on all ranks; the first one publishes the result, from which others may start."""
        classifier = "" if isinstance(self.config, TaskConfig) else self.config.classifier.name
        initial = result.weights_of_run(store, run, classifier) or self.initial
        trainer = self.trainer(run, images, world, initial)
        trainer.fit(store, report)
        if world.rank == 0:
            result.publish(store, trainer, self.data, initial)

    def describe(self, message: Mapping[str, Any]) -> str:
        """A validation's numbers for a line of the log."""
        if isinstance(self.config, TaskConfig):
            numbers = {name: value for name, value in message.items() if isinstance(value, float)}
            return "validation " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        accuracy, macro_f1 = 100 * message["accuracy"], 100 * message["macro_f1"]
        return f"loss {message['loss']:.3f}, validation accuracy {accuracy:.1f} %, macro F1 {macro_f1:.1f} %"


def build_task(config: TaskConfig, run: Run) -> Task:
    """The task of a run before its first step: weights by the run's seed."""
    options = to_dict(config.task)
    name = options.pop("name")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(run.seed, "weights"))
        return tasks.build(name, **options)


def open_experiment(config: TrainConfig | TaskConfig, workers: Sequence[int] = (1,)) -> Experiment:
    """Opens the data and checks everything that can be checked without training.

    `workers` are the numbers of ranks that may share a batch. `ConfigError` says what is wrong.
    """
    if isinstance(config, TaskConfig):
        return _open_task(config, workers)
    if config.batch < 2 * max(workers):
        raise ConfigError(
            f"batch={config.batch} leaves less than two rows for each of {max(workers)} workers: raise it"
        )
    data = open_data(config)
    real, synthetic = ([one.name for one in data.sources if one.synthetic is kind] for kind in (False, True))
    planned = runs.plan(config, real, synthetic, data.count("train"))
    for warning in double_corrections(config):
        log.warning("%s", warning)
    initial = weights_of_init(config, planned[0])
    experiment = Experiment(config, data, planned, input_of(config, initial).size, initial)
    for run in planned:
        if run.seed == planned[0].seed:
            _check(experiment, run, f"run {run.name}")
    return experiment


def _open_task(config: TaskConfig, workers: Sequence[int]) -> Experiment:
    if uneven := [number for number in workers if config.batch % number]:
        raise ConfigError(
            f"batch={config.batch} cannot be shared evenly by {uneven[0]} workers: choose a multiple of it"
        )
    if not config.seeds:
        raise ConfigError("seeds is empty: name at least one, as seeds=[0]")
    name = config.task.name
    data = open_data(config, every_class=getattr(task_module(name), "EVERY_CLASS", False))
    if (data.rows["weight"].to_numpy() != 1).any():
        log.warning("a view weighs its rows; a task counts all alike (sampler_power favours rare classes)")
    planned = runs.plan_task(config, [source.name for source in data.sources], data.count("train"))
    try:
        size = build_task(config, planned[0]).size
    except ValueError as error:
        raise ConfigError(f"task {name}: {error}") from error
    experiment = Experiment(config, data, planned, size)
    _check(experiment, planned[0], f"task {name}")
    return experiment


def _check(experiment: Experiment, run: Run, where: str) -> None:
    """Builds all parts of a run, and throws them away: `ConfigError` where one of them refuses its config."""
    try:
        experiment.trainer(run, np.empty(0, np.uint8), World(), experiment.initial)
        draw(experiment.config.augment, 2, 8, 0)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
