"""What every job that makes a dataset does: the missing units on a pool of workers, each committed once, and the seal.

The driver holds no state: it lists the missing units, hands their numbers to the workers through Ray Data, and counts
the reports that come back. A worker (`UnitWorker`) makes the rows of a unit and commits them as one shard; pictures
never pass through the driver. Killed at any moment, the same command finds the committed units and makes the others.
"""

import json
import logging
import math
import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data.exceptions import ExecutionTimeoutError

from synthfer.cli import Invocation, Stopped
from synthfer.engine.cluster import ClusterResources, WorkerConfig
from synthfer.engine.monitoring import CostMeter, GenerationProgress, Metrics
from synthfer.engine.preemption import PreemptionGuard
from synthfer.limits import MAX_RETRIES, MAX_WORKERS
from synthfer.progress import Meter
from synthfer.schema import ConfigError, option
from synthfer.store import Counts, Dataset, Manifest, Receipt, Spec, open_output

log = logging.getLogger(__name__)

# A unit should end within the notice that a spot node gets (30 s to 2 min), so that it is not lost.
UNIT_SECONDS = 20.0
UNIT_BYTES = 256e6
# Units per worker at least, so that the last ones to finish do not leave the others idle for long.
UNITS_PER_WORKER = 4
# Ray Data keeps every block of a job in the driver's memory and needs about 3 ms for each before the first unit starts.
MAX_BLOCKS = 4096
# Units whose workers died at every try; more than this means that the cluster, not a unit, is at fault.
MAX_LOST_UNITS = 16
# The share of failed rows is checked from this many rows on: the first few say little.
MIN_CHECKED_ROWS = 100
# Units that fail one after another, with none committed between them, mean that no unit will work.
MAX_CONSECUTIVE_ERRORS = 3


class TooManyFailures(RuntimeError):
    """More failed than the config allows; what is committed stays."""


@dataclass(frozen=True, kw_only=True)
class PoolConfig(WorkerConfig):
    """How many workers a job may use, and what each of them needs; no sample depends on it."""

    min_workers: int = option(
        1, "workers kept while there is little work; all that fit start at once", low=1, high=MAX_WORKERS
    )
    max_workers: int | None = option(
        None, "most workers at once (null: as many as the GPUs and CPUs have room for)", low=1, high=MAX_WORKERS
    )
    max_unit_retries: int = option(10, "times a unit is tried again after its worker died", low=0, high=MAX_RETRIES)

    def settled(self, available: ClusterResources) -> Self:
        """The same with the number of workers filled in, as many as there is room for; `ConfigError` if too few."""
        room = self.worker_resources.resolved(available).capacity(available)
        most = self.max_workers or max(1, int(room))
        if self.min_workers > most:
            raise ConfigError(f"engine.min_workers: {self.min_workers} is more than the {most} that may run at once")
        if room < 1:
            log.warning("no node has room for a worker yet: waiting until one has (engine.nodes=%s)", self.nodes)
        return replace(self, max_workers=most)


# -- the worker's side


@dataclass(frozen=True)
class UnitReport:
    """What a worker says of a unit: receipt (None: it was committed before) or error, device time, warnings to log.

    `device_start` and `device_end` are seconds since the epoch on the worker's clock.
    """

    unit: int
    worker: str
    receipt: Receipt | None = None
    error: str | None = None
    device_start: float = 0.0
    device_end: float = 0.0
    notices: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The form in which Ray Data carries it to the driver."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "UnitReport":
        """The inverse of `to_json`."""
        value = json.loads(text)
        receipt = value["receipt"] and Receipt(**value["receipt"])
        return cls(**value | {"receipt": receipt, "notices": tuple(value["notices"])})


