"""The training job: every run of an experiment, one after another, by one gang of Ray Train workers.

The driver opens the data and says what is wrong with it before anything starts. State lives in the store: a worker
group that lost a worker, or a driver that was killed, finds the last checkpoint there and goes on. Ray Train keeps the
gang, its process group and its restarts; its own checkpoints are not used, since those would be a second truth beside
the store's.
"""

import hashlib
import json
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from synthfer.classifiers.collect import collect
from synthfer.cli import Invocation, Outcome, Stopped
from synthfer.config import ConfigError, to_dict
from synthfer.engine.session import Resources, session
from synthfer.engine.tracking import Tracker
from synthfer.engine.training_settings import Plan, TrainJob
from synthfer.engine.training_worker import Board, work
from synthfer.progress import Meter
from synthfer.report.training import print_data, print_results
from synthfer.store import Dataset, ObjectStore, View, open_store
from synthfer.store.spec import difference
from synthfer.training import result
from synthfer.training.augment import draw
from synthfer.training.balance import double_corrections
from synthfer.training.data import open_data
from synthfer.training.feed import Feed
from synthfer.training.loop import Place, Training
from synthfer.training.result import Beginning
from synthfer.training.runs import Run, plan

log = logging.getLogger(__name__)

CONTRACT = "experiment.json"
_FORMAT = "synthfer-training/1"
# More runs may be added to an experiment, on any machines; what decides over a run's weights may not change.
_FREE = ("out", "engine", "log", "seeds", "strategy", "sweep", "controls")
_POLL_SECONDS = 1.0


def train(config: TrainJob, invocation: Invocation) -> Outcome:
    """Trains every run that is not done. The job of `jobs/train.py`."""
    start = time.monotonic()
    job = opened(config, invocation)
    store = open_store(config.out)
    with Tracker(config.log, store.uri, Path(store.uri).name) as tracker:
        claim(store, job)
        todo = [run for run in job.runs if not result.is_done(store, run)]
        log.info("%d of %d runs to train, %d steps each", len(todo), len(job.runs), job.runs[0].steps)
        if todo:
            with session() as resources:
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
    for warning in double_corrections(config):
        log.warning("%s", warning)
    job = Plan(config, data, runs, first_weights(config, runs[0]))
    rehearse(job)
    print_data(data.describe(), invocation.results)
    return job


def on_any_node(config: TrainJob) -> TrainJob:
    """The config with places that workers find, too: they start in another folder. `ConfigError`: no such workers."""
    engine = config.engine
    most = max(engine.workers, engine.max_workers or 1)
    if engine.max_workers is not None and engine.max_workers < engine.workers:
        raise ConfigError(f"engine.max_workers: {engine.max_workers} is less than engine.workers={engine.workers}")
    if config.batch < 2 * most:
        raise ConfigError(f"batch={config.batch} leaves less than two rows for each of {most} workers: raise it")
    cache = engine.cache and str(Path(engine.cache).resolve())
    return replace(config, out=open_store(config.out).uri, engine=replace(engine, cache=cache))


def rehearse(job: Plan) -> None:
    """Builds all that a run is made of, for each that begins with nothing new: `ConfigError` before anything starts."""
    config, nothing = job.config, np.empty(0, np.uint8)
    try:
        for run in (run for run in job.runs if run.seed == job.runs[0].seed):
            feed = Feed.of(job.data, nothing, run, config.batch, config.loss.soft_labels)
            Training(config, run, feed, result.build(config, run, job.beginning), Place())
            draw(config.augment, 2, 8, 0)
    except ValueError as error:
        raise ConfigError(f"run {run.name}: {error}") from error


def first_weights(config: TrainJob, run: Run) -> Beginning | None:
    """The weights of `init` with what their card says; `ConfigError` where they are of another network."""
    if config.init is None:
        return None
    model = result.build(config, run, None)
    try:
        found = collect(config.init)
        if len(found) > 1:
            raise ConfigError(f"init: there are several checkpoints: {', '.join(one.uri for one in found)}; name one")
        found[0].load(model)
    except ValueError as error:
        raise ConfigError(f"init: {error}") from error
    card, seen = found[0].card, found[0].seen
    if config.size not in (None, model.input.size):
        raise ConfigError(f"init: {config.init} reads {model.input.size} pixels, size={config.size} was asked for")
    if not (seen or card.trained_on):
        raise ConfigError(
            f"init: nobody says what {config.init} has learned from, so that no test of it could be believed; write it"
            " into its card, as trained_on: [affectnet:train]"
        )
    return Beginning.of(model, card, seen)


def claim(store: ObjectStore, job: Plan) -> None:
    """Writes the contract of the experiment, or checks that the one that is there is the same."""
    config = {key: value for key, value in to_dict(job.config).items() if key not in _FREE}
    begun = hashlib.sha256(job.beginning.body).hexdigest() if job.beginning else None
    ours = {"format": _FORMAT, "config": config, "data": job.data.describe(), "init_sha256": begun}
    if Dataset.exists(store.uri) or View.exists(store.uri):
        raise ConfigError(f"out={store.uri} is a dataset or a view; choose another place")
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
    if failed := ray.get(board.failure.remote()):
        for_the_user, error = failed
        raise ConfigError(error) if for_the_user else RuntimeError(f"a worker failed:\n{error}")
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
            num_workers=(engine.workers, engine.max_workers) if engine.max_workers else engine.workers,
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
