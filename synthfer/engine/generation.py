"""The generation job: a plan on a pool of actors, every unit committed once, the dataset sealed at the end.

The driver holds no state: it lists what is missing, hands out unit numbers, and counts reports. Killed at any
moment, the same command finds the committed units and makes the others.
"""

import logging
import math
import random
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import ray
from ray.data import ActorPoolStrategy

from synthfer import generators, planning
from synthfer.canonical import canonical_json
from synthfer.cli import Invocation, Outcome, Stopped
from synthfer.config import REQUIRED, Choice, ConfigError, option, registry_section, to_dict
from synthfer.engine import probe as probing
from synthfer.engine.session import Resources, session
from synthfer.engine.worker import SHAPE_KEY, Recipe, Report, Worker
from synthfer.images import ImageConfig
from synthfer.planning import Plan, PlanConfig
from synthfer.progress import Meter
from synthfer.store import Counts, Dataset, Manifest, Receipt, Spec

log = logging.getLogger(__name__)

# Ray Data keeps every block of a job in the driver's books, about 5 ms each at the start.
MAX_BLOCKS = 4096
# A share of failures is judged once this many rows are there: the first few say little.
MIN_JUDGED_ROWS = 100
# Units that fail one after another, with none committed between them, mean that no unit will work.
MAX_ERRORS_IN_A_ROW = 3
# Units whose workers died at every try; more than this means that the cluster, not a unit, is at fault.
MAX_LOST_UNITS = 16


