"""The training and evaluation jobs against plain torch: steps alone and by DDP, the input pipeline, the scoring, FLOPs.

Whatever is compared takes turns in one run, so that a drift of the machine shows up in both; ratios are medians of
those of the turns. One thread per process.
"""

import io
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from synthfer import classifiers, images
from synthfer.benchmarks import benchmark_data, plain_loop
from synthfer.benchmarks.flops import flops_per_image, matrix_rate
from synthfer.benchmarks.plain_loop import Task
from synthfer.classifiers.network import Classifier
from synthfer.cli import Invocation, Outcome
from synthfer.config import load
from synthfer.engine.cluster import ClusterResources, session
from synthfer.engine.paced_training import paced_training, worker_niceness
from synthfer.engine.train import TrainJob, open_job, with_absolute_paths
from synthfer.engine.worker_group import WorkerGroup, WorkerGroupConfig
from synthfer.environment import describe_environment
from synthfer.evaluation.inputs import VARIANTS
from synthfer.evaluation.scoring import Scored, Scorer
from synthfer.limits import MAX_BATCH, MAX_GPUS, MAX_NETWORK_SIDE, MAX_STEPS
from synthfer.schema import ConfigError, option, registry_section
from synthfer.store import Dataset
from synthfer.store.dataset_ref import open_ref, unit_ranges
from synthfer.training import pixels
from synthfer.training.experiment import Experiment
from synthfer.training.initial_weights import build_classifier
from synthfer.training.runs import Run
from synthfer.training.settings import TrainConfig
from synthfer.training.tasks.classifier import ClassifierTask
from synthfer.training.training_batches import training_rows
from synthfer.training.world import World

log = logging.getLogger(__name__)

PACKAGES = ("ray", "torch", "numpy", "pillow", "simplejpeg", "pyarrow")
PARTS = ("steps", "input", "evaluation", "flops")
WARMUP = 20
"""Steps of each turn that are not timed: as many as our loop makes until its first message."""

_TESTS, _MODELS = 2, 3
_SCORED_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class TrainingBenchmark:
    """What to measure of training and evaluation, and how long."""

    parts: list[str] = option(list(PARTS), "what to measure", choices=PARTS)
    classifier: Any = registry_section(classifiers.names, classifiers.module, default="small", of="the network")
    size: int | None = option(None, "pixels a side (null: the network's own)", low=8, high=MAX_NETWORK_SIDE)
    batch: int = option(64, "rows of a step over all workers", low=2, high=MAX_BATCH)
    steps: int = option(80, f"steps of a turn, the first {WARMUP} of them not timed", low=2 * WARMUP, high=MAX_STEPS)
    rounds: int = option(5, "turns of each", low=1, high=1000)
    workers: list[int] = option([1, 2], "numbers of workers of the part steps", low=1, high=MAX_GPUS)
    pictures: int = option(
        1024, "pictures of the part input, and of each test set of the part evaluation", low=64, high=10_000_000
    )
    side: int = option(112, "pixels a side of these pictures", low=16, high=MAX_NETWORK_SIDE)
    networks: list[str] = option(["small"], "networks of the part flops")


def measure(config: TrainingBenchmark, invocation: Invocation) -> Outcome:
    """Measure every part that is asked for; the result names the machine and versions."""
    torch.set_num_threads(1)
    measures: dict[str, Callable[[TrainingBenchmark, Invocation], dict[str, Any]]] = {
        "steps": steps,
        "input": input_pipeline,
        "evaluation": evaluation,
        "flops": flops,
    }
    results: dict[str, Any] = {"conditions": describe_environment(*PACKAGES)}
    for part in config.parts:
        log.info("measuring %s", part)
        results[part] = measures[part](config, invocation)
    return Outcome(results)


