"""The ingest job: a published collection of faces becomes a dataset, read in parallel, each unit committed once.

A file that is JPEG, PNG or WebP and needs no crop is kept byte for byte; what has no such file of its own (grey values
in a CSV, drawings, crops, other formats) is written in the dataset's image format. An entry that cannot be read becomes
a failed row with its reason.
"""

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synthfer import images, sources
from synthfer.cli import Command, Invocation, Outcome
from synthfer.engine.cluster import session
from synthfer.engine.dataset_job import (
    JobStats,
    PoolConfig,
    UnitReport,
    UnitWorker,
    WorkerPoolSpec,
    check_place,
    make_missing,
    seal,
    stored_unit_size,
    summary,
    unit_size,
)
from synthfer.engine.monitoring import CostMeter, Metrics
from synthfer.faces import FaceConfig, FaceCrop, FaceStep
from synthfer.generators import Failure
from synthfer.image_files import form_of
from synthfer.images import FORMATS, EncodedImage, ImageConfig
from synthfer.limits import MAX_UNIT_ROWS
from synthfer.reasons import stored_reason
from synthfer.report.collection import print_counts
from synthfer.sample import SCHEMA
from synthfer.schema import REQUIRED, Choice, option, registry_section, to_dict
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import Collection, Entry, SourceError
from synthfer.sources.index import Index, StoredIndex, collection_plan, differences, sample_id
from synthfer.store import Dataset, Spec, open_store

log = logging.getLogger(__name__)

NO_FACE = "no face found"

# Entries that are read before the job, to learn the size of a picture and the speed of reading.
_PROBED_ENTRIES = 64
# Reasons that are shown when all rows fail.
_REASONS = 3
_LONGEST = 300


