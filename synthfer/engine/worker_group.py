"""The worker group of a training job: Ray Train workers that train one run after another, and the driver's part.

State lives in the store: a group that lost a worker, or a driver that was killed, goes on from the last checkpoint
there. Ray Train starts the workers, their process group and their replacements; its own checkpoints are not used, since
they would be a second truth beside the store's.
"""

import logging
import shutil
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synthfer import images
from synthfer.cli import Invocation, Stopped
from synthfer.engine.cluster import ClusterResources, GpuWorkerConfig
from synthfer.engine.monitoring import Metrics, counting
from synthfer.engine.preemption import DrainWatcher
from synthfer.engine.status_actor import StatusActor
from synthfer.engine.tracking import Tracker
from synthfer.limits import MAX_RETRIES, MAX_THREADS, MAX_WORKERS
from synthfer.progress import Meter
from synthfer.schema import ConfigError, option
from synthfer.store import open_store
from synthfer.training import pixels, result
from synthfer.training.errors import Interrupted
from synthfer.training.experiment import Experiment
from synthfer.training.runs import Run
from synthfer.training.trainer import Report
from synthfer.training.world import World

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_REPORT_SECONDS = 10.0
# Errors that every try would meet again. Those of lost peers and of the store are others.
_PERMANENT = (TypeError, AttributeError, AssertionError, LookupError, ArithmeticError, ImportError, MemoryError)


@dataclass(frozen=True, kw_only=True)
class WorkerGroupConfig(GpuWorkerConfig):
    """How the training job uses the cluster. `ValueError`: nodes that a worker group cannot have."""

    workers: int = option(1, "workers that share each batch (DDP)", low=1, high=MAX_WORKERS)
    max_workers: int | None = option(
        None, "elastic: as many as there is room for, from workers to this", low=1, high=MAX_WORKERS
    )
    cpus_per_worker: int = option(1, "CPUs of a worker, and threads of its torch", low=1, high=MAX_THREADS)
    cache: str | None = option(
        None,
        "folder on each node for decoded pictures, kept and mapped by all workers (null: memory, or the node's "
        "temporary folder where several workers share a node)",
    )
    max_failures: int = option(20, "lost workers until the job gives up", low=0, high=MAX_RETRIES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.nodes) > 1:
            raise ValueError(
                "nodes: the workers of a training start all at once or not at all, so there is no second choice: name "
                "one alternative, such as [{pool: h100}]"
            )


@dataclass(frozen=True)
class WorkerGroup:
    """An experiment on the workers of a cluster. It pickles."""

    experiment: Experiment
    config: WorkerGroupConfig

    def train(
        self,
        runs: Sequence[Run],
        resources: ClusterResources,
        invocation: Invocation,
        tracker: Tracker,
        metrics: Metrics,
    ) -> None:
        """Trains these runs on Ray workers and shows their progress; raises what ended them early."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # On the driver's node: the workers' nodes may be lost.
        status = ray.remote(num_cpus=0, scheduling_strategy=here)(StatusActor).remote()
        errors: list[BaseException] = []
        # Ray Train waits where no signal reaches it, so it waits in another thread.
        thread = threading.Thread(target=self._fit, args=(runs, resources, status, errors), daemon=True)
        with Meter("steps", sum(run.steps for run in runs), invocation.status) as meter:
            metrics.progress = counting("steps", meter)
            thread.start()
            listener = ProgressListener(self.experiment, meter, tracker)
            while thread.is_alive():
                thread.join(_POLL_SECONDS)
                for message in ray.get(status.take_messages.remote()):
                    listener.receive(message)
        if failure := ray.get(status.failure.remote()):
            user_error, text = failure
            raise ConfigError(text) if user_error else RuntimeError(f"a worker failed:\n{text}")
        if errors:
            raise Stopped(f"workers were lost more often than engine.max_failures allows: {errors[0]}") from errors[0]

    def _fit(self, runs: Sequence[Run], resources: ClusterResources, status: Any, errors: list[BaseException]) -> None:
        """One worker group after another, until one ends without an interruption; appends what it raises."""
        try:
            while True:
                self.ray_trainer(runs, resources, status).fit()
                if not ray.get(status.take_interrupted.remote()):
                    return
                log.info("a node of the worker group is about to be taken away: a new group goes on from a checkpoint")
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            errors.append(error)

    def ray_trainer(self, runs: Iterable[Run], resources: ClusterResources, status: Any) -> TorchTrainer:
        """Ray Train's trainer of these runs, whose workers report to `status`, an actor of `StatusActor`."""
        config = self.config
        worker = config.worker_resources.resolved(resources)
        for name, available in (("CPU", resources.cpus), ("GPU", resources.gpus)):
            if (needed := config.workers * worker.bundle.get(name, 0)) > available:
                log.warning("%d workers need %g %ss, the cluster has %d: training waits until it has them",
                            config.workers, needed, name, available)  # fmt: skip
        return TorchTrainer(
            train_worker,
            train_loop_config={"group": ray.put(self), "runs": runs, "status": status},
            scaling_config=ScalingConfig(
                num_workers=(config.workers, config.max_workers) if config.max_workers else config.workers,
                use_gpu=bool(worker.gpus),
                resources_per_worker=worker.bundle,
                accelerator_type=worker.accelerator_type,
                label_selector=worker.placement.get("label_selector"),
            ),
            run_config=RunConfig(
                name=uuid.uuid4().hex,
                storage_path=str(Path(tempfile.gettempdir()) / "synthfer-ray-train"),
                failure_config=FailureConfig(max_failures=config.max_failures),
            ),
        )


