"""A small training on drawn faces: its data, its config, its feed."""

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
from synthfer.training.feed import TrainingBatches
from synthfer.training.loop import Training
from synthfer.training.runs import Run
from synthfer.training.settings import TrainConfig
from synthfer.training.world import World
from tests.evaluation.made_datasets import dataset, faces

FAST = ("batch=16", "augment.shift=1", "classifier.channels=[4,8]", "size=16", "steps=12", "validate_every=4")


@cache
def drawn(first: int = 0, number: int = 84) -> list[np.ndarray]:
    return faces(range(first, first + number))


def data_at(folder: Path, name: str = "faces", first: int = 0, number: int = 84, **columns) -> str:
    return dataset(folder / name, drawn(first, number), **columns)


def config_of(*words: str) -> TrainConfig:
    return configs.load(TrainConfig, words)


def feed_of(config: TrainConfig, run: Run) -> tuple[Data, TrainingBatches]:
    data = open_data(config)
    pictures = pixels.load(data, result.build(config, run, None).input.size)
    return data, TrainingBatches.of(data, pictures, run, config.batch, config.loss.soft_labels)


def training_of(config: TrainConfig, run: Run, feed: TrainingBatches, place: World | None = None) -> Training:
    return Training(config, run, feed, result.build(config, run, None), place or World())


def on_two_ranks(config: TrainConfig, run: Run, folder: Path) -> None:
    """Trains the run in two processes without Ray: its result at `two`, each rank's network and history beside it."""
    mp.spawn(_rank_of_two, args=(config, run, folder), nprocs=2)


def _rank_of_two(rank: int, config: TrainConfig, run: Run, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    data, feed = feed_of(config, run)
    training, store = training_of(config, run, feed, World(rank, 2)), open_store(f"{folder}/two")
    training.fit(store, lambda facts: None)
    if rank == 0:
        result.write(store, training, data, None)
    torch.save([training.network.state_dict(), training.progress.history], folder / f"rank-{rank}.pt")
    dist.destroy_process_group()