class UnitWorker(ABC):
    """An actor that makes and commits units of one dataset. A unit that was committed meanwhile is left alone."""

    def __init__(self, uri: str) -> None:
        self.name = f"{ray.get_runtime_context().get_node_id()[:8]}/{ray.get_runtime_context().get_actor_id()}"
        self.dataset = Dataset.open(uri)
        self.preemption = PreemptionGuard()

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Called by Ray Data: a block of unit numbers in, a block of reports out."""
        return {"report": [self.make(int(unit)).to_json() for unit in block["unit"]]}

    def make(self, unit: int) -> UnitReport:
        """Makes one unit. An error becomes part of the report; the worker goes on with the next unit."""
        try:
            if self.dataset.is_committed(unit):
                return UnitReport(unit, self.name)
            return self._make(unit)
        except Exception as error:  # the driver decides what it means for the job
            log.exception("unit %d", unit)
            return UnitReport(unit, self.name, error=f"{type(error).__name__}: {error}", notices=self._take_notices())
        finally:
            self.preemption.done(unit)

    @abstractmethod
    def _make(self, unit: int) -> UnitReport:
        """Makes and commits a missing unit. Calls `preemption.begin(unit)` before the part that takes long."""

    def _take_notices(self) -> tuple[str, ...]:
        """Warnings for the driver since the last report."""
        return ()


# -- the driver's side


@dataclass
class JobStats:
    """What the reports of this run add up to: receipts, rows, failures, the devices' time.

    `units` is how many were committed meanwhile, by any driver; `rows`, `failed` and `rejected` count what this run
    made.
    """

    max_failed_share: float = 1.0
    receipts: list[Receipt] = field(default_factory=list)
    units: int = 0
    rows: int = 0
    failed: int = 0
    rejected: int = 0
    consecutive_errors: int = 0
    workers: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """name -> when its device first started, when it last ended (seconds since the epoch), seconds it was busy"""

    def add(self, report: UnitReport) -> None:
        """Counts a report; `TooManyFailures` where the job should end."""
        for notice in report.notices:
            log.warning("%s", notice)
        if report.error:
            log.error("unit %d: %s", report.unit, report.error)
        self.consecutive_errors = self.consecutive_errors + 1 if report.error else 0
        self.units += not report.error
        if report.receipt:
            self.receipts.append(report.receipt)
        if report.receipt and report.receipt.created:
            self.rows += report.receipt.rows
            self.failed += count_decided(report.receipt.counts, "failed")
            self.rejected += count_decided(report.receipt.counts, "rejected")
            first, last, busy = self.workers.get(report.worker, (math.inf, 0.0, 0.0))
            times = (min(first, report.device_start), max(last, report.device_end))
            self.workers[report.worker] = (*times, busy + report.device_end - report.device_start)
        if self.consecutive_errors >= MAX_CONSECUTIVE_ERRORS:
            raise TooManyFailures(
                f"{self.consecutive_errors} units in a row could not be made; the errors above say why. What was "
                "committed stays: fix the cause and run the same command again."
            )
        if self.rows >= MIN_CHECKED_ROWS:
            self.check_failed_share(self.failed, self.rows)

    def check_failed_share(self, failed: int, rows: int) -> None:
        """`TooManyFailures` where more than the configured share of rows failed."""
        if failed > self.max_failed_share * rows:
            raise TooManyFailures(
                f"{failed:,} of {rows:,} rows failed, more than engine.max_failed_share={self.max_failed_share:g}. "
                "The committed shards hold the reasons (jobs/gallery.py shows them). Fix the cause, or raise the "
                "share to go on."
            )

    @property
    def device_seconds(self) -> tuple[float, float]:
        """Seconds that the devices were at work, and between the first and last picture of each; summed over all."""
        workers = list(self.workers.values())  # a copy: the thread that sets the gauges reads while workers are added
        return sum(busy for *_, busy in workers), sum(last - first for first, last, _ in workers)

    @property
    def device_busy(self) -> float | None:
        """Share of the time between a worker's first and last picture that its device was at work, 0..1."""
        busy, span = self.device_seconds
        return busy / span if span else None

    @property
    def images_per_s(self) -> float | None:
        """Rows made per second between the first start and the last end of any device."""
        if not self.workers:
            return None
        starts, ends, _ = zip(*self.workers.values(), strict=True)
        return self.rows / (max(ends) - min(starts))


def count_decided(counts: Counts, decision: str) -> int:
    """Rows of one decision in counts by expression and decision."""
    return sum(decisions.get(decision, 0) for decisions in counts.values())


def unit_size(rows: int, workers: int, batch_size: int, images_per_s: float, image_bytes: float | None) -> int:
    """Rows per unit: at most `UNIT_SECONDS` of one worker and `UNIT_BYTES`, and several units for each worker."""
    limits = [UNIT_SECONDS * images_per_s, UNIT_BYTES / (image_bytes or 1.0), rows / (UNITS_PER_WORKER * workers)]
    batches = max(1, math.floor(min(limits) / batch_size))
    return min(rows, batches * batch_size)


def check_place(uri: str) -> None:
    """An error where no dataset can be written, before anything is started; a dataset that is there stays untouched."""
    if not Dataset.exists(uri):
        open_output(uri)


def stored_unit_size(uri: str) -> int | None:
    """The unit size that an earlier run chose for this dataset, or None where there is no dataset yet."""
    return Dataset.open(uri).spec.unit_size if Dataset.exists(uri) else None


@dataclass(frozen=True)
class WorkerPoolSpec:
    """Who makes units: a kind of worker, what its constructor takes, and how many of them the cluster may run."""

    worker: type[UnitWorker]
    worker_spec: Any
    engine: PoolConfig