class ProgressListener:
    """Turns the workers' messages into progress, log lines, tracked numbers and pictures."""

    def __init__(self, experiment: Experiment, meter: Meter, tracker: Tracker) -> None:
        self.experiment, self.meter, self.tracker, self.steps = experiment, meter, tracker, dict[str, int]()
        self.store = open_store(experiment.config.out)

    def receive(self, message: Mapping[str, Any]) -> None:
        """Takes one message. A run that goes on from a checkpoint repeats the steps since then."""
        if message["kind"] == "pictures":
            log.info("%s of %s pictures read", f"{message['done']:,}", f"{message['total']:,}")
            return
        run, step = message["run"], message["step"]
        if step > self.steps.get(run, 0):
            self.meter.add(step - self.steps.get(run, 0))
            self.steps[run] = step
        self.tracker.write(message)
        if "grid" in message and self.tracker.wants_image(run, step):
            self.tracker.write_image(run, images.decode(self.store.get(message["grid"])), step)
        if message["kind"] == "validation":
            log.info("%s step %d of %d: %s", run, step, message["steps"], self.experiment.describe(message))


# -- in each worker process


def train_worker(settings: Mapping[str, Any]) -> None:
    """Trains all runs that are not done, in order. Ray Train calls it in each process of the group."""
    status = settings["status"]
    if ray.get(status.failure.remote()):
        return  # this try would meet the same error
    with errors_reported(status):
        group: WorkerGroup = ray.get(settings["group"])
        torch.set_num_threads(group.config.cpus_per_worker)
        context = ray.train.get_context()
        world = World(context.get_world_rank(), context.get_world_size(), get_device(), DrainWatcher())
        store = open_store(group.experiment.config.out)
        with decoded_images(group, reading_reporter(world, status)) as pictures:
            for run in settings["runs"]:
                if not world.broadcast(result.is_done(store, run)):
                    group.experiment.train(run, pictures, world, store, reporter(world, status))
                    world.barrier()  # the next run may start from this one's weights


@contextmanager
def decoded_images(group: WorkerGroup, progress: Callable[[int, int], None]) -> Iterator[np.ndarray]:
    """The pictures of all rows: from the cache of the config, else in memory, which workers of one node share."""
    context, folder = ray.train.get_context(), group.config.cache
    shared = folder is None and context.get_local_world_size() > 1
    if shared:
        here = ray.get_runtime_context()  # ids of jobs start over in each session, and one machine may have several
        folder = str(Path(tempfile.gettempdir()) / f"synthfer-pixels-{here.get_job_id()}-{here.get_node_id()[:16]}")
    yield pixels.load(group.experiment.data, group.experiment.size, folder, progress)
    if shared and folder and context.get_local_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)


def reading_reporter(world: World, status: Any) -> Callable[[int, int], None]:
    """Reports how many pictures are read, from the first rank, every few seconds."""
    reported = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal reported
        if world.rank == 0 and time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            status.report.remote({"kind": "pictures", "done": done, "total": total})

    return progress


def reporter(world: World, status: Any) -> Report:
    """Reports the progress of a run, from the first rank."""

    def report(message: Mapping[str, Any]) -> None:
        if world.rank == 0:
            status.report.remote(message)

    return report


@contextmanager
def errors_reported(status: Any) -> Iterator[None]:
    """An error that every try would meet again ends the whole job; an interruption ends this worker group only."""
    try:
        yield
    except Interrupted:
        ray.get(status.interrupt.remote())
    except ConnectionError:
        raise  # the store may be back at the next try
    except ValueError as error:
        ray.get(status.fail.remote(True, str(error)))
        raise
    except (*_PERMANENT, OSError, torch.OutOfMemoryError):
        ray.get(status.fail.remote(False, traceback.format_exc()))
        raise
