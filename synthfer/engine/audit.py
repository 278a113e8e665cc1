"""The audit job: blocks of both sides read and compared by Ray tasks; pairs, verdict and page written at the end."""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from synthfer.cli import COMPLETE, FAILURE, Command, Invocation, Outcome
from synthfer.config import REQUIRED, option
from synthfer.engine.cluster import NodeConfig, session
from synthfer.engine.monitoring import Metrics, counting
from synthfer.evaluation.audit import AuditConfig, blocks_of, examine, left_out, open_sides, pictures, uris_of
from synthfer.evaluation.pool import Pool, Serial
from synthfer.evaluation.sides import AuditSplit
from synthfer.evaluation.verdict import Audit
from synthfer.progress import Meter
from synthfer.report import audit as report
from synthfer.report.verdict import print_verdicts
from synthfer.store import ObjectStore, open_store
from synthfer.store.dataset_ref import open_ref
from synthfer.store.objects import replace_object
from synthfer.store.view import View

log = logging.getLogger(__name__)
T = TypeVar("T")

PAIRS, VERDICT, PAGE = "pairs.parquet", "audit.json", "index.html"
# Calls that wait for each CPU: enough to keep it busy, few enough to hold little.
_AHEAD = 2


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
        self.window, self.placement = _AHEAD * max(1, cpus), nodes.placement

    def start(self, function: Callable[..., Any], *arguments: Any) -> ray.ObjectRef:
        """Begins a task; its result stays in the object store."""
        return _task(function).options(**self.placement).remote(*arguments)

    def one_by_one(self, handles: Sequence[ray.ObjectRef]) -> Iterable[Any]:
        """Fetches each result when it is reached, on the worker that iterates."""
        return Fetched(tuple(handles))

    def map(self, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """Results in order, with a few tasks running ahead of the reader."""
        pending: deque[ray.ObjectRef] = deque()
        for arguments in calls:
            pending.append(self.start(function, *arguments))
            if len(pending) >= self.window:
                yield ray.get(pending.popleft())
        while pending:
            yield ray.get(pending.popleft())


@dataclass(frozen=True)
class Fetched:
    """Results in the object store as an iterable that holds one of them at a time."""

    handles: tuple[ray.ObjectRef, ...]

    def __iter__(self) -> Iterator[Any]:
        return map(ray.get, self.handles)


@cache
def _task(function: Callable[..., Any]) -> Any:
    return ray.remote(function)


def run(config: AuditJob, invocation: Invocation) -> Outcome:
    """Audits, writes the three files, prints the verdicts. Exit code 1 where a guard fails."""
    store = open_store(config.out)
    with (
        session(config.engine) as resources,
        Metrics("audit", config.out, config.engine.prices) as metrics,
        unwrap_ray_errors(),
    ):
        pool = RayPool(resources.cpus, config.engine)
        sides = open_sides(config, pool)
        rows = {name: f"{len(side):,}" for name, side in sides.items()}
        log.info("comparing %s training rows with %s test rows", rows["train"], rows["test"])
        with Meter("blocks", blocks_of(sides["test"], config.test_block), invocation.status) as meter:
            metrics.progress = counting("blocks", meter)
            result = examine(config, sides, pool, meter.add)
        write(result, sides, store, pool)
    page = f"{store.uri}/{PAGE}"
    print_verdicts(result, page, invocation.results)
    told: dict[str, Any] = {"page": page, "status": result.status, "pairs": result.pairs.num_rows}
    told |= {"flagged": dict(result.flagged), **metrics.bill.summary()}
    if config.dedupe:
        view = dedupe(config, result)
        told["view"] = view.uri
        log.info("%d training rows are left out of the view %s", view.selection.num_rows, view.uri)
    return Outcome(
        told | (result.to_json() if invocation.json else {}), FAILURE if result.status == "fail" else COMPLETE
    )


def preview(config: AuditJob, _: Invocation) -> Outcome:
    """Opens both sides and says what would be compared. The job's `--dry-run`."""
    store, sides = open_store(config.out), open_sides(config, Serial())
    return Outcome({name: side.describe() for name, side in sides.items()} | {"out": store.uri})


@contextmanager
def unwrap_ray_errors() -> Iterator[None]:
    """An error inside a task comes out as what it was there, however many tasks it went through."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause: Exception = error
        while isinstance(cause, ray.exceptions.RayTaskError):
            cause = cause.cause
        raise cause from None


def write(result: Audit, sides: Mapping[str, AuditSplit], store: ObjectStore, pool: Pool) -> None:
    """Puts pairs, verdict and page, each in place of an older one."""
    sink = pa.BufferOutputStream()
    pq.write_table(result.pairs, sink, compression="zstd")
    bodies: dict[str, Any] = {
        PAIRS: sink.getvalue(),
        VERDICT: json.dumps(result.to_json(), indent=1).encode(),
        PAGE: report.page(result, pictures(sides, report.shown(result), pool)).encode(),
    }
    for key, body in bodies.items():
        replace_object(store, key, body)


def dedupe(config: AuditJob, result: Audit) -> View:
    """The view of the training data without the rows that fail; what an older view left out stays out."""
    origins = [open_ref(uri) for uri in uris_of(config.train)]
    selection = left_out(result.pairs)
    for named in origins:
        if named.view:
            selection = View(named.view).narrowed(selection)
    made_by = {"job": "audit", "sides": {name: dict(side) for name, side in result.sides.items()}}
    datasets = [dataset for named in origins for dataset in named.datasets]
    return View.create(config.view or f"{config.out.rstrip('/')}/view", datasets, selection, made_by)


COMMAND = Command(
    AuditJob,
    run,
    dry_run=preview,
    about="Looks for test samples in training data: shared lineage, identical pixels, perceptual and embedding "
    "duplicates, turned, cropped and mirrored copies; wrong class orders, conflicting labels, and scores that copies "
    "carry. Plants copies of its own and must find them. Exit code 1 where a guard fails; the files are written all "
    "the same.",
    example="python jobs/audit.py train=out/synthetic,out/fer2013 test=out/fer2013 out=out/audit dedupe=true",
)
