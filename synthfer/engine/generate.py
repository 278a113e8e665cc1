"""The generation job: a plan and a generator on a pool of workers."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import ray

from synthfer import planning
from synthfer.cli import Command, Invocation, Outcome
from synthfer.config import to_dict
from synthfer.engine import probe as probing
from synthfer.engine.cluster import session
from synthfer.engine.dataset_job import make_missing, seal, summary
from synthfer.engine.generation_worker import GenerationWorker, files_of, record_batch_size
from synthfer.engine.monitoring import Metrics
from synthfer.engine.pool import WorkerPoolSpec
from synthfer.engine.settings import GenerateConfig
from synthfer.engine.tally import JobStats
from synthfer.planning import Plan
from synthfer.report.plan import print_plan, used
from synthfer.sample import Row
from synthfer.store import Dataset, Spec
from synthfer.store.image_reader import ImageReader

log = logging.getLogger(__name__)


def generate(config: GenerateConfig, invocation: Invocation) -> Outcome:
    """Makes what is missing of the dataset and seals it. The job of `jobs/generate.py`."""
    start = time.monotonic()
    plan = planning.build(config.plan)
    tally = JobStats(config.engine.max_failed_share)
    tell_faces(plan)
    with session(config.engine) as resources, Metrics("generate", config.out, config.engine.prices) as metrics:
        config = config.settled(resources)
        dataset = open_dataset(config, plan)
        if dataset.manifest is None:
            make_missing(dataset, crew(config, plan), tally, invocation, metrics)
    manifest = seal(dataset, tally)
    return Outcome(summary(dataset, manifest, tally, metrics.bill, time.monotonic() - start))


def crew(config: GenerateConfig, plan: Plan) -> WorkerPoolSpec:
    """The workers of a settled config."""
    return WorkerPoolSpec(GenerationWorker, config.recipe(plan), config.engine)


def tell_faces(plan: Plan) -> None:
    """Says how often each face is used, where the plan is one of faces."""
    if told := plan.summary(limit=0).get("faces"):
        log.info("%d faces of %d identities; %s", told["faces"], told["identities"], used(told["uses"]))
        if told["of_real_persons"]:
            log.warning("the faces are of real persons: what is made from them does not preserve their privacy")


def open_dataset(config: GenerateConfig, plan: Plan) -> Dataset:
    """The dataset of this config, created or joined; another one at the same place is refused by the store."""
    size = config.plan.options.unit_size or stored_unit_size(config.out)
    look = probe(config, plan, () if size else first_rows(plan))
    spec = Spec(
        plan=plan.spec(),
        producer=look.producer,
        image=to_dict(config.image),
        rows=len(plan),
        unit_size=size or probing.unit_size(look, len(plan), config.engine.max_workers or 1),
    )
    dataset = Dataset.create(config.out, spec)
    if plan.faces is not None:
        plan.faces.write(dataset.store)
    asked = config.generator.options.batch_size
    if look.batch_size != asked:
        log.warning("out of memory: batch size %d is halved to %d for the whole job", asked, look.batch_size)
        record_batch_size(dataset.store, look.batch_size, asked)
    return dataset


def stored_unit_size(uri: str) -> int | None:
    """The unit size that an earlier run chose for this dataset, or None where there is no dataset yet."""
    return Dataset.open(uri).spec.unit_size if Dataset.exists(uri) else None


def first_rows(plan: Plan) -> Sequence[Row]:
    """Rows to measure with."""
    return plan.rows(range(min(len(plan), 256)))


def probe(config: GenerateConfig, plan: Plan, rows: Sequence[Row]) -> probing.Probe:
    """The generator as a worker sees it: what it is and, where there are rows to try, its speed."""
    log.info("starting generator %s", config.generator.name)
    recipe = config.recipe(plan)
    files = files_of(plan, rows, ImageReader(recipe.faces.uris if recipe.faces else ()))
    look = ray.remote(probing.look).options(**config.engine.worker_resources.ray_options, max_retries=3)
    return ray.get(look.remote(recipe, rows, files, config.engine.probe_seconds))


def preview(config: GenerateConfig, invocation: Invocation) -> Outcome:
    """What a run would make and, with `engine.probe=true`, what it would take. The job's `--dry-run`."""
    plan = planning.build(config.plan)
    told: dict[str, Any] = {"out": config.out}
    if config.engine.probe:
        with session(config.engine) as resources:
            config = config.settled(resources)
            look = probe(config, plan, first_rows(plan))
        workers, gpus = config.engine.max_workers or 1, config.engine.gpus_per_worker or 0.0
        size = config.plan.options.unit_size or probing.unit_size(look, len(plan), workers)
        units = {"unit_size": size, "units": -(-len(plan) // size), "workers": workers}
        told |= units | look.estimate(len(plan), workers, gpus)
    else:
        told |= {"images": len(plan), "time and cost": "add engine.probe=true to start the generator and measure"}
    if invocation.json:
        return Outcome({**told, "plan": plan.summary()})
    print_plan(plan.summary(), invocation.results)
    return Outcome(told)


COMMAND = Command(
    GenerateConfig,
    generate,
    dry_run=preview,
    about="Makes a balanced dataset of generated faces and commits it shard by shard. Stopped or killed at any moment, "
    "the same command goes on where it was.",
    example="python jobs/generate.py out=s3://bucket/run plan.balance=rafdb generator.model=builtin:faces",
)
