"""The generation job: a plan on a pool of workers, every unit committed once, the dataset sealed at the end.

The driver holds no state: it lists what is missing, hands out unit numbers, and counts reports. Killed at any
moment, the same command finds the committed units and makes the others.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray

from synthfer import planning
from synthfer.cli import Invocation, Outcome, Stopped
from synthfer.config import to_dict
from synthfer.engine import probe as probing
from synthfer.engine.pool import run_units
from synthfer.engine.session import session
from synthfer.engine.settings import GenerateConfig
from synthfer.engine.tally import Tally, TooManyFailures, failed_rows
from synthfer.engine.worker import Report, record_batch_size
from synthfer.planning import Plan
from synthfer.progress import Meter
from synthfer.report.plan import print_plan
from synthfer.sample import Row
from synthfer.store import Counts, Dataset, Manifest, Spec

log = logging.getLogger(__name__)


def generate(config: GenerateConfig, invocation: Invocation) -> Outcome:
    """Makes what is missing of the dataset and seals it. The job of `jobs/generate.py`."""
    start = time.monotonic()
    plan = planning.build(config.plan)
    tally = Tally(config.engine.max_failed_share)
    with session() as resources:
        config = config.settled(resources)
        dataset = open_dataset(config, plan)
        if dataset.manifest is None:
            make_missing(dataset, config, tally, invocation)
    manifest = seal(dataset, tally)
    return Outcome(summary(dataset, manifest, tally, time.monotonic() - start))


def open_dataset(config: GenerateConfig, plan: Plan) -> Dataset:
    """The dataset of this config, created or joined; another one at the same place is refused by the store."""
    size = config.plan.unit_size or stored_unit_size(config.out)
    look = probe(config, () if size else first_rows(plan))
    spec = Spec(
        plan=plan.spec(),
        producer=look.producer,
        image=to_dict(config.image),
        rows=len(plan),
        unit_size=size or probing.unit_size(look, len(plan), config.engine.max_workers or 1),
    )
    dataset = Dataset.create(config.out, spec)
    asked = config.recipe.options["batch_size"]
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


def probe(config: GenerateConfig, rows: Sequence[Row]) -> probing.Probe:
    """The generator as a worker sees it: what it is and, where there are rows to try, its speed."""
    log.info("starting generator %s", config.generator.name)
    look = ray.remote(probing.look).options(**config.engine.worker_resources, max_retries=3)
    return ray.get(look.remote(config.recipe, rows, config.engine.probe_seconds))


def make_missing(dataset: Dataset, config: GenerateConfig, tally: Tally, invocation: Invocation) -> None:
    """Makes and commits the missing units; raises `TooManyFailures`, or `Stopped` where units are left.

    A unit that kills its worker at every try takes down those that are in the same hands: what such a pass leaves is
    tried once more, one unit to a worker.
    """
    spec, missing = dataset.spec, dataset.missing()
    left = sum(len(spec.unit_rows(int(unit))) for unit in missing)
    log.info("%d of %d units to make, %d rows", len(missing), spec.units, left)
    with Meter("images", spec.rows, invocation.status, spec.rows - left) as meter:
        for overlap in (True, False):
            make_once(missing, overlap, spec, config, tally, meter)
            missing = dataset.missing()
    if len(missing):
        what = f"{len(missing)} of {spec.units} units are left (unit {', '.join(map(str, missing[:8]))})"
        if not tally.receipts:
            raise TooManyFailures(f"no unit could be made: {what}; the errors above and Ray's logs say why.")
        raise Stopped(f"{what}: their workers died or gave them up. Run the same command again to try once more.")


def make_once(units: np.ndarray, overlap: bool, spec: Spec, config: GenerateConfig, tally: Tally, meter: Meter) -> None:
    """One pass over `units`. Those whose workers died stay missing."""
    try:
        for report in run_units(units, config, overlap):
            tally.add(report)
            if not report.error:
                meter.add(*rows_of(report, spec))
    except ray.exceptions.RayError as error:
        log.error("workers died at every try: %s", error)


def rows_of(report: Report, spec: Spec) -> tuple[int, int]:
    """Rows and failed rows that a report stands for."""
    if report.receipt:
        return report.receipt.rows, failed_rows(report.receipt.counts)
    return len(spec.unit_rows(report.unit)), 0


def seal(dataset: Dataset, tally: Tally) -> Manifest:
    """Seals the dataset, unless too much of it failed."""

    def approve(counts: Counts) -> None:
        tally.judge(failed_rows(counts), dataset.spec.rows)

    return dataset.seal(tally.receipts, approve=approve)


def summary(dataset: Dataset, manifest: Manifest, tally: Tally, seconds: float) -> dict[str, Any]:
    """What a person or a program wants to know at the end."""
    made = {"images_per_s": tally.images_per_s, "device_busy": tally.device_busy} if tally.rows else {}
    return {
        "uri": dataset.uri,
        "manifest_hash": manifest.manifest_hash,
        "rows": manifest.rows,
        "counts": manifest.counts,
        "made_now": tally.rows,
        **made,
        "seconds": seconds,
    }


def preview(config: GenerateConfig, invocation: Invocation) -> Outcome:
    """What a run would make and, with `engine.probe=true`, what it would take. The job's `--dry-run`."""
    plan = planning.build(config.plan)
    told: dict[str, Any] = {"out": config.out}
    if config.engine.probe:
        with session() as resources:
            config = config.settled(resources)
            look = probe(config, first_rows(plan))
        workers, gpus = config.engine.max_workers or 1, config.engine.gpus_per_worker or 0.0
        size = config.plan.unit_size or probing.unit_size(look, len(plan), workers)
        units = {"unit_size": size, "units": -(-len(plan) // size), "workers": workers}
        told |= units | look.estimate(len(plan), workers, gpus)
    else:
        told |= {"images": len(plan), "time and cost": "add engine.probe=true to start the generator and measure"}
    if invocation.json:
        return Outcome({**told, "plan": plan.summary()})
    print_plan(plan.summary(), invocation.results)
    return Outcome(told)