def steps(config: TrainingBenchmark, invocation: Invocation) -> dict[str, Any]:
    """Images/s of the training job's workers and of a plain loop in as many processes, of the same network.

    Ours makes everything that the job makes by default, averaged weights, clipping and schedule among it. The
    pictures are noise: what they show does not change the work.
    """
    with tempfile.TemporaryDirectory() as folder, session() as resources:
        devices = resources.gpus or resources.cpus
        if devices < max(config.workers):
            raise ConfigError(f"workers: there are {devices} devices; ask for workers=[{devices}] or fewer")
        job = job_of(config, Path(folder), benchmark_data.noise(max(512, 4 * config.batch), 32), invocation)
        each = flops_per_image(network(config, 0))
        results: dict[str, Any] = {"pictures_are": "noise", "flops_per_image": each}
        products = []
        for workers in config.workers:
            log.info("%d workers", workers)
            compared, product = _compared(job, workers, resources, Path(folder))
            results[f"{workers}_workers"] = compared
            products += product
    results["matrix_product_flops_per_s"] = round(statistics.median(products))
    for workers in config.workers:
        compared = results[f"{workers}_workers"]
        rate = each * statistics.median(compared["ours_images_per_s"]) / workers
        compared["flops_per_s_of_each"] = round(rate)
        compared["of_matrix_product"] = round(rate / results["matrix_product_flops_per_s"], 4)
    return results


def _compared(
    job: Experiment, workers: int, resources: ClusterResources, folder: Path
) -> tuple[dict[str, Any], list[float]]:
    """Ours and the plain loop in turns, and the rate of a matrix product measured between them."""
    out = folder / f"experiment-{workers}"
    job = replace(job, config=replace(job.config, out=str(out)))
    group = WorkerGroup(job, WorkerGroupConfig(workers=workers, max_failures=0))
    task = _task(job, workers, folder)
    ours, plain, products = [], [], []
    with (
        paced_training(group, resources) as (training, start_up),
        plain_loop.processes(task, folder) as (processes, plain_start_up),
    ):
        for _ in job.runs:
            plain.append(processes.turn())
            ours.append(training.next_run())
            products.append(matrix_rate(plain_loop.device_of(0)))
    rates = [[round(turn.images_per_s, 2) for turn in turns] for turns in (ours, plain)]
    return {
        "ours_images_per_s": rates[0],
        "plain_images_per_s": rates[1],
        "ours_to_plain": median_ratio(*rates),
        "device_busy": round(statistics.median(turn.device_busy for turn in ours), 4),
        "ours_pictures": sum(turn.pictures for turn in ours),
        "plain_pictures": sum(turn.pictures for turn in plain),
        "ours_start_up_s": round(start_up, 2),
        "plain_start_up_s": round(plain_start_up, 2),
    }, products


def _task(job: Experiment, workers: int, folder: Path) -> Task:
    """What the plain loop trains on: the training rows of the job."""
    rows, run, config = training_rows(job.data, job.runs[0]), job.runs[0], job.config
    assert isinstance(config, TrainConfig)
    arrays = {
        "pixels": pixels.load(job.data, job.size)[rows],
        "labels": job.data.labels[rows],
    }
    paths = {name: folder / f"{name}.npy" for name in arrays}
    for name, array in arrays.items():
        np.save(paths[name], array)
    return Task(config=config, run=run, world=workers, warmup=WARMUP, niceness=worker_niceness(), **paths)


def job_of(
    config: TrainingBenchmark, folder: Path, pictures: Sequence[np.ndarray], invocation: Invocation
) -> Experiment:
    """A training job on these pictures, with a run for each turn."""
    words = [
        f"out={folder}/experiment",
        f"data={{made: {benchmark_data.seal(folder / 'made', pictures, 'train')}}}",
        f"seeds={list(range(config.rounds))}",
        f"batch={config.batch}",
        f"steps={config.steps}",
        f"validate_every={config.steps}",
    ]
    job = replace(load(TrainJob, words), classifier=config.classifier, size=config.size)
    return open_job(with_absolute_paths(job), replace(invocation, results=Console(quiet=True)))


def network(config: TrainingBenchmark, seed: int) -> Classifier:
    """The network that is measured, with random weights."""
    job = TrainConfig(out="", data={}, classifier=config.classifier, size=config.size)
    return build_classifier(job, Run(name="", seed=seed, steps=1, epoch=1, sources=()), None)


