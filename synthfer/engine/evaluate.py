"""The evaluation job: every classifier on every test set, on Ray actors; the matrix, its tables and its page.

An actor holds all classifiers and decodes each picture once. The driver puts the answers together in the order of the
rows, so that the numbers do not depend on how many actors there were.
"""

import itertools
import json
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import torch

from synthfer.classifiers.checkpoints import ClassifierCheckpoint, collect
from synthfer.cli import Command, Invocation, Outcome
from synthfer.config import REQUIRED, ConfigError, option
from synthfer.engine.audit import PAIRS as AUDITED
from synthfer.engine.audit import VERDICT, unwrap_ray_errors
from synthfer.engine.cluster import ClusterResources, GpuWorkerConfig, session
from synthfer.engine.monitoring import Metrics, counting
from synthfer.engine.preemption import PreemptionGuard
from synthfer.evaluation.cells import VARIANTS, Answers, Candidate, MatrixConfig, TestSet
from synthfer.evaluation.guards import NO_AUDITS, Audits
from synthfer.evaluation.matrix import matrix
from synthfer.evaluation.scoring import Scored, Scorer
from synthfer.progress import Meter
from synthfer.report import matrix as tables
from synthfer.report.matrix_page import page
from synthfer.report.plot import svg
from synthfer.sample import SPLITS
from synthfer.store import ObjectStore, open_store
from synthfer.store.dataset_ref import DatasetRef, UnitRange, open_ref, unit_ranges
from synthfer.store.objects import replace_object
from synthfer.suggest import nearest

log = logging.getLogger(__name__)

MATRIX, ANSWERS, PAGE = "matrix.json", "answers.parquet", "index.html"


@dataclass(frozen=True, kw_only=True)
class ScoringPool(GpuWorkerConfig):
    """How many workers score at once, and what each of them needs; no number depends on it."""

    max_workers: int | None = option(
        None, "most workers at once (null: as many as the GPUs and CPUs have room for)", low=1
    )
    max_unit_retries: int = option(10, "times a block is scored again after its worker died", low=0)


@dataclass(frozen=True, kw_only=True)
class EvaluateJob(MatrixConfig):
    """The evaluation job: which checkpoints on which test sets, and where the matrix goes."""

    checkpoints: list[str] = option(REQUIRED, "files, or folders and prefixes with all that jobs/train.py left there")
    datasets: list[str] = option(
        REQUIRED, "test data: datasets or views; out/drawn#train judges on that split, out/faces#val+test on these"
    )
    out: str = option(REQUIRED, "folder or s3://bucket/prefix for the matrix, its tables and its page; replaced")
    splits: list[str] = option(["test"], "splits that are judged on where a dataset names none", choices=SPLITS)
    variants: list[str] = option(list(VARIANTS), "how pictures are shown", choices=VARIANTS)
    audits: list[str] = option([], "folders of jobs/audit.py: test rows with a copy in training data are flagged")
    batch: int = option(64, "pictures that go through a network at once", low=1)
    block: int = option(1024, "rows that a worker takes at once", low=1)
    engine: ScoringPool = field(default_factory=ScoringPool)


@dataclass(frozen=True)
class Judged:
    """A checkpoint with its name in the matrix."""

    candidate: Candidate
    checkpoint: ClassifierCheckpoint


@dataclass(frozen=True)
class Column:
    """Test data under its name in the matrix."""

    name: str
    dataset_ref: DatasetRef
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Opened:
    """All that the job reads."""

    judged: Sequence[Judged]
    columns: Sequence[Column]
    audits: Audits


def evaluate(config: EvaluateJob, invocation: Invocation) -> Outcome:
    """Scores, writes the matrix, prints it. The job of `jobs/evaluate.py`."""
    start = time.monotonic()
    store, job = open_store(config.out), opened(config)
    with (
        session(config.engine) as resources,
        Metrics("evaluate", config.out, config.engine.prices) as metrics,
        unwrap_ray_errors(),
    ):
        tests, answers = score(config, job, resources, invocation, metrics)
    result = matrix([one.candidate for one in job.judged], tests, answers, config, job.audits)
    write(result, tests, answers, store)
    tables.print_matrix(result, invocation.results)
    told: dict[str, Any] = {"page": f"{store.uri}/{PAGE}", "checkpoints": len(job.judged), "test_sets": len(tests)}
    told |= {"seconds": time.monotonic() - start, **metrics.bill.summary()}
    return Outcome(told | (result if invocation.json else {}))


