"""The evaluation job: every classifier on every test set, on Ray actors; the matrix, its tables and its page.

An actor holds all classifiers and decodes each picture once. The driver concatenates the predictions in the order of
the rows, so that no score depends on the number of actors.
"""

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import torch

from synthfer import classifiers
from synthfer.classifiers.checkpoints import collect
from synthfer.cli import Command, Invocation, Outcome
from synthfer.engine.cluster import ClusterResources, GpuWorkerConfig, session, unwrap_ray_errors
from synthfer.engine.monitoring import Metrics, counting
from synthfer.engine.preemption import PreemptionGuard
from synthfer.evaluation.contamination import Audits, read_audits
from synthfer.evaluation.inputs import VARIANTS, MatrixConfig, Predictions, TestSet
from synthfer.evaluation.matrix import matrix
from synthfer.evaluation.naming import NamedCheckpoint, name_checkpoints, shortest_names
from synthfer.evaluation.scoring import Scored, Scorer
from synthfer.limits import MAX_BATCH, MAX_RETRIES, MAX_WORKERS
from synthfer.progress import Meter
from synthfer.report import matrix as tables
from synthfer.report.matrix_page import page
from synthfer.report.plot import svg
from synthfer.sample import SPLITS
from synthfer.schema import REQUIRED, ConfigError, option
from synthfer.store import ObjectStore, open_output, open_store
from synthfer.store.dataset_ref import DatasetRef, UnitRange, open_ref, unit_ranges
from synthfer.store.objects import replace_object
from synthfer.suggest import nearest

log = logging.getLogger(__name__)

MATRIX, ANSWERS, PAGE = "matrix.json", "answers.parquet", "index.html"


@dataclass(frozen=True, kw_only=True)
class ScoringPool(GpuWorkerConfig):
    """How many workers score at once, and what each of them needs; no score depends on it."""

    max_workers: int | None = option(
        None, "most workers at once (null: as many as the GPUs and CPUs have room for)", low=1, high=MAX_WORKERS
    )
    max_unit_retries: int = option(10, "times a block is scored again after its worker died", low=0, high=MAX_RETRIES)


@dataclass(frozen=True, kw_only=True)
class EvaluateJob(MatrixConfig):
    """The evaluation job: which checkpoints on which test sets, and where the matrix goes."""

    checkpoints: list[str] = option(REQUIRED, "files, or folders and prefixes with all results of jobs/train.py")
    datasets: list[str] = option(
        REQUIRED, "test data: datasets or views; out/drawn#train is that split of it, out/faces#val+test these two"
    )
    out: str = option(REQUIRED, "folder or s3://bucket/prefix for the matrix, its tables and its page; replaced")
    splits: list[str] = option(["test"], "splits of a dataset that names none", choices=SPLITS)
    variants: list[str] = option(
        list(VARIANTS), "how pictures are shown: as they are, or grey and 48 x 48 pixels", choices=VARIANTS
    )
    audits: list[str] = option([], "folders of jobs/audit.py: test rows with a copy in training data are flagged")
    modules: list[str] = option([], "classifiers of your own, as my_package.my_classifier, that cards may name")
    batch: int = option(64, "pictures that go through a network at once", low=1, high=MAX_BATCH)
    block: int = option(1024, "rows that a worker takes at once", low=1, high=MAX_BATCH)
    engine: ScoringPool = field(default_factory=ScoringPool)


@dataclass(frozen=True)
class TestData:
    """Test data that was opened, under its name in the matrix."""

    name: str
    reference: DatasetRef
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Opened:
    """All that the job reads."""

    checkpoints: Sequence[NamedCheckpoint]
    tests: Sequence[TestData]
    audits: Audits


def evaluate(config: EvaluateJob, invocation: Invocation) -> Outcome:
    """Scores, writes the matrix, prints it. The job of `jobs/evaluate.py`."""
    start = time.monotonic()
    job = open_inputs(config)
    store = open_output(config.out)
    with (
        session(config.engine) as resources,
        Metrics("evaluate", config.out, config.engine.prices) as metrics,
        unwrap_ray_errors(),
    ):
        tests, predictions = score(config, job, resources, invocation, metrics)
    result = matrix([one.candidate for one in job.checkpoints], tests, predictions, config, job.audits)
    write(result, tests, predictions, store)
    tables.print_matrix(result, invocation.results)
    summary = {
        "page": f"{store.uri}/{PAGE}",
        "checkpoints": len(job.checkpoints),
        "test_sets": len(tests),
        "seconds": time.monotonic() - start,
        **metrics.cost.summary(),
    }
    return Outcome(summary | (result if invocation.json else {}))


