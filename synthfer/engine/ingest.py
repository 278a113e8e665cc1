"""The ingest job: a published collection of faces becomes a dataset, read in parallel, each unit committed once."""

import logging
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from synthfer import sources
from synthfer.cli import Command, Invocation, Outcome
from synthfer.config import REQUIRED, Choice, option, registry_section, to_dict
from synthfer.engine.cluster import session
from synthfer.engine.dataset_job import make_missing, seal, summary
from synthfer.engine.generation_worker import Report, Worker
from synthfer.engine.monitoring import CostMeter, Metrics
from synthfer.engine.pool import WorkerPoolSpec
from synthfer.engine.probe import Probe, unit_size
from synthfer.engine.sample_reader import SampleDefaults, SampleReader
from synthfer.engine.settings import PoolConfig
from synthfer.engine.tally import JobStats
from synthfer.faces import FaceConfig, FaceStep
from synthfer.images import FORMATS, ImageConfig
from synthfer.report.collection import print_counts
from synthfer.sources.entry import Collection, SourceError
from synthfer.sources.index import Index, StoredIndex, collection_plan, differences
from synthfer.store import Dataset, Spec

log = logging.getLogger(__name__)

# Entries that are read to learn the size of a picture and how fast it is taken in.
_PROBED = 64


@dataclass(frozen=True, kw_only=True)
class IngestPool(PoolConfig):
    """How the job uses the cluster; no sample depends on it."""

    max_failed_share: float = option(0.5, "stop when more than this share of rows cannot be read", low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class IngestImages(ImageConfig):
    """How pictures are written that are cut or have no JPEG, PNG or WebP file; other files stay as they are."""

    format: str = option("png", "file format: png and webp are lossless, jpeg is not", choices=FORMATS)


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """The ingest job: which collection, from where, to where."""

    out: str = option(REQUIRED, "the dataset: a folder or s3://bucket/prefix; the same one again resumes")
    source: Any = registry_section(sources.names, sources.module, default="folder", of="which collection")
    path: str | None = option(None, "where the collection is: a folder or file that every node can read")
    face: FaceConfig = field(default_factory=FaceConfig)
    image: IngestImages = field(default_factory=IngestImages)
    unit_size: int | None = option(None, "rows per unit of work and commit (null: chosen by a probe)", low=1)
    engine: IngestPool = field(default_factory=IngestPool)

    @property
    def place(self) -> Path | None:
        """The path as every process sees it, whatever folder it works in."""
        return None if self.path is None else Path(self.path).resolve()

    def find(self) -> Collection:
        """The collection at the path; `SourceError` where it is not what the source reads."""
        choice: Choice = self.source
        found: Collection = sources.module(choice.name).find(self.place, choice.options)
        return found


@dataclass(frozen=True)
class IngestRecipe:
    """How the units of a dataset are read: what an actor needs to start."""

    uri: str
    root: Path | None
    source: str
    face: FaceConfig
    image: ImageConfig


class IngestWorker(Worker):
    """Reads units of a collection's index."""

    def __init__(self, recipe: IngestRecipe) -> None:
        super().__init__(recipe.uri)
        if recipe.root is not None and not recipe.root.exists():
            raise FileNotFoundError(f"this node has no {recipe.root}: every node must see the collection at this path")
        self.index = StoredIndex(self.dataset.store)
        spec = self.dataset.spec
        terms = SampleDefaults(
            source=recipe.source,
            producer=spec.producer_id,
            source_type=spec.producer["source_type"],
            face=recipe.face,
            image=recipe.image,
            real=spec.producer["kind"] == "real",
        )
        self.intake, self.reading = SampleReader(recipe.root, terms), threading.Lock()

    def _make(self, unit: int) -> Report:
        with self.reading:
            self.departure.begin(unit)
            start = time.time()
            table = self.intake.table(self.index.unit(unit))
            end = time.time()
        return Report(unit, self.name, self.dataset.commit(unit, table, {}), None, start, end)


def ingest(config: IngestConfig, invocation: Invocation) -> Outcome:
    """Reads what is missing of the dataset and seals it. The job of `jobs/ingest.py`."""
    start = time.monotonic()
    collection, index = look(config, invocation)
    dataset, tally, bill = read_missing(config, collection, index, invocation)
    manifest = seal(dataset, tally)
    found = told(collection, index, invocation)
    return Outcome(found | summary(dataset, manifest, tally, bill, time.monotonic() - start))


def read_missing(
    config: IngestConfig, collection: Collection, index: Index, invocation: Invocation
) -> tuple[Dataset, JobStats, CostMeter]:
    """The dataset with every unit committed, what was done for it now, and what that cost."""
    tally = JobStats(config.engine.max_failed_share)
    with session(config.engine) as resources, Metrics("ingest", config.out, config.engine.prices) as metrics:
        engine = config.engine.settled(resources)
        dataset = open_dataset(replace(config, engine=engine), collection, index)
        if dataset.manifest is None:
            recipe = IngestRecipe(config.out, config.place, config.source.name, config.face, config.image)
            make_missing(dataset, WorkerPoolSpec(IngestWorker, recipe, engine), tally, invocation, metrics)
    return dataset, tally, metrics.bill


def preview(config: IngestConfig, invocation: Invocation) -> Outcome:
    """What is there, compared with what was published. The job's `--dry-run`."""
    collection, index = look(config, invocation)
    return Outcome({"out": config.out, "rows": len(index), **told(collection, index, invocation)})


def look(config: IngestConfig, invocation: Invocation) -> tuple[Collection, Index]:
    """Reads the collection's lists, and shows what is there beside what was published."""
    FaceStep(config.face)  # missing weights are told now, not after minutes of looking
    log.info("looking through %s", config.path or config.source.name)
    collection = config.find()
    index = Index.from_entries(collection.entries)
    if not len(index):
        raise SourceError(f"{config.path}: layout {collection.layout!r}, but there is no face in it")
    log.info("%d rows in layout %s", len(index), collection.layout)
    print_counts(index.counts, collection.official, collection.notes, invocation.results)
    return collection, index


def told(collection: Collection, index: Index, invocation: Invocation) -> dict[str, Any]:
    """The part of the summary that is about the collection; people have seen the table, programs get it all."""
    unlike = differences(collection.official, index.counts)
    if not invocation.json:
        compared = f"{len(unlike)} differ" if unlike else "all as published"
        return {"layout": collection.layout, "published_numbers": compared if collection.official else "none known"}
    found = {split: dict(sorted(counts.items())) for split, counts in index.counts.items()}
    return {
        "layout": collection.layout,
        "found": found,
        "unlike_published": unlike,
        "notes": list(collection.notes),
    }


def open_dataset(config: IngestConfig, collection: Collection, index: Index) -> Dataset:
    """The dataset of this collection, created or joined; another one at the same place is refused by the store."""
    producer = {
        "kind": collection.kind,
        "source": config.source.name,
        "licence": collection.licence,
        "source_type": collection.source_type,
        "face": FaceStep(config.face).producer(),
    }
    stored = Dataset.open(config.out).spec.unit_size if Dataset.exists(config.out) else None
    size = config.unit_size or stored or unit_size(probe(config, collection, index), len(index), workers(config))
    spec = Spec(
        plan=collection_plan(config.source.name, collection.layout, index),
        producer=producer,
        image=to_dict(config.image),
        rows=len(index),
        unit_size=size,
    )
    dataset = Dataset.create(config.out, spec)
    index.write(dataset.store, size)
    return dataset


def workers(config: IngestConfig) -> int:
    """Workers of a config whose pool is sized."""
    return config.engine.max_workers or 1


def probe(config: IngestConfig, collection: Collection, index: Index) -> Probe:
    """Speed and picture size, from some entries spread over the collection."""
    terms = SampleDefaults(
        source=config.source.name,
        producer="",
        source_type=collection.source_type,
        face=config.face,
        image=config.image,
        real=collection.kind == "real",
    )
    rows = range(0, len(index), -(-len(index) // _PROBED))
    intake, start = SampleReader(config.place, terms), time.perf_counter()
    table = intake.table(list(index.entries(rows)))
    return Probe({}, 1, len(rows) / (time.perf_counter() - start), table.nbytes / len(rows))


COMMAND = Command(
    IngestConfig,
    ingest,
    dry_run=preview,
    about="Reads a published collection of faces in parallel and commits it shard by shard, with labels by name, "
    "splits and identities. Prints every difference from the published counts; what cannot be read becomes a failed "
    "row with its reason. Stopped or killed at any moment, the same command goes on where it was.",
    example="python jobs/ingest.py source=fer2013 path=data/fer2013.csv out=s3://bucket/fer2013",
)
