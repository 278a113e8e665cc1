"""The training job: every run of an experiment, one after another, by one gang of Ray Train workers.

The driver opens the data and says what is wrong with it before anything starts. State lives in the store: a worker
group that lost a worker, or a driver that was killed, finds the last checkpoint there and goes on. Ray Train keeps the
gang, its process group and its restarts; its own checkpoints are not used, since those would be a second truth beside
the store's.
"""

import json
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synthfer.classifiers import weights
from synthfer.classifiers.collect import collect
from synthfer.cli import Invocation, Outcome, Stopped
from synthfer.config import ConfigError, option, to_dict
from synthfer.engine.session import Resources, session
from synthfer.engine.tracking import LogConfig, Tracker
from synthfer.progress import Meter
from synthfer.report.training import print_data, print_results
from synthfer.store import ObjectStore, open_store
from synthfer.store.spec import difference
from synthfer.training import pixels, result
from synthfer.training.balance import double_corrections
from synthfer.training.batches import quotas
from synthfer.training.data import Data, open_data
from synthfer.training.feed import Feed
from synthfer.training.loop import Place, Training
from synthfer.training.result import Beginning
from synthfer.training.runs import Run, plan
from synthfer.training.settings import TrainConfig

log = logging.getLogger(__name__)

CONTRACT = "experiment.json"
_FORMAT = "synthfer-training/1"
# More runs may be added to an experiment, on any machines; what decides over a run's weights may not change.
_FREE = ("out", "engine", "log", "seeds", "strategy", "sweep", "controls")
_POLL_SECONDS = 1.0
_TELL_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class TrainEngine:
    """How the training job uses the cluster."""

    workers: int = option(1, "workers that share each batch (DDP)", low=1)
    max_workers: int | None = option(None, "elastic: as many as there is room for, from workers to this", low=1)
    cpus_per_worker: int = option(1, "CPUs of a worker, and threads of its torch", low=1)
    gpus_per_worker: float | None = option(None, "GPUs of a worker (null: 1 where the cluster has GPUs)", low=0)
    accelerator_type: str | None = option(None, "kind of GPU to insist on, by Ray's name: H100, A100, L4 ...")
    cache: str | None = option(None, "folder on each node for decoded pictures, mapped by all workers (null: memory)")
    max_failures: int = option(20, "lost workers until the job gives up", low=0)

    @property
    def number(self) -> int | tuple[int, int]:
        """Workers as Ray Train takes them; `ConfigError` where the range is empty."""
        if self.max_workers is None:
            return self.workers
        if self.max_workers < self.workers:
            raise ConfigError(f"engine.max_workers: {self.max_workers} is less than engine.workers={self.workers}")
        return self.workers, self.max_workers


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


def train(config: TrainJob, invocation: Invocation) -> Outcome:
    """Trains every run that is not done. The job of `jobs/train.py`."""
    start = time.monotonic()
    job = opened(config, invocation)
    store = open_store(config.out)
    claim(store, job)
    todo = [run for run in job.runs if not result.is_done(store, run)]
    log.info("%d of %d runs to train, %d steps each", len(todo), len(job.runs), job.runs[0].steps)
    if todo:
        with Tracker(config.log, store.uri, Path(store.uri).name) as tracker, session() as resources:
            follow(job, todo, resources, invocation, tracker)
    results = [json.loads(store.get(f"{run.key}/{result.HISTORY}")) for run in job.runs]
    print_results(results, invocation.results)
    seconds = {"seconds": time.monotonic() - start}
    told = {run.key: told["best"] for run, told in zip(job.runs, results, strict=True)} if invocation.json else {}
    models = f"{store.uri}/*/seed-*/{result.MODEL}"
    return Outcome({"out": store.uri, "models": models, "trained_now": len(todo), **seconds, **told})


def preview(config: TrainJob, invocation: Invocation) -> Outcome:
    """Opens the data and says what would be trained. The job's `--dry-run`."""
    job = opened(config, invocation)
    runs = [{"run": run.key, "steps": run.steps, "sources": dict(run.shares or {}) or run.sources} for run in job.runs]
    return Outcome({"out": open_store(config.out).uri, "runs": {run.pop("run"): run for run in runs}})


