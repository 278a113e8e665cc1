"""The keys of the training job on top of those of training itself, and the job once it was opened."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from synthfer.config import option, to_dict
from synthfer.engine.cluster import GpuWorkerConfig
from synthfer.engine.tracking import LogConfig
from synthfer.store import ObjectStore
from synthfer.training import adversarial, result, task_result
from synthfer.training.adversarial import TaskTraining
from synthfer.training.data import Data
from synthfer.training.feed import TrainingBatches
from synthfer.training.loop import Tell, Training
from synthfer.training.result import InitialWeights
from synthfer.training.runs import Run
from synthfer.training.settings import TrainConfig
from synthfer.training.task_settings import CLASSIFIER, TaskConfig
from synthfer.training.world import World

# More runs may be added to an experiment, on any machines; what decides over a run's weights may not change.
_FREE = ("out", "engine", "log", "seeds", "strategy", "sweep", "controls")


@dataclass(frozen=True, kw_only=True)
class TrainEngine(GpuWorkerConfig):
    """How the training job uses the cluster. `ValueError`: nodes that a gang cannot have."""

    workers: int = option(1, "workers that share each batch (DDP)", low=1)
    max_workers: int | None = option(None, "elastic: as many as there is room for, from workers to this", low=1)
    cpus_per_worker: int = option(1, "CPUs of a worker, and threads of its torch", low=1)
    cache: str | None = option(
        None,
        "folder on each node for decoded pictures, kept and mapped by all workers (null: memory, or the node's "
        "temporary folder where several workers share a node)",
    )
    max_failures: int = option(20, "lost workers until the job gives up", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.nodes) > 1:
            raise ValueError(
                "nodes: a gang starts whole or not at all and has no second choice: name one alternative, "
                "such as [{pool: h100}]"
            )


@dataclass(frozen=True, kw_only=True)
class TrainJob(TrainConfig):
    """The training job for classifiers: what is trained and how, on which machines, and where its numbers go."""

    task: str = option(CLASSIFIER, "what is trained; another task has other keys, its --help lists them")
    engine: TrainEngine = field(default_factory=TrainEngine)
    log: LogConfig = field(default_factory=LogConfig)


@dataclass(frozen=True, kw_only=True)
class TaskJob(TaskConfig):
    """The training job for a task: what is trained and how, on which machines, and where its numbers go."""

    engine: TrainEngine = field(default_factory=TrainEngine)
    log: LogConfig = field(default_factory=LogConfig)


class Job(Protocol):
    """A training job that was opened and checked, as the gang needs it. It pickles."""

    @property
    def config(self) -> TrainJob | TaskJob:
        """All keys."""
        ...

    @property
    def data(self) -> Data:
        """Where all pictures are."""
        ...

    @property
    def runs(self) -> Sequence[Run]:
        """What is trained, in order."""
        ...

    @property
    def size(self) -> int:
        """Side in pixels of the pictures that it reads."""
        ...

    def contract(self) -> dict[str, Any]:
        """JSON: what makes another experiment if it is another."""
        ...

    def train(self, run: Run, pictures: np.ndarray, place: World, store: ObjectStore, tell: Tell) -> None:
        """One run, from where it is to its end; the first rank leaves its result. Called in each worker."""
        ...

    def told(self, facts: Mapping[str, Any]) -> str:
        """A validation's numbers for a line of the log."""
        ...


@dataclass(frozen=True)
class ClassifierJob:
    """A training job for classifiers that was opened and checked: a `Job`."""

    config: TrainJob
    data: Data
    runs: Sequence[Run]
    beginning: InitialWeights | None

    @property
    def size(self) -> int:
        """What the network reads."""
        return result.input_of(self.config, self.beginning).size

    def contract(self) -> dict[str, Any]:
        """Config, data, and the weights that it begins with."""
        config = {key: value for key, value in to_dict(self.config).items() if key not in (*_FREE, "task")}
        begun = hashlib.sha256(self.beginning.body).hexdigest() if self.beginning else None
        return {
            "format": "synthfer-training/1", "config": config, "data": self.data.describe(), "init_sha256": begun
        }  # fmt: skip

    def train(self, run: Run, pictures: np.ndarray, place: World, store: ObjectStore, tell: Tell) -> None:
        """One run; another may begin with its weights afterwards."""
        config = self.config
        begun = result.beginning_of(store, run) or self.beginning
        feed = TrainingBatches.of(self.data, pictures, run, config.batch, config.loss.soft_labels)
        training = Training(config, run, feed, result.build(config, run, begun), place)
        training.fit(store, tell)
        if place.rank == 0:
            result.write(store, training, self.data, begun)

    def told(self, facts: Mapping[str, Any]) -> str:
        """Loss and the two scores that are looked at most."""
        accuracy, macro_f1 = 100 * facts["accuracy"], 100 * facts["macro_f1"]
        return f"loss {facts['loss']:.3f}, validation accuracy {accuracy:.1f} %, macro F1 {macro_f1:.1f} %"


@dataclass(frozen=True)
class TaskPlan:
    """A training job for a task that was opened and checked: a `Job`."""

    config: TaskJob
    data: Data
    runs: Sequence[Run]
    size: int

    def contract(self) -> dict[str, Any]:
        """Config and data."""
        config = {key: value for key, value in to_dict(self.config).items() if key not in _FREE}
        return {"format": "synthfer-task/1", "config": config, "data": self.data.describe()}

    def train(self, run: Run, pictures: np.ndarray, place: World, store: ObjectStore, tell: Tell) -> None:
        """One run."""
        config = self.config
        feed = TrainingBatches.of(self.data, pictures, run, config.batch, soft=False)
        training = TaskTraining(config, run, feed, adversarial.build(config, run), place)
        training.fit(store, tell)
        if place.rank == 0:
            task_result.write(store, training, self.data)

    def told(self, facts: Mapping[str, Any]) -> str:
        """All numbers that the task says."""
        named = {name: value for name, value in facts.items() if isinstance(value, float)}
        return "validation " + ", ".join(f"{name} {value:.4g}" for name, value in named.items())