@dataclass(frozen=True, kw_only=True)
class IngestPool(PoolConfig):
    """How the job uses the cluster; no sample depends on it."""

    max_failed_share: float = option(0.5, "stop when more than this share of rows cannot be read", low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class IngestImages(ImageConfig):
    """How pictures are written that are cropped or have no JPEG, PNG or WebP file; other files stay as they are."""

    format: str = option("png", "file format: png and webp are lossless, jpeg is not", choices=FORMATS)


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """The ingest job: which collection, from where, to where."""

    out: str = option(REQUIRED, "the dataset: a folder or s3://bucket/prefix; the same one again resumes")
    source: Any = registry_section(sources.names, sources.module, default="folder", of="which collection")
    path: str | None = option(None, "where the collection is: a folder or file that every node can read")
    face: FaceConfig = field(default_factory=FaceConfig)
    image: IngestImages = field(default_factory=IngestImages)
    unit_size: int | None = option(
        None, "rows per unit of work and commit (null: chosen by a probe)", low=1, high=MAX_UNIT_ROWS
    )
    engine: IngestPool = field(default_factory=IngestPool)

    @property
    def root(self) -> Path | None:
        """The path as every process sees it, whatever folder it works in.

        A link to a file keeps its name, which may tell the split or the layout; caches link to files named by hashes.
        """
        if self.path is None:
            return None
        path = Path(self.path)
        # Unlike `Path`, `os.path` takes links that lead back to themselves; the source says what is wrong with one.
        if os.path.isdir(path):  # noqa: PTH112
            return Path(os.path.realpath(path))
        return Path(os.path.realpath(path.parent), path.name)

    def find(self) -> Collection:
        """The collection at the path; `SourceError` where it is not what the source reads."""
        choice: Choice = self.source
        collection: Collection = sources.module(choice.name).find(self.root, choice.options)
        return collection


def ingest(config: IngestConfig, invocation: Invocation) -> Outcome:
    """Reads what is missing of the dataset and seals it. The job of `jobs/ingest.py`."""
    start = time.monotonic()
    collection, index = read_lists(config, invocation)
    dataset, stats, cost = read_missing(config, collection, index, invocation)
    manifest = seal(dataset, stats)
    facts = collection_facts(collection, index, invocation)
    return Outcome(facts | summary(dataset, manifest, stats, cost, time.monotonic() - start))


def preview(config: IngestConfig, invocation: Invocation) -> Outcome:
    """What is there, compared with what was published. The job's `--dry-run`."""
    collection, index = read_lists(config, invocation)
    open_store(config.out)  # a place where no dataset can be is an error now
    return Outcome({"out": config.out, "rows": len(index), **collection_facts(collection, index, invocation)})


def read_lists(config: IngestConfig, invocation: Invocation) -> tuple[Collection, Index]:
    """Reads the collection's lists, and prints what is there beside what was published."""
    FaceStep(config.face)  # missing weights are an error now, not after minutes of reading lists
    log.info("reading the lists of %s", config.path or config.source.name)
    collection = config.find()
    index = Index.from_entries(collection.entries)
    if not len(index):
        raise SourceError(f"{config.path}: layout {collection.layout!r}, but there is no face in it")
    if all(set(counts) == {"failed"} for counts in index.counts.values()):
        raise _unreadable(config, [entry.reason or "" for entry in index.entries(range(min(len(index), _REASONS)))])
    log.info("%d rows in layout %s", len(index), collection.layout)
    print_counts(index.counts, collection.official, collection.notes, invocation.results)
    return collection, index


def _unreadable(config: IngestConfig, reasons: Sequence[str]) -> SourceError:
    shown = "; ".join(dict.fromkeys(reason[:_LONGEST] for reason in reasons))
    return SourceError(f"{config.path}: nothing in it can be read as source {config.source.name}. The first: {shown}")


def read_missing(
    config: IngestConfig, collection: Collection, index: Index, invocation: Invocation
) -> tuple[Dataset, JobStats, CostMeter]:
    """The dataset with every unit committed, what this run did for it, and what that cost."""
    stats = JobStats(config.engine.max_failed_share)
    check_place(config.out)
    with session(config.engine) as available, Metrics("ingest", config.out, config.engine.prices) as metrics:
        config = replace(config, engine=config.engine.settled(available))
        dataset = open_dataset(config, collection, index)
        if dataset.manifest is None:
            spec = IngestSpec(config.out, config.root, config.source.name, config.face, config.image)
            make_missing(dataset, WorkerPoolSpec(IngestWorker, spec, config.engine), stats, invocation, metrics)
    return dataset, stats, metrics.cost


def collection_facts(collection: Collection, index: Index, invocation: Invocation) -> dict[str, Any]:
    """The part of the summary that is about the collection: all for programs; people have seen the table before."""
    unlike = differences(collection.official, index.counts)
    if not invocation.json:
        compared = f"{len(unlike)} differ" if unlike else "all as published"
        return {"layout": collection.layout, "published_numbers": compared if collection.official else "none known"}
    return {
        "layout": collection.layout,
        "found": {split: dict(sorted(counts.items())) for split, counts in index.counts.items()},
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
    stored = stored_unit_size(config.out)
    probed = probed_unit_size(config, collection, index) if stored is None else None
    size = config.unit_size or stored or probed
    assert size is not None
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


def probed_unit_size(config: IngestConfig, collection: Collection, index: Index) -> int:
    """Rows per unit by the speed and picture size of some entries spread over the collection.

    `SourceError`: none of them can be read, before there is a dataset of nothing but failures.
    """
    defaults = SampleDefaults(
        source=config.source.name,
        producer="",
        source_type=collection.source_type,
        face=config.face,
        image=config.image,
        real=collection.kind == "real",
    )
    rows = range(0, len(index), -(-len(index) // _PROBED_ENTRIES))
    reader, start = SampleReader(config.root, defaults), time.perf_counter()
    table = reader.table(list(index.entries(rows)))
    if config.engine.max_failed_share < 1 and set(table["decision"].to_pylist()) == {"failed"}:
        raise _unreadable(config, table["reason"].to_pylist()[:_REASONS])
    speed = len(rows) / (time.perf_counter() - start)
    return unit_size(len(index), config.engine.max_workers or 1, 1, speed, table.nbytes / len(rows))


# -- the worker's side


@dataclass(frozen=True)
class IngestSpec:
    """How the units of a dataset are read: what an actor needs to start."""

    uri: str
    root: Path | None
    source: str
    face: FaceConfig
    image: ImageConfig


class IngestWorker(UnitWorker):
    """Reads units of a collection's index."""

    def __init__(self, spec: IngestSpec) -> None:
        super().__init__(spec.uri)
        if spec.root is not None and not spec.root.exists():
            raise FileNotFoundError(f"this node has no {spec.root}: every node must see the collection at this path")
        contract = self.dataset.spec
        self.index = StoredIndex(self.dataset.store, contract.rows, contract.unit_size)
        defaults = SampleDefaults(
            source=spec.source,
            producer=contract.producer_id,
            source_type=contract.producer["source_type"],
            face=spec.face,
            image=spec.image,
            real=contract.producer["kind"] == "real",
        )
        self.reader, self.reading = SampleReader(spec.root, defaults), threading.Lock()

    def _make(self, unit: int) -> UnitReport:
        with self.reading:
            self.preemption.begin(unit)
            start = time.time()
            table = self.reader.table(self.index.unit(unit))
            end = time.time()
        return UnitReport(unit, self.name, self.dataset.commit(unit, table, {}), None, start, end)


# -- entries to samples


@dataclass(frozen=True, slots=True)
class IngestedImage:
    """An entry's picture as it is stored, why it is rejected (None: it is not), and the crop where there is one."""

    image: EncodedImage | Failure
    reason: str | None = None
    crop: FaceCrop | None = None


@dataclass(frozen=True, kw_only=True)
class SampleDefaults:
    """What all samples of a collection have in common, and how its pictures are written."""

    source: str
    producer: str
    source_type: str
    face: FaceConfig
    image: ImageConfig
    real: bool
    """Whether its faces are of real persons."""


class SampleReader:
    """Reads entries below `root`; holds open files and, where faces are aligned, the detector."""

    def __init__(self, root: Path | None, defaults: SampleDefaults) -> None:
        self.collection, self.defaults = CollectionReader(root, [defaults.source]), defaults
        self.step = FaceStep(defaults.face)
        self.crops_all = defaults.face.align or defaults.face.size is not None

    def table(self, entries: Sequence[Entry]) -> pa.Table:
        """The unit's samples (schema of `synthfer.sample`), one per entry in order."""
        records = [_record(entry, self.read(entry), self.defaults) for entry in entries]
        columns = zip(*records, strict=True)
        arrays = [pa.array(column, schema.type) for column, schema in zip(columns, SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=SCHEMA)

    def read(self, entry: Entry) -> IngestedImage:
        """The entry's picture, or why there is none."""
        if entry.image is None:
            return IngestedImage(Failure(entry.reason or "no picture"))
        try:
            body = self.collection.read(entry.image)
            if not isinstance(body, bytes):
                return self._encoded(body, entry)
            pixels = images.decode(body)
            if entry.box is None and not self.crops_all and form_of(body) in FORMATS:
                return IngestedImage(EncodedImage.from_file(body, pixels), entry.reason)
            return self._encoded(pixels, entry)
        except OSError as error:
            return IngestedImage(Failure(f"{entry.image.path}: {error.strerror or type(error).__name__}"))
        except ValueError as error:
            return IngestedImage(Failure(str(error)))

    def _encoded(self, pixels: np.ndarray, entry: Entry) -> IngestedImage:
        """Pixels that need a file of their own: a crop, a drawing, or a picture whose format is not kept."""
        reason, crop = entry.reason, None
        if entry.box is not None or self.crops_all:
            crop = self.step.apply(pixels, entry.box)
            if crop is None:
                reason = reason or NO_FACE
            else:
                pixels = crop.pixels
        data = images.encode(pixels, self.defaults.image, self.defaults.source_type)
        lossy = self.defaults.image.format == "jpeg"
        return IngestedImage(EncodedImage.from_file(data, images.decode(data) if lossy else pixels), reason, crop)


def _record(entry: Entry, ingested: IngestedImage, defaults: SampleDefaults) -> tuple[Any, ...]:
    """The values of an entry's row, in the order of the schema."""
    own_id, image, crop = sample_id(defaults.source, entry), ingested.image, ingested.crop
    decision: tuple[Any, ...]
    stored: tuple[Any, ...]
    if isinstance(image, Failure):
        decision, stored = ("failed", stored_reason(image.reason)), (None, None, None, None)
    else:
        decision = ("rejected" if ingested.reason else "accepted", stored_reason(ingested.reason))
        file = {"bytes": image.data, "path": entry.key}
        stored = (image.width, image.height, image.pixels_hash, file)
    detected = {} if crop is None or crop.score is None else {"face": crop.score}
    scores = [{"gate": name, "value": value} for name, value in {**entry.scores, **detected}.items()]
    geometry = (None, None) if crop is None else (crop.box, crop.matrix.ravel())
    lineage = (entry.split, defaults.source, entry.source_id or own_id, None, None, None, defaults.real)
    no_generation = (None, None, None, None, None)
    return (
        *(own_id, entry.label, entry.label_probs, *lineage, dict(entry.attributes), *no_generation),
        *(defaults.producer, *decision, scores, *geometry, *stored),
    )


COMMAND = Command(
    IngestConfig,
    ingest,
    dry_run=preview,
    about="Reads a published collection of faces in parallel and commits it shard by shard, with labels by name, "
    "splits and identities. Prints every difference from the published counts; what cannot be read becomes a failed "
    "row with its reason. Stopped or killed at any moment, the same command goes on where it was.",
    example="python jobs/ingest.py source=fer2013 path=data/fer2013.csv out=s3://bucket/fer2013",
)
