"""What each process of the training gang does."""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from ray.train.torch import get_device

from synthfer.engine.preemption import DrainWatcher
from synthfer.engine.training_settings import Job
from synthfer.store import open_store
from synthfer.training import pixels, result
from synthfer.training.world import Interrupted, World

_TELL_SECONDS = 10.0
# Errors that would come again at every try. Those of lost peers and of the store are others.
_LASTING = (TypeError, AttributeError, AssertionError, LookupError, ArithmeticError, ImportError, MemoryError)


def work(settings: Mapping[str, Any]) -> None:
    """A worker's life: all runs that are left, in order. Called by Ray Train in each process of the gang."""
    board = settings["board"]
    if ray.get(board.failure.remote()):
        return  # what is wrong would be wrong again
    with told_to(board):
        job: Job = ray.get(settings["job"])
        torch.set_num_threads(job.config.engine.cpus_per_worker)
        context = ray.train.get_context()
        place = World(context.get_world_rank(), context.get_world_size(), get_device(), DrainWatcher())
        store = open_store(job.config.out)
        with decoded(job, reading(place, board)) as pictures:
            for run in settings["runs"]:
                if not place.from_first(result.is_done(store, run)):
                    job.train(run, pictures, place, store, telling(place, board))
                    place.from_first(0)  # the next run may begin with this one's weights


@contextmanager
def decoded(job: Job, progress: Callable[[int, int], None]) -> Iterator[np.ndarray]:
    """The pictures of all rows: from the cache of the config, else in memory, which workers of one node share."""
    context, folder = ray.train.get_context(), job.config.engine.cache
    shared = folder is None and context.get_local_world_size() > 1
    if shared:
        here = ray.get_runtime_context()  # ids of jobs begin anew in each session, and one machine may have several
        folder = str(Path(tempfile.gettempdir()) / f"synthfer-pixels-{here.get_job_id()}-{here.get_node_id()[:16]}")
    yield pixels.load(job.data, job.size, folder, progress)
    if shared and folder and context.get_local_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)


def reading(place: World, board: Any) -> Callable[[int, int], None]:
    """Tells how far the pictures are read, by the first rank, now and then."""
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if place.rank == 0 and time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            board.tell.remote({"kind": "pictures", "done": done, "total": total})

    return progress


def telling(place: World, board: Any) -> Callable[[Mapping[str, Any]], None]:
    """Tells of a run, by the first rank."""

    def tell(facts: Mapping[str, Any]) -> None:
        if place.rank == 0:
            board.tell.remote(facts)

    return tell


@contextmanager
def told_to(board: Any) -> Iterator[None]:
    """An error that would come again ends the job, not only this life of the worker; an interruption ends no job."""
    try:
        yield
    except Interrupted:
        ray.get(board.interrupt.remote())
    except ConnectionError:
        raise  # the store may be back at the next try
    except ValueError as error:
        ray.get(board.fail.remote(True, str(error)))
        raise
    except (*_LASTING, OSError, torch.OutOfMemoryError):
        ray.get(board.fail.remote(False, traceback.format_exc()))
        raise
