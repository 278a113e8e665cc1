"""The job that trains a task (`synthfer.training.tasks`), such as the networks of a generator: a run for each seed."""

import json
import logging
import time
from collections.abc import Mapping, Sequence

import numpy as np

from synthfer.cli import Invocation, Outcome
from synthfer.config import ConfigError, given
from synthfer.engine.training_settings import TaskJob, TaskPlan
from synthfer.engine.worker_group import carry_out, on_any_node
from synthfer.report.training import print_data
from synthfer.store import open_store
from synthfer.training import result, task_settings
from synthfer.training.adversarial import TaskTraining, build
from synthfer.training.augment import draw
from synthfer.training.data import Data, open_data
from synthfer.training.feed import TrainingBatches
from synthfer.training.runs import Run
from synthfer.training.world import World

log = logging.getLogger(__name__)


def is_asked_for(words: Sequence[str], files: Sequence[str]) -> bool:
    """Whether key=value words and config files name a task that is no classifier."""
    ours = [word for word in words if word.partition("=")[0].strip().partition(".")[0] == "task"]
    section = given(TaskJob, ours, files).get("task")
    name = section.get("name") if isinstance(section, Mapping) else section
    return name not in (None, task_settings.CLASSIFIER)


def train(config: TaskJob, invocation: Invocation) -> Outcome:
    """Trains every run that is not done. The job of `jobs/train.py` for tasks."""
    start = time.monotonic()
    job = opened(config, invocation)
    done = carry_out(job, invocation)
    store = open_store(job.config.out)
    histories = {run.key: json.loads(store.get(f"{run.key}/{result.HISTORY}"))["history"] for run in job.runs}
    models = f"{store.uri}/*/seed-*/{result.MODEL}"
    last = {key: {"step": history[-1]["step"], **history[-1]["validation"]} for key, history in histories.items()}
    seconds = time.monotonic() - start
    return Outcome({"out": store.uri, "models": models, **done, "seconds": seconds, **last})


def preview(config: TaskJob, invocation: Invocation) -> Outcome:
    """Opens the data and says what would be trained. The job's `--dry-run`."""
    job = opened(config, invocation)
    runs = {run.key: {"steps": run.steps, "sources": dict(run.shares or {}) or run.sources} for run in job.runs}
    return Outcome({"out": open_store(config.out).uri, "runs": runs})


def opened(config: TaskJob, invocation: Invocation) -> TaskPlan:
    """The job with its data opened and everything checked that can be checked without training."""
    config = on_any_node(config)
    engine = config.engine
    for workers in range(engine.workers, (engine.max_workers or engine.workers) + 1):
        if config.batch % workers:
            raise ConfigError(f"batch={config.batch} cannot be shared evenly by {workers} workers: choose a multiple")
    module = task_settings.module(config.task.name)
    data = open_data(config, every_class=getattr(module, "EVERY_CLASS", False))
    if (data.rows["weight"].to_numpy() != 1).any():
        log.warning("a view weighs its rows; a task counts all alike (sampler_power favours rare classes)")
    job = TaskPlan(config, data, plan(config, data), rehearsed(config, data))
    print_data(data.describe(), invocation.results)
    return job


def plan(config: TaskJob, data: Data) -> list[Run]:
    """A run for each seed over all sources, or those that the mix gives a share."""
    shares = {name: share for name, share in config.mix.items() if share}
    rows = data.count("train")
    return [
        Run(
            name=config.task.name.rpartition(".")[2],
            seed=seed,
            steps=config.steps,
            epoch=max(1, round(rows / config.batch)),
            sources=tuple(source.name for source in data.sources if not shares or source.name in shares),
            shares=shares or None,
            power=config.sampler_power,
        )
        for seed in dict.fromkeys(config.seeds)
    ]


def rehearsed(config: TaskJob, data: Data) -> int:
    """Builds all that a run is made of, and says the size of its pictures. `ConfigError` before anything starts."""
    if not config.seeds:
        raise ConfigError("seeds is empty: name at least one, as seeds=[0]")
    run, nothing = plan(config, data)[0], np.empty(0, np.uint8)
    try:
        task = build(config, run)
        TaskTraining(config, run, TrainingBatches.of(data, nothing, run, config.batch, soft=False), task, World())
        draw(config.augment, 2, 8, 0)
    except ValueError as error:
        raise ConfigError(f"task {config.task.name}: {error}") from error
    return task.size
