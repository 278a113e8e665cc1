"""The gang of a training job: Ray Train workers that make one run after another, and the driver that follows them.

State lives in the store: a worker group that lost a worker, or a driver that was killed, finds the last checkpoint
there and goes on. Ray Train keeps the gang, its process group and its restarts; its own checkpoints are not used, since
those would be a second truth beside the store's.
"""

import json
import logging
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synthfer import images
from synthfer.cli import Invocation, Stopped
from synthfer.config import ConfigError
from synthfer.engine.cluster import ClusterResources, session
from synthfer.engine.monitoring import Metrics, counting
from synthfer.engine.status_actor import StatusActor
from synthfer.engine.tracking import Tracker
from synthfer.engine.training_settings import Job, TaskJob, TrainJob
from synthfer.engine.training_worker import work
from synthfer.progress import Meter
from synthfer.store import Dataset, ObjectStore, View, open_store
from synthfer.store.spec import difference
from synthfer.training import result
from synthfer.training.runs import Run

log = logging.getLogger(__name__)

CONTRACT = "experiment.json"
_POLL_SECONDS = 1.0

AnyConfig = TypeVar("AnyConfig", TrainJob, TaskJob)


def on_any_node(config: AnyConfig) -> AnyConfig:
    """The config with places that workers find, too: they start in another folder. `ConfigError`: no such workers."""
    engine = config.engine
    if engine.max_workers is not None and engine.max_workers < engine.workers:
        raise ConfigError(f"engine.max_workers: {engine.max_workers} is less than engine.workers={engine.workers}")
    cache = engine.cache and str(Path(engine.cache).resolve())
    return replace(config, out=open_store(config.out).uri, engine=replace(engine, cache=cache))


def carry_out(job: Job, invocation: Invocation) -> dict[str, Any]:
    """Makes every run of an opened job that is not done, and says how many these were and what they cost."""
    config, cost = job.config, dict[str, float]()
    store = open_store(config.out)
    with Tracker(config.log, store.uri, Path(store.uri).name) as tracker:
        claim(store, job.contract())
        todo = [run for run in job.runs if not result.is_done(store, run)]
        log.info("%d of %d runs to train, %d steps each", len(todo), len(job.runs), job.runs[0].steps)
        if todo:
            with session(config.engine) as resources, Metrics("train", store.uri, config.engine.prices) as metrics:
                follow(job, todo, resources, invocation, tracker, metrics)
            cost = metrics.bill.summary()
    return {"trained_now": len(todo), **cost}


def claim(store: ObjectStore, ours: Mapping[str, Any]) -> None:
    """Writes the contract of the experiment, or checks that the one that is there is the same."""
    if Dataset.exists(store.uri) or View.exists(store.uri):
        raise ConfigError(f"out={store.uri} is a dataset or a view; choose another place")
    store.put_new(CONTRACT, json.dumps(ours, indent=1).encode())
    theirs = json.loads(store.get(CONTRACT))
    if lines := list(difference(theirs, json.loads(json.dumps(ours)), "")):
        shown = "\n  ".join(lines[:12])
        raise ConfigError(
            f"there is another experiment at {store.uri}; choose another place, or ask for the same:\n  {shown}"
        )


def follow(
    job: Job,
    todo: Sequence[Run],
    resources: ClusterResources,
    invocation: Invocation,
    tracker: Tracker,
    metrics: Metrics,
) -> None:
    """Runs the gang and shows its progress; raises what ended it."""
    config = job.config
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(num_cpus=0, scheduling_strategy=here)(StatusActor).remote()  # workers' nodes may be lost
    settings = {"job": ray.put(job), "runs": list(todo), "board": board}
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            while True:
                trainer(config, settings, resources).fit()
                if not ray.get(board.take_interrupted.remote()):
                    return
                log.info("a node of the gang is about to leave: another gang goes on from a checkpoint")
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            failure.append(error)

    # Ray Train waits where no signal reaches it, so it waits in another thread.
    thread = threading.Thread(target=fit, daemon=True)
    with Meter("steps", sum(run.steps for run in todo), invocation.status) as meter:
        metrics.progress = counting("steps", meter)
        thread.start()
        heard = Listener(job, meter, tracker)
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            for facts in ray.get(board.take.remote()):
                heard.hear(facts)
    if failed := ray.get(board.failure.remote()):
        for_the_user, error = failed
        raise ConfigError(error) if for_the_user else RuntimeError(f"a worker failed:\n{error}")
    if failure:
        raise Stopped(f"workers were lost more often than engine.max_failures allows: {failure[0]}") from failure[0]


def trainer(config: TrainJob | TaskJob, settings: Mapping[str, Any], resources: ClusterResources) -> TorchTrainer:
    """Ray Train's side of the job."""
    engine = config.engine
    worker = engine.worker_resources.resolved(resources)
    each = worker.bundle
    for name, there in (("CPU", resources.cpus), ("GPU", resources.gpus)):
        if engine.workers * each.get(name, 0) > there:
            log.warning("%d workers need %g %ss, the cluster has %d: training waits until it has them",
                        engine.workers, engine.workers * each[name], name, there)  # fmt: skip
    return TorchTrainer(
        work,
        train_loop_config=dict(settings),
        scaling_config=ScalingConfig(
            num_workers=(engine.workers, engine.max_workers) if engine.max_workers else engine.workers,
            use_gpu=bool(worker.gpus),
            resources_per_worker=each,
            accelerator_type=worker.accelerator_type,
            label_selector=worker.placement.get("label_selector"),
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(Path(tempfile.gettempdir()) / "synthfer-ray-train"),
            failure_config=FailureConfig(max_failures=engine.max_failures),
        ),
    )


class Listener:
    """Turns what workers say into progress, log lines, tracked numbers and pictures."""

    def __init__(self, job: Job, meter: Meter, tracker: Tracker) -> None:
        self.job, self.meter, self.tracker, self.steps = job, meter, tracker, dict[str, int]()
        self.store = open_store(job.config.out)

    def hear(self, facts: Mapping[str, Any]) -> None:
        """One fact. A run that goes on from a checkpoint begins where that was, and repeats some steps."""
        if facts["kind"] == "pictures":
            log.info("%s of %s pictures read", f"{facts['done']:,}", f"{facts['total']:,}")
            return
        run, step = facts["run"], facts["step"]
        if step > self.steps.get(run, 0):
            self.meter.add(step - self.steps.get(run, 0))
            self.steps[run] = step
        self.tracker.tell(facts)
        if "grid" in facts and self.tracker.wants(run, step):
            self.tracker.show(run, images.decode(self.store.get(facts["grid"])), step)
        if facts["kind"] == "validation":
            log.info("%s step %d of %d: %s", run, step, facts["steps"], self.job.told(facts))