def preview(config: EvaluateJob, invocation: Invocation) -> Outcome:
    """Opens everything and says what would be scored. The job's `--dry-run`."""
    job = open_inputs(config)
    candidates = [one.candidate for one in job.checkpoints]
    trained_on = {one.name: ", ".join(one.trained_on) or "not declared" for one in candidates}
    datasets = {test.name: f"{test.reference.uri}, {' and '.join(test.splits)}" for test in job.tests}
    return Outcome({"trained_on": trained_on, "datasets": datasets, "out": open_store(config.out).uri})


def open_inputs(config: EvaluateJob) -> Opened:
    """All that the job reads, checked before any work starts."""
    if not (config.checkpoints and config.datasets and config.variants):
        raise ConfigError("checkpoints, datasets and variants: name at least one of each")
    for name in config.modules:
        classifiers.module(name)
    opened = [one for uri in config.checkpoints for one in collect(uri, config.modules)]
    for checkpoint in opened:
        checkpoint.check()
    checkpoints = name_checkpoints(list({one.uri: one for one in opened}.values()))
    recipes = list(dict.fromkeys(one.candidate.recipe for one in checkpoints))
    if config.baseline not in (None, *recipes):
        hint = nearest(str(config.baseline), recipes)
        raise ConfigError(f"baseline={config.baseline}: no such recipe{hint} There are {', '.join(recipes)}.")
    tests = [open_test(text, config.splits) for text in config.datasets]
    names = shortest_names([test.reference.uri for test in tests])
    named = [replace(test, name=name) for test, name in zip(tests, names, strict=True)]
    return Opened(checkpoints, named, read_audits(config.audits))


def open_test(text: str, splits: Sequence[str]) -> TestData:
    """Test data from `URI` or `URI#split+split`; `ConfigError` for an unknown split, or where there is no row of it."""
    uri, _, own = text.partition("#")
    wanted = tuple(own.split("+")) if own else tuple(splits)
    if unknown := [split for split in wanted if split not in SPLITS]:
        raise ConfigError(f"datasets: {text}: {unknown[0]!r} is not a split; splits are {', '.join(SPLITS)}")
    reference = open_ref(uri)
    available = labelled_splits(reference)
    if available.isdisjoint(wanted):
        others = ", ".join(sorted(available))
        raise ConfigError(
            f"datasets: no accepted labelled row of split {' or '.join(wanted)} in {reference.uri}; "
            + (f"there are rows of {others}: write {uri}#{min(available)}" if available else "leave it out")
        )
    return TestData("", reference, wanted)


def labelled_splits(reference: DatasetRef) -> set[str]:
    """The splits that test data has accepted labelled rows of."""
    rows = pa.concat_tables(part.rows(["label", "split"], SPLITS) for part in unit_ranges([reference], sys.maxsize))
    return set(rows.filter(pc.is_valid(rows["label"]))["split"].unique().to_pylist())


def score(
    config: EvaluateJob, job: Opened, resources: ClusterResources, invocation: Invocation, metrics: Metrics
) -> tuple[list[TestSet], Predictions]:
    """Every test set with all predictions, (checkpoint, test set, variant) to probabilities float32 (n, K)."""
    pieces = [(test, part) for test in job.tests for part in unit_ranges([test.reference], config.block)]
    checkpoints = ray.put({one.candidate.name: one.checkpoint.without_fingerprint for one in job.checkpoints})
    # In a list the reference reaches the actor as it is, which then fetches the checkpoints once, not for each call.
    calls = [([checkpoints], part, test.splits) for test, part in pieces]
    scored: dict[str, list[Scored]] = {test.name: [] for test in job.tests}
    with Meter("blocks", len(pieces), invocation.status) as meter:
        metrics.progress = counting("blocks", meter)
        results = ordered_actor_map(start_workers(config, resources, len(pieces)), calls)
        for (test, _), result in zip(pieces, results, strict=True):
            if result.facts.num_rows:
                scored[test.name].append(result)
            meter.add(1)
    tests = [as_test_set(test, scored[test.name]) for test in job.tests]
    predictions = {
        (checkpoint, name, variant): np.concatenate([part.probs[checkpoint, variant] for part in parts])
        for name, parts in scored.items()
        for checkpoint, variant in parts[0].probs
    }
    return tests, predictions


def as_test_set(test: TestData, parts: Sequence[Scored]) -> TestSet:
    """The rows of test data as a column of the matrix."""
    facts = pa.concat_tables(part.facts for part in parts)
    return TestSet(name=test.name, uri=test.reference.uri, hash=test.reference.hash, splits=test.splits, facts=facts)


