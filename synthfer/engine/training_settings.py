"""The keys of the training job on top of those of training itself, and the job once it was opened."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from synthfer.config import option
from synthfer.engine.tracking import LogConfig
from synthfer.training.data import Data
from synthfer.training.result import Beginning
from synthfer.training.runs import Run
from synthfer.training.settings import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainEngine:
    """How the training job uses the cluster."""

    workers: int = option(1, "workers that share each batch (DDP)", low=1)
    max_workers: int | None = option(None, "elastic: as many as there is room for, from workers to this", low=1)
    cpus_per_worker: int = option(1, "CPUs of a worker, and threads of its torch", low=1)
    gpus_per_worker: float | None = option(None, "GPUs of a worker (null: 1 where the cluster has GPUs)", low=0)
    accelerator_type: str | None = option(None, "kind of GPU to insist on, by Ray's name: H100, A100, L4 ...")
    cache: str | None = option(
        None,
        "folder on each node for decoded pictures, kept and mapped by all workers (null: memory, or the node's "
        "temporary folder where several workers share a node)",
    )
    max_failures: int = option(20, "lost workers until the job gives up", low=0)


@dataclass(frozen=True, kw_only=True)
class TrainJob(TrainConfig):
    """The training job: what is trained and how, on which machines, and where its numbers go."""

    engine: TrainEngine = field(default_factory=TrainEngine)
    log: LogConfig = field(default_factory=LogConfig)


@dataclass(frozen=True)
class Plan:
    """A training job that was opened and checked."""

    config: TrainJob
    data: Data
    runs: Sequence[Run]
    beginning: Beginning | None