def opened(config: TrainJob, invocation: Invocation) -> Plan:
    """The job with its data opened and everything checked that can be checked without training."""
    config = on_any_node(config)
    data = open_data(config)
    kinds = [[source.name for source in data.sources if source.synthetic is kind] for kind in (False, True)]
    runs = plan(config, kinds[0], kinds[1], data.count("train"))
    for run in runs:
        check(run, config.batch)
    for warning in double_corrections(config):
        log.warning("%s", warning)
    print_data(data.describe(), invocation.results)
    return Plan(config, data, runs, first_weights(config, runs[0]))


def on_any_node(config: TrainJob) -> TrainJob:
    """The config with places that workers find, too: they start in another folder. `ConfigError`: no such workers."""
    engine = config.engine
    assert engine.number
    cache = engine.cache and str(Path(engine.cache).resolve())
    return replace(config, out=open_store(config.out).uri, engine=replace(engine, cache=cache))


def check(run: Run, batch: int) -> None:
    """`ConfigError` where a source of the run has a share of less than a row."""
    try:
        quotas(list((run.shares or {"all": 1.0}).values()), batch)
    except ValueError as error:
        raise ConfigError(f"run {run.name}: {error}") from error


def first_weights(config: TrainJob, run: Run) -> Beginning | None:
    """The weights of `init` with what their card says; `ConfigError` where they are of another network."""
    if config.init is None:
        return None
    model = result.build(config, run, None)
    try:
        (found,) = collect(config.init)
        found.load(model)
    except ValueError as error:
        raise ConfigError(f"init: {error}") from error
    if config.size not in (None, model.input.size):
        raise ConfigError(f"init: {config.init} reads {model.input.size} pixels, size={config.size} was asked for")
    return Beginning.of(weights.body_of(model), found.card, found.seen)


def claim(store: ObjectStore, job: Plan) -> None:
    """Writes the contract of the experiment, or checks that the one that is there is the same."""
    config = {key: value for key, value in to_dict(job.config).items() if key not in _FREE}
    ours = {"format": _FORMAT, "config": config, "data": job.data.describe()}
    store.put_new(CONTRACT, json.dumps(ours, indent=1).encode())
    theirs = json.loads(store.get(CONTRACT))
    if lines := list(difference(theirs, json.loads(json.dumps(ours)), "")):
        shown = "\n  ".join(lines[:12])
        raise ConfigError(
            f"there is another experiment at {store.uri}; choose another place, or ask for the same:\n  {shown}"
        )


def follow(job: Plan, todo: Sequence[Run], resources: Resources, invocation: Invocation, tracker: Tracker) -> None:
    """Runs the gang and shows its progress; raises what ended it."""
    config = job.config
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(num_cpus=0, scheduling_strategy=here)(Board).remote()  # workers' nodes may be lost
    settings = {"job": ray.put(job), "runs": list(todo), "board": board}
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            trainer(config, settings, resources).fit()
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            failure.append(error)

    # Ray Train waits where no signal reaches it, so it waits in another thread.
    thread = threading.Thread(target=fit, daemon=True)
    with Meter("steps", sum(run.steps for run in todo), invocation.status) as meter:
        thread.start()
        heard = Listener(meter, tracker)
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            for facts in ray.get(board.take.remote()):
                heard.hear(facts)
    if error := ray.get(board.failure.remote()):
        raise ConfigError(error)
    if failure:
        raise Stopped(f"workers were lost more often than engine.max_failures allows: {failure[0]}") from failure[0]


def trainer(config: TrainJob, settings: Mapping[str, Any], resources: Resources) -> TorchTrainer:
    """Ray Train's side of the job."""
    engine = config.engine
    gpus = engine.gpus_per_worker if engine.gpus_per_worker is not None else float(resources.gpus > 0)
    each: dict[str, float] = {"CPU": engine.cpus_per_worker} | ({"GPU": gpus} if gpus else {})
    for name, there in (("CPU", resources.cpus), ("GPU", resources.gpus)):
        if engine.workers * each.get(name, 0) > there:
            log.warning("%d workers need %g %ss, the cluster has %d: training waits until it has them",
                        engine.workers, engine.workers * each[name], name, there)  # fmt: skip
    return TorchTrainer(
        work,
        train_loop_config=dict(settings),
        scaling_config=ScalingConfig(
            num_workers=engine.number,
            use_gpu=gpus > 0,
            resources_per_worker=each,
            accelerator_type=engine.accelerator_type,
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex,
            storage_path=str(Path(tempfile.gettempdir()) / "synthfer-ray-train"),
            failure_config=FailureConfig(max_failures=engine.max_failures),
        ),
    )