def input_pipeline(config: TrainingBenchmark, invocation: Invocation) -> dict[str, Any]:
    """Pictures per core-second (CPU time of all threads) of all that comes before the network; drawn faces as JPEG.

    `decode`: files of a dataset become an array, against a loop with Pillow over the same files in memory, and one
    over the functions that the pipeline itself uses. `batch`: rows are picked and augmented, against the network's
    steps on the CPU with batches that are there already.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = job_of(config, Path(folder), benchmark_data.faces(config.pictures, config.side), invocation)
        files = _files(job.config.data["made"])
        decode = _in_turns(
            {
                "ours": lambda: pixels.load(job.data, job.size),
                "plain": lambda: [_by_pillow(body, job.size) for body in files],
                "same_functions": lambda: [images.square(images.decode(body), job.size) for body in files],
            },
            len(files),
            config.rounds,
        )
        for name in ("plain", "same_functions"):
            decode[f"ours_to_{name}"] = median_ratio(decode["ours"], decode[name])
        return {"pictures_are": "drawn faces", "decode": decode, "batch": _batches(config, job)}


def _batches(config: TrainingBenchmark, job: Experiment) -> dict[str, Any]:
    """The making of batches and the rest of a step, each alone, and the share of the rest as our loop reports it."""
    trainer = job.trainer(job.runs[0], pixels.load(job.data, job.size), World())
    task = trainer.task
    assert isinstance(task, ClassifierTask)
    messages: list[Mapping[str, Any]] = []
    trainer.advance(config.steps, messages.append)
    batch = trainer.batch(0)

    def make() -> None:
        for step in range(WARMUP):
            trainer.batch(step)

    def learn() -> None:
        for step in range(WARMUP):
            task.optimizer.zero_grad(set_to_none=True)
            task.backward(step, batch)
            task.optimizer.step()

    results = _in_turns({"ours": make, "network": learn}, WARMUP * config.batch, config.rounds)
    results["ours_to_network"] = median_ratio(results["ours"], results["network"])
    results["device_busy"] = round(statistics.median(message["device_busy"] for message in messages), 4)
    return results


def _in_turns(works: Mapping[str, Callable[[], Any]], pictures: int, rounds: int) -> dict[str, Any]:
    """Pictures per core-second of each work, once per round."""
    results: dict[str, Any] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            results[name].append(round(pictures / (time.process_time() - start), 1))
    return results


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over turns of ours to theirs."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 4)


def _files(uri: str) -> list[bytes]:
    return [row["image"]["bytes"] for batch in Dataset(uri).scan(["image"]) for row in batch.to_pylist()]


def _by_pillow(body: bytes, size: int) -> np.ndarray:
    with Image.open(io.BytesIO(body)) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def evaluation(config: TrainingBenchmark, invocation: Invocation) -> dict[str, Any]:
    """Seconds of scoring several networks on several test sets in one pass, and in a pass for each network.

    The test sets are drawn faces as JPEG; the passes are those of the evaluation job's worker.
    """
    with tempfile.TemporaryDirectory() as folder:
        faces = benchmark_data.faces(config.pictures, config.side)
        tests = [benchmark_data.seal(Path(folder) / f"test-{k}", faces, "test") for k in range(_TESTS)]
        models = {f"seed-{seed}": network(config, seed) for seed in range(_MODELS)}
        seconds: dict[str, list[float]] = {"one_pass_s": [], "separate_passes_s": []}
        for _ in range(config.rounds):
            start = time.perf_counter()
            score(models, tests)
            between = time.perf_counter()
            for name, model in models.items():
                score({name: model}, tests)
            seconds["one_pass_s"].append(round(between - start, 3))
            seconds["separate_passes_s"].append(round(time.perf_counter() - between, 3))
    return {
        "pictures_are": "drawn faces",
        "networks": _MODELS,
        "test_sets": _TESTS,
        "pictures": _TESTS * config.pictures,
        **seconds,
        "separate_to_one": median_ratio(seconds["separate_passes_s"], seconds["one_pass_s"]),
    }


def score(models: Mapping[str, Classifier], tests: Sequence[str]) -> list[Scored]:
    """The answers of some networks for the test sets, as an evaluation worker gives them."""
    scorer = Scorer(models, VARIANTS, _SCORED_AT_ONCE, plain_loop.device_of(0))
    return [scorer.score(part, ["test"]) for uri in tests for part in unit_ranges([open_ref(uri)], sys.maxsize)]


def flops(config: TrainingBenchmark, invocation: Invocation) -> dict[str, Any]:
    """Operations of forward and backward for one picture, by network, at its own size."""
    with torch.device("meta"):
        return {name: flops_per_image(classifiers.build(name)) for name in config.networks}
