"""Small trainings of classifiers on drawn faces: data, config, batches, trainer."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import distributed as dist

from synthfer import config as configs
from synthfer.store import open_store
from synthfer.training import pixels, result
from synthfer.training.data import Data, open_data
from synthfer.training.initial_weights import InitialWeights, build_classifier
from synthfer.training.runs import Run
from synthfer.training.settings import TrainConfig
from synthfer.training.tasks.classifier import ClassifierTask
from synthfer.training.trainer import Trainer
from synthfer.training.training_batches import TrainingBatches
from synthfer.training.world import World
from tests.audit.datasets import dataset, faces

FAST = ("batch=16", "augment.shift=1", "classifier.channels=[4,8]", "size=16", "steps=12", "validate_every=4")


@cache
def drawn_faces(first: int = 0, number: int = 84) -> list[np.ndarray]:
    return faces(range(first, first + number))


def data_at(folder: Path, name: str = "faces", first: int = 0, number: int = 84, **columns) -> str:
    return dataset(folder / name, drawn_faces(first, number), **columns)


def config_of(*words: str) -> TrainConfig:
    return configs.load(TrainConfig, words)


def batches_of(config: TrainConfig, run: Run) -> tuple[Data, TrainingBatches]:
    data = open_data(config)
    pictures = pixels.load(data, build_classifier(config, run, None).input.size)
    return data, TrainingBatches.of(data, pictures, run, config.batch, config.loss.soft_labels)


def trainer_of(
    config: TrainConfig,
    run: Run,
    batches: TrainingBatches,
    world: World | None = None,
    initial: InitialWeights | None = None,
) -> Trainer:
    world, model = world or World(), build_classifier(config, run, initial)
    return Trainer(config, run, batches, ClassifierTask(config, run, batches, model, world), world)


def on_two_ranks(config: TrainConfig, run: Run, folder: Path) -> None:
    """Trains the run in two processes without Ray: its result at `two`, each rank's network and history beside it."""
    mp.spawn(_rank_of_two, args=(config, run, folder), nprocs=2)


def _rank_of_two(rank: int, config: TrainConfig, run: Run, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    data, batches = batches_of(config, run)
    trainer, store = trainer_of(config, run, batches, World(rank, 2)), open_store(f"{folder}/two")
    trainer.fit(store, lambda message: None)
    torch.save([trainer.task.network.state_dict(), trainer.progress.history], folder / f"rank-{rank}.pt")
    if rank == 0:
        result.publish(store, trainer, data)
    dist.destroy_process_group()
