"""The training job, for classifiers and for tasks: opens and checks the experiment, trains every run that is not done.

The driver opens the data and reports what is wrong with it before anything starts.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthfer.cli import Command, Invocation, Outcome
from synthfer.config import given
from synthfer.documents import read_json
from synthfer.engine.cluster import session
from synthfer.engine.monitoring import Metrics
from synthfer.engine.tracking import LogConfig, Tracker
from synthfer.engine.worker_group import WorkerGroup, WorkerGroupConfig
from synthfer.report.training import print_data, print_results
from synthfer.schema import ConfigError, option
from synthfer.store import Dataset, ObjectStore, View, open_store
from synthfer.store.spec import difference
from synthfer.training import result
from synthfer.training.experiment import Experiment, open_experiment
from synthfer.training.settings import CLASSIFIER, TaskConfig, TrainConfig, task_names

log = logging.getLogger(__name__)

CONTRACT = "experiment.json"
_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class TrainJob(TrainConfig):
    """The training job for classifiers: what is trained and how, on which machines, and where its numbers go."""

    task: str = option(CLASSIFIER, "what is trained; another task has other keys, its --help lists them")
    engine: WorkerGroupConfig = field(default_factory=WorkerGroupConfig)
    log: LogConfig = field(default_factory=LogConfig)


@dataclass(frozen=True, kw_only=True)
class TaskJob(TaskConfig):
    """The training job for a task: what is trained and how, on which machines, and where its numbers go."""

    engine: WorkerGroupConfig = field(default_factory=WorkerGroupConfig)
    log: LogConfig = field(default_factory=LogConfig)


def is_task_requested(words: Sequence[str], files: Sequence[str]) -> bool:
    """Whether key=value words and config files name a task other than the classifier."""
    task_words = [word for word in words if word.partition("=")[0].strip().partition(".")[0] == "task"]
    section = given(TaskJob, task_words, files).get("task")
    name = section.get("name") if isinstance(section, Mapping) else section
    return name not in (None, CLASSIFIER)


def train(config: TrainJob | TaskJob, invocation: Invocation) -> Outcome:
    """Trains every run that is not done. The job of `jobs/train.py`."""
    start = time.monotonic()
    config = with_absolute_paths(config)
    experiment = open_job(config, invocation)
    summary = run_experiment(experiment, config, invocation)
    store = open_store(config.out)
    histories = {run.key: result.read_history(store, run) for run in experiment.runs}
    if isinstance(config, TrainJob):
        print_results(list(histories.values()), invocation.results)
        records = {key: history["best"] for key, history in histories.items()} if invocation.json else {}
    else:
        last = {key: history["history"][-1] for key, history in histories.items()}
        records = {key: {"step": record["step"], **record["validation"]} for key, record in last.items()}
    models = f"{store.uri}/*/seed-*/{result.MODEL}"
    return Outcome({"out": store.uri, "models": models, **summary, "seconds": time.monotonic() - start, **records})


def preview(config: TrainJob | TaskJob, invocation: Invocation) -> Outcome:
    """Opens the data and shows what would be trained. The job's `--dry-run`."""
    config = with_absolute_paths(config)
    experiment = open_job(config, invocation)
    runs = {run.key: {"steps": run.steps, "sources": dict(run.shares or {}) or run.sources} for run in experiment.runs}
    return Outcome({"out": open_store(config.out).uri, "runs": runs})


def with_absolute_paths(config: TrainJob | TaskJob) -> TrainJob | TaskJob:
    """The config with paths that workers can use: they start in another folder than the driver."""
    cache = config.engine.cache and str(Path(config.engine.cache).resolve())
    return replace(config, out=open_store(config.out).uri, engine=replace(config.engine, cache=cache))


def open_job(config: TrainJob | TaskJob, invocation: Invocation) -> Experiment:
    """The experiment of a config, with everything checked that can be checked without training."""
    fewest, most = config.engine.workers, config.engine.max_workers or config.engine.workers
    if most < fewest:
        raise ConfigError(f"engine.max_workers: {most} is less than engine.workers={fewest}")
    experiment = open_experiment(config, range(fewest, most + 1))
    print_data(experiment.data.describe(), invocation.results)
    return experiment


def run_experiment(experiment: Experiment, config: TrainJob | TaskJob, invocation: Invocation) -> dict[str, Any]:
    """Trains the runs that are not done; how many these were, and what they cost."""
    store, cost = open_store(config.out), dict[str, float]()
    with Tracker(config.log, store.uri, Path(store.uri).name) as tracker:
        claim(store, experiment.contract())
        runs = [run for run in experiment.runs if not result.is_done(store, run)]
        log.info("%d of %d runs to train, %d steps each", len(runs), len(experiment.runs), experiment.runs[0].steps)
        if runs:
            with session(config.engine) as resources, Metrics("train", store.uri, config.engine.prices) as metrics:
                WorkerGroup(experiment, config.engine).train(runs, resources, invocation, tracker, metrics)
            cost = metrics.cost.summary()
    return {"trained_now": len(runs), **cost}


def claim(store: ObjectStore, contract: Mapping[str, Any]) -> None:
    """Writes the contract of the experiment, or checks it against the one that is there. `ConfigError`: another one."""
    if Dataset.exists(store.uri) or View.exists(store.uri):
        raise ConfigError(f"out={store.uri} is a dataset or a view; choose another place")
    store.put_new(CONTRACT, json.dumps(contract, indent=1).encode())
    existing = read_json(store.get(CONTRACT), f"{store.uri}/{CONTRACT}")
    if lines := list(difference(existing, json.loads(json.dumps(contract)), "")):
        shown = "\n  ".join(lines[:_SHOWN])
        raise ConfigError(
            f"there is another experiment at {store.uri}; choose another place, or ask for the same:\n  {shown}"
        )


_RESUMES = "Killed at any moment, the same command goes on from the last checkpoint to the same weights."


def _task_command(words: Sequence[str], files: Sequence[str]) -> Command | None:
    """The command for tasks, where the words or files name one."""
    return TASK_COMMAND if is_task_requested(words, files) else None


TASK_COMMAND = Command(
    TaskJob,
    train,
    preview,
    about="Trains a task, such as the networks of a generator, on split train of datasets and views, on any number of "
    "Ray Train workers. Losses, validation and grids of pictures go into the log; the result is weights with a card. "
    + _RESUMES,
    example="python jobs/train.py task=vae_gan task.size=48 data.fer=out/fer2013 out=out/vae",
)
COMMAND = Command(
    TrainJob,
    train,
    preview,
    about="Trains a classifier of expressions on real data, synthetic data and both, at equal steps, with DDP on "
    f"Ray Train. The best step is chosen on validation data; test splits are not opened. {_RESUMES} "
    f"Tasks besides: task={'|'.join(name for name in task_names() if name != CLASSIFIER)}.",
    example="python jobs/train.py data.fer=out/fer2013 data.drawn=out/faces mix.fer=.5 mix.drawn=.5 seeds=[0,1,2] "
    "out=s3://bucket/runs/small",
    redirect=_task_command,
)
