"""A generation job into a temporary folder, and the bare loop over its generator that it is compared with."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from synthfer import planning
from synthfer.cli import Invocation
from synthfer.config import load
from synthfer.engine.cluster import session
from synthfer.engine.dataset_job import JobStats, make_missing
from synthfer.engine.generate import GenerateConfig, open_dataset, worker_pool
from synthfer.engine.generation_worker import decode_faces, read_faces
from synthfer.engine.monitoring import Metrics
from synthfer.generators import Generator
from synthfer.planning import Plan
from synthfer.store.image_reader import ImageReader


def against_bare_loop(words: list[str], images: int, invocation: Invocation) -> dict[str, Any]:
    """Images/s of a job, steady state, and of a loop over the same generator in one process that keeps nothing.

    Half of the loop runs before the job and half after it, so that a drift of the machine shows up in both.
    """
    with dataset_job(words) as job:
        plan = planning.build(job.plan)
        generator = job.worker_spec(plan).build_generator()
        if texts := plan.texts(10**6):
            generator.prepare(sorted(texts, key=str))  # type: ignore[attr-defined] # as the job's worker does
        before = bare_rate(generator, plan, images // 2)
        stats = run(job, invocation)
        after = bare_rate(generator, plan, images // 2)
    rate = stats.images_per_s or 0.0
    bare = 2 / (1 / before + 1 / after)
    return {
        "bare_images_per_s": [round(before, 3), round(after, 3)],
        "job_images_per_s": round(rate, 3),
        "job_to_bare": round(rate / bare, 4),
        "device_busy": stats.device_busy,
    }


def bare_rate(generator: Generator, plan: Plan, images: int) -> float:
    """Images/s of nothing but the generator; the faces of a plan that has some are decoded before."""
    size, faces = generator.batch_size, list[Any]()
    if plan.faces is not None:
        faces = decode_faces(read_faces(plan, plan.rows(range(images)), ImageReader(plan.faces.uris)))

    def make(first: int) -> None:
        rows = plan.rows(range(first, min(first + size, images)))
        generator.make(rows, faces[first : first + size]) if faces else generator.make(rows)

    make(0)
    start = time.perf_counter()
    for first in range(0, images, size):
        make(first)
    return images / (time.perf_counter() - start)


def run(job: GenerateConfig, invocation: Invocation, **engine: Any) -> JobStats:
    """Run the job with one worker, or with the keys of `engine`; the dataset is not sealed."""
    job, stats = replace(job, engine=replace(job.engine, **{"max_workers": 1, **engine})), JobStats()
    with session() as resources, Metrics("benchmark", job.out, job.engine.prices) as metrics:
        job, plan = job.settled(resources), planning.build(job.plan)
        make_missing(open_dataset(job, plan), worker_pool(job, plan), stats, invocation, metrics)
    return stats


@contextmanager
def dataset_job(words: list[str]) -> Iterator[GenerateConfig]:
    """A generation job into a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield load(GenerateConfig, [f"out={folder}/dataset", *words])