def make_missing(
    dataset: Dataset, pool: WorkerPoolSpec, stats: JobStats, invocation: Invocation, metrics: Metrics
) -> None:
    """Makes and commits the missing units; raises `TooManyFailures`, or `Stopped` where units are left.

    A unit that kills its worker at every try also takes down the other units which that worker holds. So what the
    first pass leaves is tried once more, with one unit at a time for each worker.
    """
    spec, missing = dataset.spec, dataset.missing()
    rows_left = sum(len(spec.unit_rows(int(unit))) for unit in missing)
    log.info("%d of %d units to make, %d rows", len(missing), spec.units, rows_left)
    with Meter("images", spec.rows, invocation.status, spec.rows - rows_left) as meter:
        metrics.progress = GenerationProgress(meter, stats, spec, spec.units - len(missing))
        for overlap in (True, False):
            _make_once(missing, overlap, spec, pool, stats, meter)
            missing = dataset.missing()
    if len(missing):
        units = f"{len(missing)} of {spec.units} units are left (unit {', '.join(map(str, missing[:8]))})"
        if not stats.receipts:
            raise TooManyFailures(f"no unit could be made: {units}; the errors above and Ray's logs say why.")
        raise Stopped(
            f"{units}: their workers died or stopped too often, or no node had room for one. Run the same command "
            "again to go on."
        )


def _make_once(
    units: np.ndarray, overlap: bool, spec: Spec, pool: WorkerPoolSpec, stats: JobStats, meter: Meter
) -> None:
    """One pass over `units`. Those whose workers died stay missing."""
    try:
        for report in run_units(units, pool, overlap):
            stats.add(report)
            if report.receipt:
                meter.add(report.receipt.rows, count_decided(report.receipt.counts, "failed"))
            elif not report.error:
                meter.add(len(spec.unit_rows(report.unit)), 0)
    except ray.exceptions.RayError as error:
        log.error("workers died at every try: %s", error)
    except ExecutionTimeoutError as error:
        log.error("no unit ended for a long time: no node had room for a worker, or a worker hangs: %s", error)


def run_units(units: np.ndarray, pool: WorkerPoolSpec, overlap: bool = True) -> Iterator[UnitReport]:
    """Reports of `units` as they end, in any order. Leaving the loop ends the workers and drops the units they hold.

    Ray Data retries the units of a worker that died on another one, and a unit that was committed meanwhile is left
    alone, so a second driver on the same dataset costs little; each driver starts at a random unit so that two seldom
    make the same one. With `overlap` an actor has the next unit on its device while it uploads the last. `RayError`
    where workers cannot start or die too often.
    """
    if not len(units):
        return
    units = np.roll(units, -random.SystemRandom().randrange(len(units)))
    context = DataContext.get_current()
    context.max_errored_blocks = MAX_LOST_UNITS
    context.target_max_block_size = 1  # every report is sent at once, also where a block has many units
    # The driver creates the blocks itself: a read task would wait for ever for a CPU that the actors hold.
    items = ray.data.from_items(
        [{"unit": int(unit)} for unit in units], override_num_blocks=min(len(units), MAX_BLOCKS)
    )
    engine = pool.engine
    most = min(engine.max_workers or 1, len(units))
    actors = ActorPoolStrategy(
        min_size=min(engine.min_workers, most),
        max_size=most,
        initial_size=most,  # models load for minutes: all at once, not one after another
        max_concurrent_calls_per_actor=2 if overlap else 1,
        max_tasks_in_flight_per_actor=None if overlap else 1,
        enable_true_multi_threading=True,
    )
    with warnings.catch_warnings():
        # The two retry arguments have no successor before Ray 2.64, which pyproject.toml keeps out.
        warnings.simplefilter("ignore", category=DeprecationWarning)
        reports = items.map_batches(
            pool.worker,
            fn_constructor_args=(pool.worker_spec,),
            batch_size=1,
            compute=actors,
            max_restarts=-1,
            max_task_retries=engine.max_unit_retries,
            **engine.worker_resources.ray_options,
        )
    for block in reports.iter_batches(batch_size=None, prefetch_batches=0):
        yield from map(UnitReport.from_json, block["report"])


def seal(dataset: Dataset, stats: JobStats) -> Manifest:
    """Seals the dataset; `TooManyFailures` where too many of its rows failed."""

    def approve(counts: Counts) -> None:
        stats.check_failed_share(count_decided(counts, "failed"), dataset.spec.rows)

    return dataset.seal(stats.receipts, approve=approve)


def summary(dataset: Dataset, manifest: Manifest, stats: JobStats, cost: CostMeter, seconds: float) -> dict[str, Any]:
    """What a job prints at its end, for people and for programs."""
    speed = {"images_per_s": stats.images_per_s, "device_busy": stats.device_busy} if stats.rows else {}
    return {
        "uri": dataset.uri,
        "manifest_hash": manifest.manifest_hash,
        "rows": manifest.rows,
        "counts": manifest.counts,
        "made_now": stats.rows,
        **speed,
        **cost.summary(),
        "seconds": seconds,
    }