class Board:
    """What workers say and the driver reads."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []
        self.error: str | None = None

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Progress."""
        self.told.append(facts)

    def take(self) -> list[Mapping[str, Any]]:
        """All that was told since the last time."""
        told, self.told = self.told, []
        return told

    def fail(self, error: str) -> None:
        """What the user has to mend; the first one stays."""
        self.error = self.error or error

    def failure(self) -> str | None:
        """The error, if there is one."""
        return self.error


class Listener:
    """Turns what workers say into progress, log lines and tracked numbers."""

    def __init__(self, meter: Meter, tracker: Tracker) -> None:
        self.meter, self.tracker, self.steps = meter, tracker, dict[str, int]()

    def hear(self, facts: Mapping[str, Any]) -> None:
        """One fact. A run that goes on from a checkpoint begins where that was, and repeats some steps."""
        if facts["kind"] == "pictures":
            log.info("%s of %s pictures read", f"{facts['done']:,}", f"{facts['total']:,}")
            return
        before = self.steps.get(facts["run"], 0)
        if facts["step"] > before:
            self.meter.add(facts["step"] - before)
            self.steps[facts["run"]] = facts["step"]
        self.tracker.tell(facts)
        if facts["kind"] == "validation":
            log.info(
                "%s step %d of %d: loss %.3f, validation accuracy %.1f %%, macro F1 %.1f %%",
                facts["run"],
                facts["step"],
                facts["steps"],
                facts["loss"],
                100 * facts["accuracy"],
                100 * facts["macro_f1"],
            )


def work(settings: Mapping[str, Any]) -> None:
    """A worker's life: all runs that are left, in order. Called by Ray Train in each process of the gang."""
    board = settings["board"]
    if ray.get(board.failure.remote()):
        return  # what is wrong would be wrong again
    with told_to(board):
        job: Plan = ray.get(settings["job"])
        torch.set_num_threads(job.config.engine.cpus_per_worker)
        context = ray.train.get_context()
        place = Place(context.get_world_rank(), context.get_world_size(), get_device())
        pictures = pixels.load(job.data, size_of(job), job.config.engine.cache, reading(place, board))
        store = open_store(job.config.out)
        for run in settings["runs"]:
            train_run(job, run, pictures, place, store, board)


def reading(place: Place, board: Any) -> Callable[[int, int], None]:
    """Tells how far the pictures are read, by the first rank, now and then."""
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if place.rank == 0 and time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            board.tell.remote({"kind": "pictures", "done": done, "total": total})

    return progress


@contextmanager
def told_to(board: Any) -> Iterator[None]:
    """What a user has to mend ends the job, not only this life of the worker."""
    try:
        yield
    except ValueError as error:
        ray.get(board.fail.remote(str(error)))
        raise


def size_of(job: Plan) -> int:
    """Pixels a side that the network of a job reads."""
    return result.build(job.config, job.runs[0], job.beginning).input.size


def train_run(job: Plan, run: Run, pictures: Any, place: Place, store: ObjectStore, board: Any) -> None:
    """One run, from where it is to its end."""
    if place.from_first(result.is_done(store, run)):
        return
    config = job.config
    begun = result.beginning_of(store, run) or job.beginning
    feed = Feed.of(job.data, pictures, run, config.batch, config.loss.soft_labels)
    training = Training(config, run, feed, result.build(config, run, begun), place)

    def tell(facts: Mapping[str, Any]) -> None:
        if place.rank == 0:
            board.tell.remote(facts)

    training.fit(store, tell)
    if place.rank == 0:
        result.write(store, training, job.data, begun)
    place.from_first(0)  # the next run may begin with this one's weights
