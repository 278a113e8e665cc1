"""The audit job: Ray tasks read and compare blocks of training and test data; pairs, verdicts and page are written."""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from synthfer.audit.audit import block_count, examine, open_splits, read_images
from synthfer.audit.config import AuditConfig
from synthfer.audit.result import AuditResult, clean_selection
from synthfer.audit.splits import AuditSplit, uris_of
from synthfer.audit.task_pool import SerialPool, TaskPool
from synthfer.cli import COMPLETE, FAILURE, Command, Invocation, Outcome
from synthfer.engine.cluster import NodeConfig, session, unwrap_ray_errors
from synthfer.engine.monitoring import Metrics, counting
from synthfer.guards.verdict import AUDIT_FILE, PAIRS_FILE
from synthfer.progress import Meter
from synthfer.report import audit as report
from synthfer.report.verdict import print_verdicts
from synthfer.schema import REQUIRED, option
from synthfer.store import ObjectStore, open_output, open_store
from synthfer.store.dataset_ref import open_ref
from synthfer.store.objects import replace_object
from synthfer.store.view import View

log = logging.getLogger(__name__)
T = TypeVar("T")

PAGE = "index.html"
# Calls queued for each CPU: enough to keep it busy, few enough to hold little memory.
_QUEUED_PER_CPU = 2


@dataclass(frozen=True, kw_only=True)
class AuditJob(AuditConfig):
    """The audit job: what is compared, and where the result goes."""

    out: str = option(REQUIRED, "folder or s3://bucket/prefix for pairs.parquet, audit.json and index.html; replaced")
    dedupe: bool = option(False, "write a view of the training data without the rows that fail")
    view: str | None = option(None, "where that view goes (null: view below out)")
    engine: NodeConfig = field(default_factory=NodeConfig)


class RayPool:
    """Calls as Ray tasks of one CPU each; handles are object references, so blocks never pass through the driver."""

    def __init__(self, cpus: int, nodes: NodeConfig) -> None:
        self.window, self.placement = _QUEUED_PER_CPU * max(1, cpus), nodes.placement

    def submit(self, function: Callable[..., Any], *arguments: Any) -> ray.ObjectRef:
        """Starts a task; its result stays in the object store."""
        return _task(function).options(**self.placement).remote(*arguments)

    def stream(self, handles: Sequence[ray.ObjectRef]) -> Iterable[Any]:
        """Fetches each result when the iteration reaches it, on the worker that iterates."""
        return _Stream(tuple(handles))

    def map(self, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """Results in order; a few tasks run ahead of the reader."""
        pending: deque[ray.ObjectRef] = deque()
        for arguments in calls:
            pending.append(self.submit(function, *arguments))
            if len(pending) >= self.window:
                yield ray.get(pending.popleft())
        while pending:
            yield ray.get(pending.popleft())


@dataclass(frozen=True)
class _Stream:
    """Results in the object store as an iterable that holds one of them at a time."""

    handles: tuple[ray.ObjectRef, ...]

    def __iter__(self) -> Iterator[Any]:
        return map(ray.get, self.handles)


@cache
def _task(function: Callable[..., Any]) -> Any:
    return ray.remote(function)


def run(config: AuditJob, invocation: Invocation) -> Outcome:
    """Audits, writes the three files, prints the verdicts. Exit code 1 where a guard fails."""
    store = open_output(config.out)
    if config.dedupe and config.view:
        open_output(config.view)
    with (
        session(config.engine) as resources,
        Metrics("audit", config.out, config.engine.prices) as metrics,
        unwrap_ray_errors(),
    ):
        pool = RayPool(resources.cpus, config.engine)
        splits = open_splits(config, pool)
        rows = {name: f"{len(split):,}" for name, split in splits.items()}
        log.info("comparing %s training rows with %s test rows", rows["train"], rows["test"])
        with Meter("blocks", block_count(splits["test"], config.test_block), invocation.status) as meter:
            metrics.progress = counting("blocks", meter)
            result = examine(config, splits, pool, meter.add)
        write(result, splits, store, pool)
    page = f"{store.uri}/{PAGE}"
    print_verdicts(result, page, invocation.results)
    summary: dict[str, Any] = {"page": page, "status": result.status, "pairs": result.pairs.num_rows}
    summary |= {"flagged": dict(result.flagged), **metrics.cost.summary()}
    if config.dedupe:
        view = dedupe(config, result)
        summary["view"] = view.uri
        log.info("%d training rows are left out of the view %s", view.selection.num_rows, view.uri)
    return Outcome(
        summary | (result.to_json() if invocation.json else {}), FAILURE if result.status == "fail" else COMPLETE
    )


def preview(config: AuditJob, _: Invocation) -> Outcome:
    """Opens training and test data and says what would be compared. The job's `--dry-run`."""
    store, splits = open_store(config.out), open_splits(config, SerialPool())
    return Outcome({name: split.describe() for name, split in splits.items()} | {"out": store.uri})


def write(result: AuditResult, splits: Mapping[str, AuditSplit], store: ObjectStore, pool: TaskPool) -> None:
    """Writes pairs, verdicts and page, each in place of an older one."""
    sink = pa.BufferOutputStream()
    pq.write_table(result.pairs, sink, compression="zstd")
    bodies: dict[str, Any] = {
        PAIRS_FILE: sink.getvalue(),
        AUDIT_FILE: json.dumps(result.to_json(), indent=1).encode(),
        PAGE: report.page(result, read_images(splits, report.shown(result), pool)).encode(),
    }
    for key, body in bodies.items():
        replace_object(store, key, body)


def dedupe(config: AuditJob, result: AuditResult) -> View:
    """The view of the training data without the rows that fail; what an earlier view left out stays out."""
    references = [open_ref(uri) for uri in uris_of(config.train)]
    selection = clean_selection(result.pairs)
    for named in references:
        if named.view:
            selection = View(named.view).narrowed(selection)
    producer = {"job": "audit", "sides": {name: dict(side) for name, side in result.sides.items()}}
    datasets = [dataset for named in references for dataset in named.datasets]
    return View.create(config.view or f"{config.out.rstrip('/')}/view", datasets, selection, producer)


COMMAND = Command(
    AuditJob,
    run,
    dry_run=preview,
    about="Looks for test samples in training data: shared lineage, identical pixels, perceptual and embedding "
    "duplicates, turned, cropped and mirrored copies; wrong class orders, conflicting labels, and scores that copies "
    "raise. Tests itself with planted copies, which it must find. Exit code 1 where a guard fails; the files are "
    "written all the same.",
    example="python jobs/audit.py train=out/synthetic,out/fer2013 test=out/fer2013 out=out/audit dedupe=true",
)
