"""What every job that makes a dataset does: the missing units on a pool of workers, each committed once, and the seal.

The driver holds no state: it lists what is missing, hands out unit numbers, and counts reports. Killed at any
moment, the same command finds the committed units and makes the others.
"""

import logging
from typing import Any

import numpy as np
import ray
from ray.data.exceptions import ExecutionTimeoutError

from synthfer.cli import Invocation, Stopped
from synthfer.engine.generation_worker import Report
from synthfer.engine.monitoring import CostMeter, GenerationProgress, Metrics
from synthfer.engine.pool import WorkerPoolSpec, run_units
from synthfer.engine.tally import JobStats, TooManyFailures, failed_rows
from synthfer.progress import Meter
from synthfer.store import Counts, Dataset, Manifest, Spec

log = logging.getLogger(__name__)


def make_missing(
    dataset: Dataset, crew: WorkerPoolSpec, tally: JobStats, invocation: Invocation, metrics: Metrics
) -> None:
    """Makes and commits the missing units; raises `TooManyFailures`, or `Stopped` where units are left.

    A unit that kills its worker at every try takes down those that are in the same hands: what such a pass leaves is
    tried once more, one unit to a worker.
    """
    spec, missing = dataset.spec, dataset.missing()
    left = sum(len(spec.unit_rows(int(unit))) for unit in missing)
    log.info("%d of %d units to make, %d rows", len(missing), spec.units, left)
    with Meter("images", spec.rows, invocation.status, spec.rows - left) as meter:
        metrics.progress = GenerationProgress(meter, tally, spec, spec.units - len(missing))
        for overlap in (True, False):
            make_once(missing, overlap, spec, crew, tally, meter)
            missing = dataset.missing()
    if len(missing):
        what = f"{len(missing)} of {spec.units} units are left (unit {', '.join(map(str, missing[:8]))})"
        if not tally.receipts:
            raise TooManyFailures(f"no unit could be made: {what}; the errors above and Ray's logs say why.")
        raise Stopped(f"{what}: workers died, gave them up or had no node. Run the same command again to go on.")


def make_once(
    units: np.ndarray, overlap: bool, spec: Spec, crew: WorkerPoolSpec, tally: JobStats, meter: Meter
) -> None:
    """One pass over `units`. Those whose workers died stay missing."""
    try:
        for report in run_units(units, crew, overlap):
            tally.add(report)
            if not report.error:
                meter.add(*rows_of(report, spec))
    except ray.exceptions.RayError as error:
        log.error("workers died at every try: %s", error)
    except ExecutionTimeoutError as error:
        log.error("nothing was made for long: no node had room for a worker, or a worker hangs: %s", error)


def rows_of(report: Report, spec: Spec) -> tuple[int, int]:
    """Rows and failed rows that a report stands for."""
    if report.receipt:
        return report.receipt.rows, failed_rows(report.receipt.counts)
    return len(spec.unit_rows(report.unit)), 0


def seal(dataset: Dataset, tally: JobStats) -> Manifest:
    """Seals the dataset, unless too much of it failed."""

    def approve(counts: Counts) -> None:
        tally.judge(failed_rows(counts), dataset.spec.rows)

    return dataset.seal(tally.receipts, approve=approve)


def summary(dataset: Dataset, manifest: Manifest, tally: JobStats, bill: CostMeter, seconds: float) -> dict[str, Any]:
    """What a person or a program wants to know at the end."""
    made = {"images_per_s": tally.images_per_s, "device_busy": tally.device_busy} if tally.rows else {}
    return {
        "uri": dataset.uri,
        "manifest_hash": manifest.manifest_hash,
        "rows": manifest.rows,
        "counts": manifest.counts,
        "made_now": tally.rows,
        **made,
        **bill.summary(),
        "seconds": seconds,
    }
