"""The overhead of the generation job around its device, measured in one run with what it is compared with."""

import logging
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from synthfer import planning
from synthfer.benchmarks import generators
from synthfer.benchmarks.bare_loop import against_bare_loop, bare_rate, dataset_job, run
from synthfer.benchmarks.generators import NetworksConfig
from synthfer.cli import Invocation, Outcome
from synthfer.engine.cluster import session
from synthfer.engine.generate import GenerateConfig, open_dataset
from synthfer.engine.generation_worker import generate_rows, to_table
from synthfer.environment import describe_environment
from synthfer.generators import diffusion
from synthfer.limits import MAX_BATCH, MAX_KEPT, MAX_ROWS, MAX_UNIT_ROWS, MAX_WAIT_S
from synthfer.planning import prompts
from synthfer.schema import option
from synthfer.store import Dataset

log = logging.getLogger(__name__)

PACKAGES = ("ray", "torch", "diffusers", "transformers", "pyarrow", "numpy")
MAX_LINKS = 50_000  # ext4 allows 65,000 of one file
PARTS = ("pipeline", "busy", "plan", "resume", "naive", *generators.PARTS)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What to measure of generation, and how long."""

    parts: list[str] = option(list(PARTS), "what to measure", choices=PARTS)
    model: str = option("builtin:faces", "pipeline of the parts pipeline and naive")
    images: int = option(
        384, "images of the part pipeline: so many by the job, half before and half after it", low=32, high=1_000_000
    )
    naive_images: int = option(32, "images of the part naive", low=1, high=100_000)
    batch_size: int = option(16, "rows per device call", low=1, high=MAX_BATCH)
    unit_size: int = option(96, "rows per unit", low=1, high=MAX_UNIT_ROWS)
    batch_seconds: float = option(
        0.5, "service time of the simulated device of the part busy", low=0.01, high=MAX_WAIT_S
    )
    units_per_actor: int = option(12, "units of each simulated device", low=2, high=MAX_KEPT)
    committed: int = option(100_000, "units that are there before the part resume starts", low=1, high=1_000_000)
    plan_rows: int = option(10**8, "rows of the part plan", low=1, high=MAX_ROWS)
    networks: NetworksConfig = field(default_factory=NetworksConfig)


def generate(config: BenchmarkConfig, invocation: Invocation) -> Outcome:
    """Measure every part that is asked for; the result names the machine and versions."""
    measures: dict[str, Callable[[BenchmarkConfig, Invocation], dict[str, Any]]] = {
        "pipeline": job_against_bare_loop,
        "busy": device_busy,
        "plan": large_plan,
        "resume": resume,
        "naive": naive_loop,
    }
    for name in generators.PARTS:
        measures[name] = partial(_of_networks, name)
    results: dict[str, Any] = {"conditions": describe_environment(*PACKAGES)}
    for part in config.parts:
        log.info("measuring %s", part)
        results[part] = measures[part](config, invocation)
    return Outcome(results)


def _of_networks(part: str, config: BenchmarkConfig, invocation: Invocation) -> dict[str, Any]:
    return generators.measure(part, config.networks, invocation)


def job_against_bare_loop(config: BenchmarkConfig, invocation: Invocation) -> dict[str, Any]:
    """The job of the diffusion generator against a bare loop."""
    words = [
        f"generator.model={config.model}",
        f"generator.batch_size={config.batch_size}",
        f"plan.total={config.images}",
        f"plan.unit_size={config.unit_size}",
    ]
    return against_bare_loop(words, config.images, invocation)


def device_busy(config: BenchmarkConfig, invocation: Invocation) -> dict[str, Any]:
    """Busy share of simulated devices of known service time, one and eight of them, each with units of two batches."""
    results = {}
    for actors in (1, 8):
        rows = actors * config.units_per_actor * 2 * config.batch_size
        words = [
            "generator.name=simulated",
            f"generator.seconds_per_batch={config.batch_seconds}",
            f"generator.batch_size={config.batch_size}",
            f"plan.total={rows}",
            f"plan.unit_size={2 * config.batch_size}",
        ]
        with dataset_job(words) as job:
            stats = run(job, invocation, max_workers=actors, min_workers=actors, cpus_per_worker=0.1)
        limit = config.batch_size / config.batch_seconds * len(stats.workers)
        results[f"{actors}_actors"] = {
            "device_busy": round(stats.device_busy or 0.0, 4),
            "workers_seen": len(stats.workers),
            "of_the_devices_limit": round((stats.images_per_s or 0.0) / limit, 4),
        }
    return results


def large_plan(config: BenchmarkConfig, invocation: Invocation) -> dict[str, Any]:
    """Seconds and peak memory of building a plan, and rows/s of reading rows all over it."""
    start = time.perf_counter()
    plan = prompts.build(prompts.Config(total=config.plan_rows))
    created = time.perf_counter() - start
    indices = range(0, len(plan), max(1, len(plan) // 10_000))
    start = time.perf_counter()
    for index in indices:
        plan[index]
    seconds = time.perf_counter() - start
    tracemalloc.start()
    prompts.build(prompts.Config(total=config.plan_rows))[len(plan) - 1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "rows": len(plan),
        "creation_s": round(created, 4),
        "rows_read_per_s": round(len(indices) / seconds),
        "peak_mb": round(peak / 1e6, 2),
    }


def resume(config: BenchmarkConfig, invocation: Invocation) -> dict[str, Any]:
    """Seconds from the start of a session until the first new unit of a dataset that has many committed ones.

    The committed shards are hard links to one of them: a resume asks only whether they exist.
    """
    words = [
        "generator.name=simulated",
        "generator.seconds_per_batch=0",
        f"plan.total={config.committed + 4}",
        "plan.unit_size=1",
    ]
    with dataset_job(words) as job:
        with session() as resources:
            dataset = open_dataset(job.settled(resources), planning.build(job.plan))
        link_shards(dataset, job, config.committed)
        start = time.perf_counter()
        left = len(Dataset.open(job.out).missing())
        listing = time.perf_counter() - start
        started = time.time()
        stats = run(job, invocation)
        first = min(first for first, _, _ in stats.workers.values())
    return {
        "committed_units": config.committed,
        "units_left": left,
        "listing_s": round(listing, 3),
        "first_new_unit_s": round(first - started, 3),
    }


def link_shards(dataset: Dataset, job: GenerateConfig, units: int) -> None:
    """Generate one unit in `MAX_LINKS`, and make the units that follow it hard links to its shard."""
    plan = planning.build(job.plan)
    generator = job.worker_spec(plan).build_generator()
    folder = real = Path(dataset.uri)
    with ThreadPoolExecutor(1) as encoders:
        for unit in range(units):
            if unit % MAX_LINKS:
                os.link(real, folder / dataset.spec.key(unit))
                continue
            rows = plan.rows(dataset.spec.unit_rows(unit))
            results = [future.result() for future in generate_rows(generator, rows, job.image, encoders)]
            table = to_table(rows, results, source=job.generator.name, producer=dataset.spec.producer_id)
            dataset.commit(unit, table, {})
            real = folder / dataset.spec.key(unit)


def naive_loop(config: BenchmarkConfig, invocation: Invocation) -> dict[str, Any]:
    """Images/s of the usual script, one prompt at a time and every picture saved as PNG, and of the generator."""
    from synthfer.generators.diffusion import pipelines

    options = diffusion.Config(model=config.model, batch_size=config.batch_size)
    generator = diffusion.build(options)
    settings, plan = generator.producer(), prompts.build(prompts.Config(total=config.images))
    pipe = pipelines.load(options, generator.dtype).pipe
    pipe.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for row in plan.rows(range(config.naive_images)):
            picture = pipe(
                row.prompt,
                negative_prompt=row.negative_prompt,
                num_inference_steps=settings["steps"],
                guidance_scale=settings["guidance"],
                height=settings["height"],
                width=settings["width"],
                generator=torch.Generator().manual_seed(row.seed),
            ).images[0]
            picture.save(Path(folder) / f"{row.index}.png")
        naive = config.naive_images / (time.perf_counter() - start)
    ours = bare_rate(generator, plan, config.images // 2)
    return {"naive_images_per_s": round(naive, 3), "ours_images_per_s": round(ours, 3), "ratio": round(ours / naive, 3)}
