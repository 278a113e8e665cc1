"""The generation job: a plan and a generator on a pool of workers. Here: its keys, the probe, the run, the dry run.

`generate` is the job. What a worker does with a unit is in `generation_worker`; how units reach workers and how the
dataset is sealed is in `dataset_job`.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Self

import ray

from synthfer import gates, generators, planning
from synthfer.cli import Command, Invocation, Outcome
from synthfer.engine.batch_size import record_batch_size
from synthfer.engine.cluster import ClusterResources, GpuWorkerConfig, session
from synthfer.engine.dataset_job import (
    JobStats,
    PoolConfig,
    WorkerPoolSpec,
    check_place,
    make_missing,
    seal,
    stored_unit_size,
    summary,
    unit_size,
)
from synthfer.engine.generation_worker import (
    EncodedSample,
    FaceFiles,
    FaceSource,
    GenerationWorker,
    WorkerSpec,
    generate_rows,
    read_faces,
)
from synthfer.engine.monitoring import Metrics
from synthfer.gates import GateChain
from synthfer.generators import Failure, OutOfMemory
from synthfer.images import ImageConfig
from synthfer.limits import MAX_THREADS, MAX_WAIT_S
from synthfer.planning import Plan
from synthfer.report.plan import print_plan, usage_text
from synthfer.sample import Row
from synthfer.schema import REQUIRED, Choice, option, registry_section, registry_sections, to_dict
from synthfer.store import Dataset, Spec, open_store
from synthfer.store.image_reader import ImageReader

log = logging.getLogger(__name__)

_PROBED_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class EngineConfig(PoolConfig, GpuWorkerConfig):
    """How the generation job uses the cluster; no picture depends on it."""

    encoder_threads: int = option(
        1, "threads of a worker that encode pictures beside the device", low=1, high=MAX_THREADS
    )
    max_failed_share: float = option(0.05, "stop when more than this share of rows fails", low=0, high=1)
    probe: bool = option(False, "with --dry-run: start the generator and measure, to estimate time and cost")
    probe_seconds: float = option(3.0, "how long a probe measures", low=0.1, high=MAX_WAIT_S)

    def settled(self, available: ClusterResources) -> Self:
        """The same with the number of workers and their GPUs filled in; `ConfigError` where it cannot be."""
        return replace(super().settled(available), gpus_per_worker=self.worker_resources.resolved(available).gpus)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """The generation job: what to make, by what, how to store it, on which machines."""

    out: str = option(REQUIRED, "the dataset: a folder or s3://bucket/prefix; the same one again resumes")
    plan: Any = registry_section(planning.names, planning.module, default="prompts", of="what rows are made from")
    generator: Any = registry_section(
        generators.names, generators.module, default="diffusion", of="what makes the pictures"
    )
    image: ImageConfig = field(default_factory=ImageConfig)
    gate: Any = registry_sections(gates.names, gates.module, of="what scores pictures and rejects some")
    engine: EngineConfig = field(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        takes = generators.plan_of(self.generator.name)
        if self.plan.name != takes:
            raise ValueError(f"plan.name={self.plan.name}: generator {self.generator.name} makes rows of plan {takes}")
        for gate in self.gate:
            if gates.needs_faces(gate.name) and not planning.has_faces(takes):
                raise ValueError(f"gate: {gate.name} compares pictures with faces, and rows of plan {takes} have none")

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """The kind of plan that the generator takes and the gates that are on by default, below what was given."""
        section = given.get("generator") or {}
        try:
            plan = generators.plan_of(section.get("name") or "diffusion")
            return {"plan": {"name": plan}, "gate": {name: {} for name in gates.defaults(planning.has_faces(plan))}}
        except (ValueError, ImportError, AttributeError):
            return {}  # the reader of the section reports the error

    def worker_spec(self, plan: Plan) -> WorkerSpec:
        """What a worker needs of it."""
        choice: Choice = self.generator
        return WorkerSpec(
            uri=self.out,
            generator=choice.name,
            options=choice.options,
            image=self.image,
            encoder_threads=self.engine.encoder_threads,
            faces=None if plan.faces is None else FaceSource.from_table(plan.faces),
            gates=self.gate,
        )

    def settled(self, available: ClusterResources) -> "GenerateConfig":
        """The same with the number of workers and their GPUs filled in; `ConfigError` where it cannot be."""
        return replace(self, engine=self.engine.settled(available))


def generate(config: GenerateConfig, invocation: Invocation) -> Outcome:
    """Makes what is missing of the dataset and seals it. The job of `jobs/generate.py`."""
    start = time.monotonic()
    check_place(config.out)
    plan = planning.build(config.plan)
    stats = JobStats(config.engine.max_failed_share)
    log_faces(plan)
    with session(config.engine) as available, Metrics("generate", config.out, config.engine.prices) as metrics:
        config = config.settled(available)
        dataset = open_dataset(config, plan)
        if dataset.manifest is None:
            make_missing(dataset, worker_pool(config, plan), stats, invocation, metrics)
    manifest = seal(dataset, stats)
    return Outcome(summary(dataset, manifest, stats, metrics.cost, time.monotonic() - start))


def worker_pool(config: GenerateConfig, plan: Plan) -> WorkerPoolSpec:
    """The workers of a settled config."""
    return WorkerPoolSpec(GenerationWorker, config.worker_spec(plan), config.engine)


def log_faces(plan: Plan) -> None:
    """Logs how often each face is used, for a plan of faces, and whether they are of real persons."""
    if faces := plan.summary(limit=0).get("faces"):
        log.info("%d faces of %d identities; %s", faces["faces"], faces["identities"], usage_text(faces["uses"]))
        if faces["of_real_persons"]:
            log.warning("the faces are of real persons: what is made from them does not preserve their privacy")


def open_dataset(config: GenerateConfig, plan: Plan) -> Dataset:
    """The dataset of this config, created or joined; another one at the same place is refused by the store."""
    size = config.plan.options.unit_size or stored_unit_size(config.out)
    probe = run_probe(config, plan, () if size else first_rows(plan))
    spec = Spec(
        plan=plan.spec(),
        producer=probe.producer,
        image=to_dict(config.image),
        rows=len(plan),
        unit_size=size or probe.unit_size(len(plan), config.engine.max_workers or 1),
    )
    dataset = Dataset.create(config.out, spec)
    if plan.faces is not None:
        plan.faces.write(dataset.store)
    requested = config.generator.options.batch_size
    if probe.batch_size != requested:
        log.warning("out of memory: batch size %d is halved to %d for the whole dataset", requested, probe.batch_size)
        record_batch_size(dataset.store, probe.batch_size, requested)
    return dataset


def preview(config: GenerateConfig, invocation: Invocation) -> Outcome:
    """What a run would make and, with `engine.probe=true`, how long it would take. The job's `--dry-run`."""
    plan = planning.build(config.plan)
    open_store(config.out)  # a place where no dataset can be is an error now
    facts: dict[str, Any] = {"out": config.out}
    if config.engine.probe:
        with session(config.engine) as available:
            config = config.settled(available)
            probe = run_probe(config, plan, first_rows(plan))
        workers, gpus = config.engine.max_workers or 1, config.engine.gpus_per_worker or 0.0
        size = config.plan.options.unit_size or probe.unit_size(len(plan), workers)
        units = {"unit_size": size, "units": -(-len(plan) // size), "workers": workers}
        facts |= units | probe.estimate(len(plan), workers, gpus)
    else:
        facts |= {"images": len(plan), "time and cost": "add engine.probe=true to start the generator and measure"}
    if invocation.json:
        return Outcome({**facts, "plan": plan.summary()})
    print_plan(plan.summary(), invocation.results)
    return Outcome(facts)


# -- the probe: the generator is started once, before the job, to learn what it is and how fast


@dataclass(frozen=True)
class Probe:
    """What a generator is and does on one worker; speed and size are None where nothing was measured."""

    producer: dict[str, Any]
    batch_size: int
    images_per_s: float | None = None
    image_bytes: float | None = None

    def unit_size(self, rows: int, workers: int) -> int:
        """Rows per unit for a job of so many rows and workers; needs a measured probe."""
        assert self.images_per_s
        return unit_size(rows, workers, self.batch_size, self.images_per_s, self.image_bytes)

    def estimate(self, rows: int, workers: int, gpus_per_worker: float) -> dict[str, float]:
        """Seconds, bytes and GPU-hours for `rows` images; needs a measured probe."""
        if not self.images_per_s or not self.image_bytes:
            raise ValueError("nothing was measured")
        seconds = rows / self.images_per_s
        return {
            "images": rows,
            "images_per_s_per_worker": round(self.images_per_s, 3),
            "seconds": round(seconds / workers, 1),
            "bytes": round(rows * self.image_bytes),
            "gpu_hours": round(seconds * gpus_per_worker / 3600, 4),
        }


def first_rows(plan: Plan) -> Sequence[Row]:
    """Rows to measure with."""
    return plan.rows(range(min(len(plan), _PROBED_ROWS)))


def run_probe(config: GenerateConfig, plan: Plan, rows: Sequence[Row]) -> Probe:
    """Starts the generator on a worker's resources and measures it with `rows`; without rows nothing is measured."""
    log.info("starting generator %s", config.generator.name)
    spec = config.worker_spec(plan)
    files = read_faces(plan, rows, ImageReader(spec.faces.uris if spec.faces else ()))
    task = ray.remote(measure).options(**config.engine.worker_resources.ray_options, max_retries=3)
    return ray.get(task.remote(spec, rows, files, config.engine.probe_seconds))


def measure(spec: WorkerSpec, rows: Sequence[Row], files: Sequence[FaceFiles], seconds: float) -> Probe:
    """Builds the generator and makes the first batch of `rows`, once to warm up, then again and again for `seconds`.

    `files` are those of the rows' faces, if they have any. Where the device runs out of memory, half of the batch is
    tried, once.
    """
    generator, chain = spec.build_generator(), GateChain(spec.gates)
    producer = spec.producer(generator, chain)
    if not rows:
        return Probe(producer, generator.batch_size)
    with ThreadPoolExecutor(spec.encoder_threads) as encoders:

        def make_batch() -> list[EncodedSample | Failure]:
            size = generator.batch_size
            futures = generate_rows(generator, rows[:size], spec.image, encoders, files[:size], chain)
            return [future.result() for future in futures]

        try:
            make_batch()
        except OutOfMemory:
            half = generator.batch_size // 2
            if not half:
                raise
            del generator
            generator = spec.build_generator(half)
            make_batch()
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds or not count:
            results = make_batch()
            count += len(results)
        speed = count / (time.perf_counter() - start)
    sizes = [len(result.image.data) for result in results if isinstance(result, EncodedSample)]
    return Probe(producer, generator.batch_size, speed, sum(sizes) / len(sizes) if sizes else None)


COMMAND = Command(
    GenerateConfig,
    generate,
    dry_run=preview,
    about="Makes a balanced dataset of generated faces and commits it shard by shard. Stopped or killed at any moment, "
    "the same command goes on where it was.",
    example="python jobs/generate.py out=s3://bucket/run plan.balance=rafdb generator.model=builtin:faces",
)
