"""A small training on drawn faces: its data, its config, its feed."""

from functools import cache
from pathlib import Path

import numpy as np

from synthfer import config as configs
from synthfer.training import pixels, result
from synthfer.training.data import Data, open_data
from synthfer.training.feed import Feed
from synthfer.training.loop import Place, Training
from synthfer.training.runs import Run
from synthfer.training.settings import TrainConfig
from tests.evaluation.made_datasets import dataset, faces

FAST = ("batch=16", "augment.shift=1", "classifier.channels=[4,8]", "size=16", "steps=12", "validate_every=4")


@cache
def drawn(first: int = 0, number: int = 84) -> list[np.ndarray]:
    return faces(range(first, first + number))


def data_at(folder: Path, name: str = "faces", first: int = 0, number: int = 84, **columns) -> str:
    return dataset(folder / name, drawn(first, number), **columns)


def config_of(*words: str) -> TrainConfig:
    return configs.load(TrainConfig, words)


def feed_of(config: TrainConfig, run: Run) -> tuple[Data, Feed]:
    data = open_data(config)
    pictures = pixels.load(data, result.build(config, run, None).input.size)
    return data, Feed.of(data, pictures, run, config.batch, config.loss.soft_labels)


def training_of(config: TrainConfig, run: Run, feed: Feed, place: Place | None = None) -> Training:
    return Training(config, run, feed, result.build(config, run, None), place or Place())