def preview(config: EvaluateJob, invocation: Invocation) -> Outcome:
    """Opens everything and says what would be scored. The job's `--dry-run`."""
    job = opened(config)
    told = {one.candidate.name: ", ".join(one.candidate.trained_on) or "nobody says on what" for one in job.judged}
    columns = {column.name: f"{column.dataset_ref.uri}, {' and '.join(column.splits)}" for column in job.columns}
    return Outcome({"trained_on": told, "datasets": columns, "out": open_store(config.out).uri})


def opened(config: EvaluateJob) -> Opened:
    """All that the job reads, checked before anything starts."""
    if not (config.checkpoints and config.datasets and config.variants):
        raise ConfigError("checkpoints, datasets and variants: name at least one of each")
    judged = named(list({one.uri: one for uri in config.checkpoints for one in collect(uri)}.values()))
    recipes = list(dict.fromkeys(one.candidate.recipe for one in judged))
    if config.baseline not in (None, *recipes):
        hint = nearest(str(config.baseline), recipes)
        raise ConfigError(f"baseline={config.baseline}: no such recipe{hint} There are {', '.join(recipes)}.")
    columns = [column(text, config.splits) for text in config.datasets]
    names = titles([one.dataset_ref.uri for one in columns])
    named_columns = [replace(one, name=name) for one, name in zip(columns, names, strict=True)]
    return Opened(judged, named_columns, audits_of(config.audits))


def audits_of(uris: Sequence[str]) -> Audits:
    """The audits in these folders; `ConfigError` where one is of another kind."""
    tables_, covered = [NO_AUDITS.pairs], set()
    for uri in uris:
        store = open_store(uri)
        tables_.append(pq.read_table(pa.BufferReader(store.get(AUDITED))))
        try:
            test = json.loads(store.get(VERDICT))["sides"]["test"]
            covered |= {(digest, split) for digest in test["hashes"] for split in test["splits"]}
        except (ValueError, KeyError) as error:
            raise ConfigError(f"audits: {store.uri}/{VERDICT} is none of jobs/audit.py: {error!r}") from error
    return Audits(pairs=pa.concat_tables(tables_), covered=frozenset(covered))


def column(text: str, splits: Sequence[str]) -> Column:
    """Test data from `URI` or `URI#split+split`; `ConfigError` where a split is none, or has no row to judge on."""
    uri, _, own = text.partition("#")
    wanted = tuple(own.split("+")) if own else tuple(splits)
    if unknown := [split for split in wanted if split not in SPLITS]:
        raise ConfigError(f"datasets: {text}: {unknown[0]!r} is no split; splits are {', '.join(SPLITS)}")
    found = open_ref(uri)
    there = splits_of(found)
    if there.isdisjoint(wanted):
        raise ConfigError(
            f"datasets: no accepted labelled row of split {' or '.join(wanted)} in {found.uri}; "
            + (f"there are rows of {', '.join(sorted(there))}: write {uri}#{min(there)}" if there else "leave it out")
        )
    return Column("", found, wanted)


def splits_of(found: DatasetRef) -> set[str]:
    """The splits that test data has accepted labelled rows of."""
    rows = pa.concat_tables(part.rows(["label", "split"], SPLITS) for part in unit_ranges([found], sys.maxsize))
    return set(rows.filter(pc.is_valid(rows["label"]))["split"].unique().to_pylist())