class TooManyFailures(RuntimeError):
    """More went wrong than the job may bear; what is committed stays."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How the job uses the cluster; no picture depends on it."""

    min_workers: int = option(1, "workers to start with; the pool grows while there is work", low=1)
    max_workers: int | None = option(
        None,
        "most workers at once (null: as many as the cluster's GPUs, or CPUs where there is none, allow)",
        low=1,
    )
    gpus_per_worker: float | None = option(
        None, "GPUs of one worker, may be a fraction (null: 1 where the cluster has GPUs, else 0)", low=0
    )
    cpus_per_worker: float = option(1.0, "CPUs of one worker; torch uses as many threads", low=0)
    accelerator_type: str | None = option(None, "kind of GPU to insist on, by Ray's name: H100, A100, L4 ...")
    encoder_threads: int = option(1, "threads of a worker that encode pictures beside the device", low=1)
    max_failed_share: float = option(0.05, "stop when more than this share of rows fails", low=0, high=1)
    max_unit_retries: int = option(10, "times a unit is tried again after its worker died", low=0)
    probe: bool = option(False, "with --dry-run: start the generator and measure, to estimate time and cost")
    probe_seconds: float = option(3.0, "how long a probe measures", low=0.1)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """The generation job: what to make, by what, how to store it, on which machines."""

    out: str = option(REQUIRED, "the dataset: a folder or s3://bucket/prefix; the same one again resumes")
    plan: PlanConfig = field(default_factory=PlanConfig)
    generator: Any = registry_section(
        generators.names, generators.module, default="diffusion", of="what makes the pictures"
    )
    image: ImageConfig = field(default_factory=ImageConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass
class Tally:
    """What the reports of this run add up to."""

    receipts: list[Receipt] = field(default_factory=list)
    rows: int = 0
    failed: int = 0
    errors_in_a_row: int = 0
    workers: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # first start, last end, busy

    def add(self, report: Report) -> None:
        for notice in report.notices:
            log.warning("%s", notice)
        if report.error:
            log.error("unit %d: %s", report.unit, report.error)
            self.errors_in_a_row += 1
            return
        self.errors_in_a_row = 0
        if report.receipt:
            self.receipts.append(report.receipt)
        if report.receipt and report.receipt.created:
            self.rows += report.receipt.rows
            self.failed += failed_rows(report.receipt.counts)
            self._time(report)

    def _time(self, report: Report) -> None:
        first, last, busy = self.workers.get(report.worker, (math.inf, 0.0, 0.0))
        spent = report.device_end - report.device_start
        times = (min(first, report.device_start), max(last, report.device_end), busy + spent)
        self.workers[report.worker] = times

    @property
    def device_busy(self) -> float | None:
        """Share of the time between its first and last picture that a worker's device was at work, 0..1."""
        span = sum(last - first for first, last, _ in self.workers.values())
        return sum(busy for *_, busy in self.workers.values()) / span if span else None


def failed_rows(counts: Counts) -> int:
    """Failed rows in counts by expression and decision."""
    return sum(decisions.get("failed", 0) for decisions in counts.values())


def generate(config: GenerateConfig, invocation: Invocation) -> Outcome:
    """Makes what is missing of the dataset and seals it. The job of `jobs/generate.py`."""
    start = time.monotonic()
    plan = planning.build(config.plan)
    with session() as resources:
        engine = settle(config.engine, resources)
        dataset = open_dataset(config, engine, plan)
        tally = Tally()
        if dataset.manifest is None:
            make_missing(dataset, config, engine, tally, invocation)
    manifest = dataset.manifest or seal(dataset, tally, config.engine.max_failed_share)
    seconds = time.monotonic() - start
    return Outcome(summary(dataset, manifest, tally, seconds))


def settle(config: EngineConfig, resources: Resources) -> EngineConfig:
    """The engine's open settings filled in from what the cluster has."""
    gpus = config.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if resources.gpus else 0.0
    room = resources.gpus / gpus if gpus else resources.cpus / max(config.cpus_per_worker, 0.01)
    most = config.max_workers or max(1, int(room))
    if config.min_workers > most:
        raise ConfigError(f"engine.min_workers: {config.min_workers} is more than the {most} that may run at once")
    if gpus > 1 and gpus != int(gpus):
        raise ConfigError(f"engine.gpus_per_worker: {gpus} is neither a whole number nor a part of one GPU")
    return EngineConfig(**{**asdict(config), "gpus_per_worker": gpus, "max_workers": most})


def recipe_of(config: GenerateConfig) -> Recipe:
    """What an actor needs of the config."""
    choice: Choice = config.generator
    return Recipe(config.out, choice.name, asdict(choice.options), config.image, config.engine.encoder_threads)


def open_dataset(config: GenerateConfig, engine: EngineConfig, plan: Plan) -> Dataset:
    """The dataset of this config, created or joined; another one at the same place is refused by the store."""
    size = config.plan.unit_size or stored_unit_size(config.out)
    rows = [] if size else plan.rows(range(min(len(plan), 256)))
    look = probe(config, engine, rows)
    size = size or probing.unit_size(look, len(plan), engine.max_workers or 1)
    spec = Spec(
        plan=plan.spec(),
        producer=look.producer,
        image=to_dict(config.image),
        rows=len(plan),
        unit_size=size,
    )
    dataset = Dataset.create(config.out, spec)
    asked = look.producer.get("batch_size", look.batch_size)
    if look.batch_size != asked:
        log.warning("out of memory: batch size %s is halved to %d for the whole job", asked, look.batch_size)
        dataset.store.put_new(SHAPE_KEY, canonical_json({"batch_size": look.batch_size, "asked": asked}))
    return dataset


def stored_unit_size(uri: str) -> int | None:
    """The unit size that an earlier run chose for this dataset, or None where there is no dataset yet."""
    try:
        return Dataset.open(uri).spec.unit_size
    except FileNotFoundError:
        return None


def probe(config: GenerateConfig, engine: EngineConfig, rows: list) -> probing.Probe:
    """The generator as a worker sees it: what it is and, where there are rows to try, its speed."""
    log.info("starting generator %s", config.generator.name)
    look = ray.remote(probing.look).options(**worker_resources(engine), max_retries=3)
    return ray.get(look.remote(recipe_of(config), rows, engine.probe_seconds))


def worker_resources(engine: EngineConfig) -> dict[str, Any]:
    """What Ray keeps free for one worker."""
    resources: dict[str, Any] = {"num_cpus": engine.cpus_per_worker, "num_gpus": engine.gpus_per_worker}
    if engine.accelerator_type:
        resources["accelerator_type"] = engine.accelerator_type
    return resources


def make_missing(
    dataset: Dataset, config: GenerateConfig, engine: EngineConfig, tally: Tally, invocation: Invocation
) -> None:
    """Makes and commits the missing units; raises `TooManyFailures`, or `Stopped` where units are left.

    A unit that kills its worker at every try takes down those that are in the same hands: what such a pass leaves is
    tried once more, one unit to a worker.
    """
    spec, missing = dataset.spec, dataset.missing()
    left = sum(len(spec.unit_rows(int(unit))) for unit in missing)
    log.info("%d of %d units to make, %d rows", len(missing), spec.units, left)
    with Meter("images", spec.rows, invocation.status, spec.rows - left) as meter:
        for overlap in (True, False):
            make_once(missing, overlap, spec, config, engine, tally, meter)
            missing = dataset.missing()
    if len(missing):
        what = f"{len(missing)} of {spec.units} units are left (unit {', '.join(map(str, missing[:8]))})"
        if not tally.receipts:
            raise TooManyFailures(f"no unit could be made: {what}; the errors above and Ray's logs say why.")
        raise Stopped(f"{what}: their workers died or gave them up. Run the same command again to try once more.")


def make_once(
    units: np.ndarray,
    overlap: bool,
    spec: Spec,
    config: GenerateConfig,
    engine: EngineConfig,
    tally: Tally,
    meter: Meter,
) -> None:
    """One pass over `units`. Those whose workers died stay missing."""
    try:
        for report in run_units(units, recipe_of(config), engine, overlap):
            tally.add(report)
            if not report.error:
                meter.add(*rows_of(report, spec))
            check(tally, config.engine.max_failed_share)
    except ray.exceptions.RayError as error:
        log.error("workers died at every try: %s", error)


def rows_of(report: Report, spec: Spec) -> tuple[int, int]:
    """Rows and failed rows that a report stands for."""
    if report.receipt:
        return report.receipt.rows, failed_rows(report.receipt.counts)
    return len(spec.unit_rows(report.unit)), 0


def run_units(units: np.ndarray, recipe: Recipe, engine: EngineConfig, overlap: bool = True) -> Iterator[Report]:
    """Reports of `units` as they are made, in any order. Leaving the loop ends the workers and drops what they hold.

    Ray Data feeds blocks of unit numbers that the driver puts there itself: a read task would wait for ever for a
    CPU that the actors hold. A dying worker's units are tried again elsewhere; a worker whose unit was committed
    meanwhile leaves it alone, so that a second driver costs little. To keep two drivers apart each starts anywhere.
    With `overlap` an actor has the next unit on its device while it uploads the last.
    """
    if not len(units):
        return
    units = np.roll(units, -random.SystemRandom().randrange(len(units)))
    blocks = min(len(units), MAX_BLOCKS)
    items = ray.data.from_items([{"unit": int(unit)} for unit in units], override_num_blocks=blocks)
    ray.data.DataContext.get_current().max_errored_blocks = MAX_LOST_UNITS
    pool = ActorPoolStrategy(
        min_size=min(engine.min_workers, len(units)),
        max_size=min(engine.max_workers or 1, len(units)),
        max_concurrent_calls_per_actor=2 if overlap else 1,
        max_tasks_in_flight_per_actor=None if overlap else 1,
        enable_true_multi_threading=True,
    )
    with warnings.catch_warnings():
        # The two retry arguments have no successor before Ray 2.64, which pyproject.toml keeps out.
        warnings.simplefilter("ignore", category=DeprecationWarning)
        reports = items.map_batches(
            Worker,
            fn_constructor_args=(recipe,),
            batch_size=1,
            compute=pool,
            max_restarts=-1,
            max_task_retries=engine.max_unit_retries,
            **worker_resources(engine),
        )
    for block in reports.iter_batches(batch_size=None, prefetch_batches=0):
        yield from map(Report.from_json, block["report"])


def check(tally: Tally, max_failed_share: float) -> None:
    """Ends a job that goes wrong too often."""
    if tally.errors_in_a_row >= MAX_ERRORS_IN_A_ROW:
        raise TooManyFailures(
            f"{tally.errors_in_a_row} units in a row could not be made; the errors above say why. What was committed "
            "stays: run the same command again when it is mended."
        )
    if tally.rows >= MIN_JUDGED_ROWS:
        judge(tally.failed, tally.rows, max_failed_share)


def judge(failed: int, rows: int, max_failed_share: float) -> None:
    """`TooManyFailures` where more than the share of rows failed."""
    if failed > max_failed_share * rows:
        raise TooManyFailures(
            f"{failed:,} of {rows:,} rows failed, more than engine.max_failed_share={max_failed_share:g}. The reasons "
            "stand in the committed shards (jobs/gallery.py shows them). Mend the cause, or raise the share to go on."
        )


def seal(dataset: Dataset, tally: Tally, max_failed_share: float) -> Manifest:
    """Seals the dataset, unless too much of it failed."""

    def approve(counts: Counts) -> None:
        judge(failed_rows(counts), dataset.spec.rows, max_failed_share)

    return dataset.seal(tally.receipts, approve=approve)


def summary(dataset: Dataset, manifest: Manifest, tally: Tally, seconds: float) -> dict[str, Any]:
    """What a person or a program wants to know at the end."""
    span = [t for times in tally.workers.values() for t in times[:2]]
    working = max(span) - min(span) if span else 0.0
    return {
        "uri": dataset.uri,
        "manifest_hash": manifest.manifest_hash,
        "rows": manifest.rows,
        "counts": manifest.counts,
        "made_now": tally.rows,
        "images_per_s": tally.rows / working if working else None,
        "device_busy": tally.device_busy,
        "seconds": seconds,
    }


def preview(config: GenerateConfig, invocation: Invocation) -> Outcome:
    """What a run would make and, with `engine.probe=true`, what it would take. The job's `--dry-run`."""
    plan = planning.build(config.plan)
    told: dict[str, Any] = {"out": config.out, "plan": plan.summary()}
    if config.engine.probe:
        with session() as resources:
            engine = settle(config.engine, resources)
            look = probe(config, engine, plan.rows(range(min(len(plan), 256))))
        workers = engine.max_workers or 1
        size = config.plan.unit_size or probing.unit_size(look, len(plan), workers)
        told |= {
            "unit_size": size,
            "units": -(-len(plan) // size),
            "workers": workers,
            "estimate": look.estimate(len(plan), workers, engine.gpus_per_worker or 0.0),
        }
    return Outcome(told)
