"""The actor that makes units: plan rows through the generator to a committed shard; only reports leave it.

While one unit is encoded and uploaded the next one is on the device: Ray Data calls the actor from two threads
and a lock stands around the device.
"""

import gc
import json
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import ray

from synthfer import generators
from synthfer.canonical import canonical_json
from synthfer.engine.preemption import PreemptionGuard
from synthfer.engine.unit import Encoded, Files, make_unit, to_table
from synthfer.gates.edits import EditConfig, EditGate
from synthfer.generators import Failure, Generator, OutOfMemory
from synthfer.images import ImageConfig
from synthfer.planning import Plan, open_plan
from synthfer.planning.faces import FaceTable
from synthfer.sample import Row
from synthfer.store import Dataset, ObjectStore, Receipt
from synthfer.store.image_reader import ImageReader
from synthfer.store.spec import difference

log = logging.getLogger(__name__)

BATCH_SIZE_KEY = "_shape.json"
"""Where the batch size of a dataset stands once a device was too small for the one that was asked for."""

MAX_PREPARED_TEXTS = 1000
"""A plan with fewer prompts has them all encoded first, which lets a generator free its text encoders."""


@dataclass(frozen=True)
class FaceSource:
    """Where the faces of a plan are read, and what its results inherit from their datasets."""

    uris: tuple[str, ...]
    real: bool
    trained_on: tuple[str, ...]
    licences: tuple[str, ...]

    @classmethod
    def of(cls, table: FaceTable) -> "FaceSource":
        """That of a plan's table of faces as the driver has opened it."""
        return cls(table.uris, table.real, table.trained_on, table.licences)

    def producer(self, trained_on: Sequence[str]) -> dict[str, Any]:
        """What it adds to the producer of pictures whose generator has learned from `trained_on`."""
        inherited = sorted({*trained_on, *self.trained_on})
        return {
            "kind": "real" if self.real else "synthetic",
            "derived_from_real_identity": self.real,
            "faces": {"licences": list(self.licences)},
            **({"trained_on": inherited} if inherited else {}),
        }


@dataclass(frozen=True)
class WorkerSpec:
    """How the units of a dataset are made: what an actor needs to start, small enough to be sent anywhere.

    `options` is the `Config` of the generator's module.
    """

    uri: str
    generator: str
    options: Any
    image: ImageConfig
    encoder_threads: int = 1
    faces: FaceSource | None = None
    gate: EditConfig | None = None


@dataclass(frozen=True)
class Report:
    """What became of a unit: receipt (None: it was there already) or error, the device's time on it, notices.

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
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Report":
        value = json.loads(text)
        receipt = value["receipt"] and Receipt(**value["receipt"])
        return cls(**value | {"receipt": receipt, "notices": tuple(value["notices"])})


class Worker(ABC):
    """Makes and commits units of one dataset. One that somebody has committed meanwhile is left alone."""

    def __init__(self, uri: str) -> None:
        self.name = f"{ray.get_runtime_context().get_node_id()[:8]}/{ray.get_runtime_context().get_actor_id()}"
        self.dataset = Dataset.open(uri)
        self.departure = PreemptionGuard()

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, list[str]]:
        """Ray Data's side: a block of unit numbers in, a block of reports out."""
        return {"report": [self.make(int(unit)).to_json() for unit in block["unit"]]}

    def make(self, unit: int) -> Report:
        """Makes one unit. What goes wrong is told in its report, and the next unit goes on."""
        try:
            if self.dataset.is_committed(unit):
                return Report(unit, self.name)
            return self._make(unit)
        except Exception as error:  # the driver decides what it means for the job
            log.exception("unit %d", unit)
            return Report(unit, self.name, error=f"{type(error).__name__}: {error}", notices=self._told())
        finally:
            self.departure.done(unit)

    @abstractmethod
    def _make(self, unit: int) -> Report:
        """Makes a unit that is missing, and commits it. Says to `departure` when it begins what takes long."""

    def _told(self) -> tuple[str, ...]:
        """Notices for the driver since the last report."""
        return ()


