"""Ray Data as a pool of workers: unit numbers in, reports out."""

import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext

from synthfer.engine.generation_worker import Report, Worker
from synthfer.engine.settings import PoolConfig

# Ray Data keeps every block of a job in the driver's books, about 3 ms each before the first unit starts.
MAX_BLOCKS = 4096
# Units whose workers died at every try; more than this means that the cluster, not a unit, is at fault.
MAX_LOST_UNITS = 16


@dataclass(frozen=True)
class WorkerPoolSpec:
    """Who makes units: a kind of worker, what it is built from, and how many of them the cluster may run."""

    worker: type[Worker]
    recipe: Any
    engine: PoolConfig


def run_units(units: np.ndarray, crew: WorkerPoolSpec, overlap: bool = True) -> Iterator[Report]:
    """Reports of `units` as they are made, in any order. Leaving the loop ends the workers and drops what they hold.

    The driver puts the blocks of unit numbers there itself: a read task would wait for ever for a CPU that the actors
    hold. A dying worker's units are tried again elsewhere, and one that was committed meanwhile is left alone, so
    that a second driver costs little; to keep two drivers apart each starts anywhere. With `overlap` an actor has the
    next unit on its device while it uploads the last. `RayError` where workers cannot start or die too often.
    """
    if not len(units):
        return
    units = np.roll(units, -random.SystemRandom().randrange(len(units)))
    context = DataContext.get_current()
    context.max_errored_blocks = MAX_LOST_UNITS
    context.target_max_block_size = 1  # every report leaves at once, also where a block has many units
    items = ray.data.from_items(
        [{"unit": int(unit)} for unit in units], override_num_blocks=min(len(units), MAX_BLOCKS)
    )
    engine = crew.engine
    most = min(engine.max_workers or 1, len(units))
    pool = ActorPoolStrategy(
        min_size=min(engine.min_workers, most),
        max_size=most,
        initial_size=most,  # models load for minutes: all at once, not one after another
        max_concurrent_calls_per_actor=2 if overlap else 1,
        max_tasks_in_flight_per_actor=None if overlap else 1,
        enable_true_multi_threading=True,
    )
    with warnings.catch_warnings():
        # The two retry arguments have no successor before Ray 2.64, which pyproject.toml keeps out.
        warnings.simplefilter("ignore", category=DeprecationWarning)
        reports = items.map_batches(
            crew.worker,
            fn_constructor_args=(crew.recipe,),
            batch_size=1,
            compute=pool,
            max_restarts=-1,
            max_task_retries=engine.max_unit_retries,
            **engine.worker_resources.ray_options,
        )
    for block in reports.iter_batches(batch_size=None, prefetch_batches=0):
        yield from map(Report.from_json, block["report"])
