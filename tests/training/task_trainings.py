"""Short trainings of tasks on drawn faces."""

import contextlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.multiprocessing as mp
from torch import distributed as dist

from synthfer import config as configs
from synthfer import images
from synthfer.store import open_store
from synthfer.training import checkpoint
from synthfer.training import trainer as trainers
from synthfer.training.errors import Interrupted
from synthfer.training.experiment import build_task
from synthfer.training.runs import Run
from synthfer.training.settings import TaskConfig
from synthfer.training.trainer import Trainer
from synthfer.training.training_batches import TrainingBatches
from synthfer.training.world import World
from tests.training.classifier_trainings import drawn_faces

ROWS, TRAINED = 84, 70
TINY = ("task=tests.training.tiny_gan", "batch=12", "steps=9", "validate_every=3")


class Killed(Exception):
    pass


def quiet(message) -> None:
    pass


def kill_at(step):
    """A report function that raises once a checkpoint of this step is written."""

    def kill(message):
        if message["kind"] == "validation" and message["step"] == step:
            raise Killed

    return kill


def config_of(*words: str) -> TaskConfig:
    return configs.load(TaskConfig, ("out=x", "data.faces=x", *words))


def run_of(config: TaskConfig) -> Run:
    return Run(name="run", seed=0, steps=config.steps, epoch=6, sources=("faces",))


@cache
def pictures(size: int) -> np.ndarray:
    return np.stack([images.square(face, size).transpose(2, 0, 1) for face in drawn_faces(0, ROWS)])


def trainer_of(config: TaskConfig, world: World | None = None) -> Trainer:
    """Seventy faces to train on and fourteen to look at, labels going round the expressions."""
    run = run_of(config)
    task, rows = build_task(config, run), np.arange(ROWS)
    batches = TrainingBatches.of_arrays(
        pictures(task.size), rows % 7, rows[:TRAINED], rows[TRAINED:], config.batch, run.seed
    )
    return Trainer(config, run, batches, task, world or World())


def states(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All weights and buffers by name."""
    return {
        f"{name}.{key}": value
        for name, module in trainer.task.modules.items()
        for key, value in module.state_dict().items()
    }


def check_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def on_two_ranks(folder: Path, **trainings: tuple[str, ...]) -> list[dict[str, list]]:
    """Makes trainings in two processes without Ray: of each rank, by name, all weights and the history.

    Then the last checkpoint is lost, and all goes on from the one before; at last the second rank's machine is taken
    away between two checkpoints. What comes out of either stands beside it.
    """
    mp.spawn(_rank_of_two, args=(folder, trainings), nprocs=2)
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


def _rank_of_two(rank: int, folder: Path, trainings: dict[str, tuple[str, ...]]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    left: dict[str, list] = {name: [] for name in trainings}
    for name in [*trainings, *trainings]:
        config, store = config_of(*trainings[name]), open_store(f"{folder}/{name}")
        trainer = trainer_of(config, World(rank, 2))
        trainer.fit(store, quiet)
        left[name].append([states(trainer), trainer.progress.history])
        if rank == 0:
            store.delete(checkpoint.key(trainer.run.key, config.steps))
        dist.barrier()
    trainers._WINDOW = 2
    for name in trainings:
        config, store = config_of(*trainings[name]), open_store(f"{folder}/{name}-left")
        asked = iter([False, False, rank == 1])
        with contextlib.suppress(Interrupted):
            trainer_of(config, World(rank, 2, draining=lambda asked=asked: next(asked))).fit(store, quiet)
        dist.barrier()
        assert rank or max(checkpoint.steps(store, "run/seed-0")) % config.validate_every
        trainer = trainer_of(config, World(rank, 2))
        trainer.fit(store, quiet)
        left[name].append([states(trainer), trainer.progress.history])
    torch.save(left, folder / f"rank-{rank}.pt")
    dist.destroy_process_group()