def named(found: Sequence[ClassifierCheckpoint]) -> list[Judged]:
    """Checkpoints as the matrix knows them: those of one experiment and run differ in their seed."""
    runs = [one.card.training.get("run", {}) for one in found]
    judged = []
    for one, run, recipe in zip(found, runs, _recipes(found, runs), strict=True):
        candidate = Candidate(
            name=f"{recipe}/seed-{run['seed']}" if run else recipe,
            recipe=recipe,
            seed=run.get("seed"),
            classes=one.outputs,
            trained_on=tuple(one.card.trained_on),
            selection=one.card.selection,
            seen=one.fingerprint,
            ancestors=tuple(one.card.ancestors) if one.fingerprint else None,
        )
        judged.append(Judged(candidate, one))
    _told_apart(judged)
    return judged


def _recipes(found: Sequence[ClassifierCheckpoint], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A run's name, after its experiment where runs of several are judged; else the shortest name of the file.

    An experiment is a folder that has its runs below it by name and seed.
    """
    ours = [one.uri.rsplit("/", 3)[0] for one, run in zip(found, runs, strict=True) if run]
    others = [one.uri.rpartition(".")[0] for one, run in zip(found, runs, strict=True) if not run]
    experiments, files = iter(titles(ours, unique=False)), iter(titles(others, unique=False))
    if len(set(ours)) > 1:
        return [f"{next(experiments)}/{run['name']}" if run else next(files) for run in runs]
    return [run["name"] if run else next(files) for run in runs]


def _told_apart(judged: Sequence[Judged]) -> None:
    """`ConfigError` where two checkpoints have one name, or a file is called like the recipe of a run."""
    for one, other in itertools.combinations(judged, 2):
        mine, theirs = one.candidate, other.candidate
        runs = mine.name != mine.recipe and theirs.name != theirs.recipe
        if mine.name == theirs.name or (mine.recipe == theirs.recipe and not runs):
            shared = mine.name if mine.name == theirs.name else mine.recipe
            what = (
                "name and seed are those in their cards, and the experiment is the third folder above the file: leave "
                "one out, or copy its run to another experiment's folder, as EXPERIMENT/NAME/SEED/model.safetensors"
                if runs
                else "leave one out, or rename the file and its card"
            )
            raise ConfigError(f"checkpoints: {one.checkpoint.uri} and {other.checkpoint.uri} are both {shared} in the "
                              f"matrix; {what}")  # fmt: skip


def titles(uris: Sequence[str], unique: bool = True) -> list[str]:
    """The shortest ends of URIs that tell different ones apart; `ConfigError` where one stands twice and may not."""
    different = list(dict.fromkeys(uris))
    if unique and len(different) < len(uris):
        raise ConfigError(f"datasets: {next(uri for uri in uris if uris.count(uri) > 1)} is named twice")
    parts_, length = [uri.rstrip("/").split("/") for uri in different], 1
    while len({tuple(part[-length:]) for part in parts_}) < len(different):
        length += 1
    short = {uri: "/".join(part[-length:]) for uri, part in zip(different, parts_, strict=True)}
    return [short[uri] for uri in uris]


def score(
    config: EvaluateJob, job: Opened, resources: ClusterResources, invocation: Invocation, metrics: Metrics
) -> tuple[list[TestSet], Answers]:
    """Every test set with every answer, (checkpoint, test set, variant) to probabilities float32 (n, K)."""
    pieces = [(column, part) for column in job.columns for part in unit_ranges([column.dataset_ref], config.block)]
    shipped = [ray.put({one.candidate.name: one.checkpoint.without_fingerprint for one in job.judged})]
    calls = [(shipped, part, column.splits) for column, part in pieces]
    found: dict[str, list[Scored]] = {column.name: [] for column in job.columns}
    with Meter("blocks", len(pieces), invocation.status) as meter:
        metrics.progress = counting("blocks", meter)
        for (column, _), scored in zip(
            pieces, ordered_actor_map(crew(config, resources, len(pieces)), calls), strict=True
        ):
            if scored.facts.num_rows:
                found[column.name].append(scored)
            meter.add(1)
    tests = [as_test_set(column, found[column.name]) for column in job.columns]
    answers = {
        (checkpoint, name, variant): np.concatenate([scored.probs[checkpoint, variant] for scored in some])
        for name, some in found.items()
        for checkpoint, variant in some[0].probs
    }
    return tests, answers


def as_test_set(column: Column, scored: Sequence[Scored]) -> TestSet:
    """A column's rows."""
    facts = pa.concat_tables(one.facts for one in scored)
    return TestSet(
        name=column.name, uri=column.dataset_ref.uri, hash=column.dataset_ref.hash, splits=column.splits, facts=facts
    )


def crew(config: EvaluateJob, resources: ClusterResources, most: int) -> list[Any]:
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
    """What `worker.score` makes of each call's arguments, in order.

    A call goes to a worker that is up and idle, so that those that wait for room hold nothing up.
    """
    left, results = deque(enumerate(calls)), dict[int, ray.ObjectRef]()
    busy: dict[ray.ObjectRef, tuple[Any, int | None]] = {worker.up.remote(): (worker, None) for worker in workers}
    for number in range(len(calls)):
        while number not in results:
            (done,), _ = ray.wait(list(busy), num_returns=1)
            worker, scored = busy.pop(done)
            if scored is None:
                ray.get(done)  # raises where the worker could not be built
            else:
                results[scored] = done
            if left:
                place, arguments = left.popleft()
                busy[worker.score.remote(*arguments)] = (worker, place)
            else:
                ray.kill(worker)  # a worker that died may wait for its room
        yield ray.get(results.pop(number))


class ScoringWorker:
    """An actor with all classifiers, which it fetches before its first part."""

    def __init__(self, variants: Sequence[str], batch: int, cpus: float) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        self.variants, self.batch = variants, batch
        self.scorer: Scorer | None = None
        self.departure = PreemptionGuard()

    def up(self) -> None:
        """Returns when the actor has started."""

    def score(self, checkpoints: Sequence[ray.ObjectRef], part: UnitRange, splits: Sequence[str]) -> Scored:
        """A part's answers; `checkpoints` holds one reference to them all by name."""
        self.departure.begin(part)
        try:
            if self.scorer is None:
                device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
                models = {name: one.restore() for name, one in ray.get(checkpoints[0]).items()}
                self.scorer = Scorer(models, self.variants, self.batch, device)
            return self.scorer.score(part, splits)
        finally:
            self.departure.done(part)


def write(result: dict[str, Any], tests: Sequence[TestSet], answers: Answers, store: ObjectStore) -> None:
    """Puts the matrix in all its forms, each in place of an older one."""
    sink = pa.BufferOutputStream()
    pq.write_table(answers_table(tests, answers), sink, compression="zstd")
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


def answers_table(tests: Sequence[TestSet], answers: Answers) -> pa.Table:
    """Every answer as a row: test set, variant, checkpoint, sample_id, label, probabilities of its outputs.

    The outputs of each checkpoint are named by `classes` in matrix.json.
    """
    by_name = {test.name: test for test in tests}
    tables_ = []
    for (checkpoint, name, variant), probs in answers.items():
        facts = by_name[name].facts.select(["sample_id", "label"])
        for title, value in (("checkpoint", checkpoint), ("variant", variant), ("test", name)):
            facts = facts.add_column(0, title, pa.array([value] * len(probs)).dictionary_encode())
        column = pa.FixedSizeListArray.from_arrays(pa.array(probs.ravel()), probs.shape[1])
        tables_.append(facts.append_column("label_probs", column.cast(pa.list_(pa.float32()))))
    return pa.concat_tables(tables_)


COMMAND = Command(
    EvaluateJob,
    evaluate,
    dry_run=preview,
    about="Prints the matrix of recipes and test sets with intervals and tests, and marks the cells that nobody should "
    "believe: test rows that a checkpoint or its makers learned from, scores above what labels allow, a wrong class "
    "order, scores that copies carry. Writes matrix.json, .md, .tex, .svg, answers.parquet and index.html.",
    example="python jobs/evaluate.py checkpoints=[out/runs] datasets=[out/fer2013,out/drawn] audits=[out/audit] "
    "baseline=real_only out=out/matrix",
)