class GenerationWorker(Worker):
    """Makes units of a plan with a generator."""

    def __init__(self, recipe: WorkerSpec) -> None:
        super().__init__(recipe.uri)
        self.recipe = recipe
        self.plan = open_plan(self.dataset)
        self.pictures = ImageReader(recipe.faces.uris if recipe.faces else ())
        self.gate = EditGate(recipe.gate) if recipe.gate else None
        self.device = threading.Lock()
        self.encoders = ThreadPoolExecutor(recipe.encoder_threads)
        self.notices: list[str] = []
        recorded = recorded_batch_size(self.dataset.store)
        self._build(recorded)
        if recorded is None:
            self._check_producer()

    def _build(self, batch_size: int | None) -> None:
        self.generator = build(self.recipe, batch_size)
        prepare = getattr(self.generator, "prepare", None)
        texts = self.plan.texts(MAX_PREPARED_TEXTS) if prepare else None
        if prepare and texts:
            prepare(sorted(texts, key=str))

    def _check_producer(self) -> None:
        """Other weights or libraries on this node would make other pictures under the same name."""
        there, here = self.dataset.spec.producer, producer_of(self.recipe, self.generator, self.gate)
        if there != here:
            lines = "\n  ".join(difference(there, here, "producer"))
            raise ValueError(f"this node's generator is not the one of {self.recipe.uri}:\n  {lines}")

    def _make(self, unit: int) -> Report:
        rows = self.plan.rows(self.dataset.spec.unit_rows(unit))
        files = files_of(self.plan, rows, self.pictures)
        with self.device:
            self.departure.begin(unit)
            start = time.time()
            futures = self._on_device(rows, files)
            end = time.time()
            notes = self._notes()
        results: list[Encoded | Failure] = [future.result() for future in futures]
        producer = self.dataset.spec.producer_id
        table = to_table(rows, results, source=self.recipe.generator, producer=producer)
        receipt = self.dataset.commit(unit, table, notes)
        return Report(unit, self.name, receipt, None, start, end, self._told())

    def _on_device(self, rows: Sequence[Row], files: Sequence[Files]) -> list:
        """The unit's pictures, on their way to the encoders; out of memory halves the batch once for the job."""
        recorded = recorded_batch_size(self.dataset.store)
        if recorded and recorded != self.generator.batch_size:
            self._rebuild(recorded)
        try:
            return make_unit(self.generator, rows, self.recipe.image, self.encoders, files, self.gate)
        except OutOfMemory as error:
            self.notices.append(f"{error}: batch size {self.generator.batch_size} is halved for the whole job")
            self._rebuild(halve_batch_size(self.dataset.store, self.generator.batch_size))
        return make_unit(self.generator, rows, self.recipe.image, self.encoders, files, self.gate)

    def _rebuild(self, batch_size: int) -> None:
        del self.generator  # its memory is needed for the next one
        gc.collect()
        self._build(batch_size)

    def _notes(self) -> dict[str, Any]:
        """What made this shard beyond the spec: kind of device, libraries, batch size in use."""
        notes: dict[str, Any] = getattr(self.generator, "device_notes", dict)()
        return {"batch_size": self.generator.batch_size, **notes}

    def _told(self) -> tuple[str, ...]:
        told, self.notices = tuple(self.notices), []
        return told


def build(recipe: WorkerSpec, batch_size: int | None = None) -> Generator:
    """The recipe's generator, with the batch size that the dataset has on record if there is one."""
    options = replace(recipe.options, batch_size=batch_size) if batch_size else recipe.options
    generator: Generator = generators.module(recipe.generator).build(options)
    return generator


def producer_of(recipe: WorkerSpec, generator: Generator, gate: EditGate | None = None) -> dict[str, Any]:
    """What stands in the spec as the maker of the pictures, and of their scores where there is a gate."""
    told: dict[str, Any] = {"generator": recipe.generator, **generator.producer()}
    if source_type := getattr(generator, "source_type", None):
        told["source_type"] = source_type
    if recipe.faces:
        told |= recipe.faces.producer(told.get("trained_on", ()))
    return told | ({"gate": gate.producer()} if gate else {})


def files_of(plan: Plan, rows: Sequence[Row], pictures: ImageReader) -> list[Files]:
    """The image files of the faces that each row is made from; none at all for a plan that knows no faces."""
    if plan.faces is None:
        return []
    places = [tuple(plan.faces.place(face) for face in row.faces) for row in rows]
    found = pictures.read(place for some in places for place in some)
    return [tuple(found[place] for place in some) for some in places]


def recorded_batch_size(store: ObjectStore) -> int | None:
    """The batch size that a device out of memory has left for the whole dataset, or None."""
    try:
        return int(json.loads(store.get(BATCH_SIZE_KEY))["batch_size"])
    except FileNotFoundError:
        return None


def halve_batch_size(store: ObjectStore, batch_size: int) -> int:
    """Records half of `batch_size` for the dataset, once; `OutOfMemory` where that was done before or it is 1."""
    recorded = recorded_batch_size(store)
    if recorded and recorded < batch_size:
        return recorded  # another worker was quicker
    if batch_size == 1 or recorded:
        raise OutOfMemory(
            f"out of memory at batch size {batch_size}, which is as small as this dataset may go: use a larger "
            "device or smaller pictures, or start a new dataset with a smaller generator.batch_size"
        )
    return record_batch_size(store, batch_size // 2, batch_size)


def record_batch_size(store: ObjectStore, batch_size: int, asked: int) -> int:
    """Leaves the batch size for the whole dataset; the one that is on record in the end."""
    store.put_new(BATCH_SIZE_KEY, canonical_json({"batch_size": batch_size, "asked": asked}))
    return recorded_batch_size(store) or batch_size