def start_workers(config: EvaluateJob, resources: ClusterResources, most: int) -> list[Any]:
    """The actors, some of which may have to wait until a growing cluster has room for them."""
    engine = config.engine
    each = engine.worker_resources.resolved(resources)
    room = int(each.capacity(resources))
    number = min(engine.max_workers or max(1, room), most)
    if number > room:
        waiting = "the others wait" if room else "they wait until it has more"
        log.warning("%d workers of %g CPUs and %g GPUs are asked for, the cluster has room for %d: %s",
                    number, each.cpus, each.gpus, room, waiting)  # fmt: skip
    actor = ray.remote(ScoringWorker).options(
        max_restarts=-1, max_task_retries=engine.max_unit_retries, **each.ray_options
    )
    return [actor.remote(config.variants, config.batch, each.cpus) for _ in range(number)]


def ordered_actor_map(workers: Sequence[Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Scored]:
    """`worker.score(*call)` for each call, results in order.

    A call goes to a worker that is up and idle, so that workers that still wait for room delay no call.
    """
    queue, results = deque(enumerate(calls)), dict[int, ray.ObjectRef]()
    busy: dict[ray.ObjectRef, tuple[Any, int | None]] = {worker.up.remote(): (worker, None) for worker in workers}
    for number in range(len(calls)):
        while number not in results:
            (done,), _ = ray.wait(list(busy), num_returns=1)
            worker, finished = busy.pop(done)
            if finished is None:
                ray.get(done)  # raises where the worker could not be built
            else:
                results[finished] = done
            if queue:
                following, arguments = queue.popleft()
                busy[worker.score.remote(*arguments)] = (worker, following)
            else:
                ray.kill(worker)  # its resources may be what a restarted worker waits for
        yield ray.get(results.pop(number))


class ScoringWorker:
    """An actor with all classifiers, which it fetches before its first part."""

    def __init__(self, variants: Sequence[str], batch: int, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.variants, self.batch = variants, batch
        self.scorer: Scorer | None = None
        self.preemption = PreemptionGuard()

    def up(self) -> None:
        """Returns when the actor has started."""

    def score(self, checkpoints: Sequence[ray.ObjectRef], part: UnitRange, splits: Sequence[str]) -> Scored:
        """The predictions for a part; `checkpoints` holds one reference to all of them by name."""
        self.preemption.begin(part)
        try:
            if self.scorer is None:
                device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
                models = {name: one.restore() for name, one in ray.get(checkpoints[0]).items()}
                self.scorer = Scorer(models, self.variants, self.batch, device)
            return self.scorer.score(part, splits)
        finally:
            self.preemption.done(part)


def write(result: dict[str, Any], tests: Sequence[TestSet], predictions: Predictions, store: ObjectStore) -> None:
    """Writes the matrix in all its forms, each in place of an older one."""
    sink = pa.BufferOutputStream()
    pq.write_table(predictions_table(tests, predictions), sink, compression="zstd")
    bodies: dict[str, Any] = {
        MATRIX: json.dumps(result, indent=1).encode(),
        "matrix.md": tables.markdown(result).encode(),
        "matrix.tex": tables.latex(result).encode(),
        "matrix.svg": svg(result, variant=result["variants"][0]).encode(),
        ANSWERS: sink.getvalue(),
        PAGE: page(result).encode(),
    }
    for key, body in bodies.items():
        replace_object(store, key, body)


def predictions_table(tests: Sequence[TestSet], predictions: Predictions) -> pa.Table:
    """Every prediction as a row: test set, variant, checkpoint, sample_id, label, probabilities of its outputs.

    `classes` in matrix.json names the outputs of each checkpoint.
    """
    by_name = {test.name: test for test in tests}
    parts = []
    for (checkpoint, name, variant), probs in predictions.items():
        facts = by_name[name].facts.select(["sample_id", "label"])
        for title, value in (("checkpoint", checkpoint), ("variant", variant), ("test", name)):
            facts = facts.add_column(0, title, pa.array([value] * len(probs)).dictionary_encode())
        column = pa.FixedSizeListArray.from_arrays(pa.array(probs.ravel()), probs.shape[1])
        parts.append(facts.append_column("label_probs", column.cast(pa.list_(pa.float32()))))
    return pa.concat_tables(parts)


COMMAND = Command(
    EvaluateJob,
    evaluate,
    dry_run=preview,
    about="Prints the matrix of recipes and test sets with intervals and tests, and marks the cells that do not "
    "count: test rows that a checkpoint, its teacher or its generator learned from, scores above what is honestly "
    "reached, a wrong class order, scores that copies raise. Writes matrix.json, .md, .tex, .svg, answers.parquet "
    "and index.html.",
    example="python jobs/evaluate.py checkpoints=[out/runs] datasets=[out/fer2013,out/drawn] audits=[out/audit] "
    "baseline=real_only out=out/matrix",
)
