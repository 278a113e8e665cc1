"""The job that trains classifiers: every run of an experiment, one after another.

The driver opens the data and says what is wrong with it before anything starts.
"""

import json
import logging
import time

import numpy as np

from synthfer.classifiers.checkpoints import collect
from synthfer.cli import Invocation, Outcome
from synthfer.config import ConfigError
from synthfer.engine.training_settings import ClassifierJob, TrainJob
from synthfer.engine.worker_group import carry_out, on_any_node
from synthfer.report.training import print_data, print_results
from synthfer.store import open_store
from synthfer.training import result
from synthfer.training.augment import draw
from synthfer.training.balance import double_corrections
from synthfer.training.data import open_data
from synthfer.training.feed import TrainingBatches
from synthfer.training.loop import Training
from synthfer.training.result import InitialWeights
from synthfer.training.runs import Run, plan
from synthfer.training.world import World

log = logging.getLogger(__name__)


def train(config: TrainJob, invocation: Invocation) -> Outcome:
    """Trains every run that is not done. The job of `jobs/train.py`."""
    start = time.monotonic()
    job = opened(config, invocation)
    done = carry_out(job, invocation)
    store = open_store(job.config.out)
    results = [json.loads(store.get(f"{run.key}/{result.HISTORY}")) for run in job.runs]
    print_results(results, invocation.results)
    seconds = {"seconds": time.monotonic() - start}
    told = {run.key: told["best"] for run, told in zip(job.runs, results, strict=True)} if invocation.json else {}
    models = f"{store.uri}/*/seed-*/{result.MODEL}"
    return Outcome({"out": store.uri, "models": models, **done, **seconds, **told})


def preview(config: TrainJob, invocation: Invocation) -> Outcome:
    """Opens the data and says what would be trained. The job's `--dry-run`."""
    job = opened(config, invocation)
    runs = [{"run": run.key, "steps": run.steps, "sources": dict(run.shares or {}) or run.sources} for run in job.runs]
    return Outcome({"out": open_store(config.out).uri, "runs": {run.pop("run"): run for run in runs}})


def opened(config: TrainJob, invocation: Invocation) -> ClassifierJob:
    """The job with its data opened and everything checked that can be checked without training."""
    config = on_any_node(config)
    most = max(config.engine.workers, config.engine.max_workers or 1)
    if config.batch < 2 * most:
        raise ConfigError(f"batch={config.batch} leaves less than two rows for each of {most} workers: raise it")
    data = open_data(config)
    kinds = [[source.name for source in data.sources if source.synthetic is kind] for kind in (False, True)]
    runs = plan(config, kinds[0], kinds[1], data.count("train"))
    for warning in double_corrections(config):
        log.warning("%s", warning)
    job = ClassifierJob(config, data, runs, first_weights(config, runs[0]))
    rehearse(job)
    print_data(data.describe(), invocation.results)
    return job


def rehearse(job: ClassifierJob) -> None:
    """Builds all that a run is made of, for each that begins with nothing new: `ConfigError` before anything starts."""
    config, nothing = job.config, np.empty(0, np.uint8)
    try:
        for run in (run for run in job.runs if run.seed == job.runs[0].seed):
            feed = TrainingBatches.of(job.data, nothing, run, config.batch, config.loss.soft_labels)
            Training(config, run, feed, result.build(config, run, job.beginning), World())
            draw(config.augment, 2, 8, 0)
    except ValueError as error:
        raise ConfigError(f"run {run.name}: {error}") from error


def first_weights(config: TrainJob, run: Run) -> InitialWeights | None:
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
    card, seen = found[0].card, found[0].fingerprint
    if config.size not in (None, model.input.size):
        raise ConfigError(f"init: {config.init} reads {model.input.size} pixels, size={config.size} was asked for")
    if not (seen or card.trained_on):
        raise ConfigError(
            f"init: nobody says what {config.init} has learned from, so that no test of it could be believed; write it"
            " into its card, as trained_on: [affectnet:train]"
        )
    return InitialWeights.of(model, card, seen)
