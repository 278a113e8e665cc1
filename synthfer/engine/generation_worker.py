"""The actor that makes units of a plan: rows through the generator and the gates to files, and those to one shard.

`GenerationWorker._make` is the way of a unit. While one unit is encoded and uploaded the next one is on the device: Ray
Data calls the actor from two threads, and a lock stands around the device. Within a unit, too, a batch is encoded while
the next one is on the device. A row that fails is committed with its reason; the others go on.
"""

import gc
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from synthfer import generators, images
from synthfer.engine.batch_size import halve_batch_size, recorded_batch_size
from synthfer.engine.dataset_job import UnitReport, UnitWorker
from synthfer.gates import Gate, GateChain, Verdict
from synthfer.generators import Faces, Failure, GeneratedImage, Generator, OutOfMemory, Picture
from synthfer.images import EncodedImage, ImageConfig
from synthfer.planning import Plan, open_plan
from synthfer.planning.faces import FaceTable
from synthfer.reasons import stored_reason
from synthfer.sample import SCHEMA, Row
from synthfer.schema import Choice
from synthfer.store.image_reader import ImageReader
from synthfer.store.spec import difference

log = logging.getLogger(__name__)

MAX_PREPARED_TEXTS = 1000
"""A plan with fewer prompts has them all encoded first, which lets a generator free its text encoders."""

FaceFiles = tuple[bytes | None, ...]
"""The image files of the faces that a row is made from; None where a face has no picture."""


@dataclass(frozen=True)
class FaceSource:
    """Where the faces of a plan are read, and what the results inherit from their datasets."""

    uris: tuple[str, ...]
    real: bool
    trained_on: tuple[str, ...]
    licences: tuple[str, ...]

    @classmethod
    def from_table(cls, table: FaceTable) -> "FaceSource":
        """That of a plan's table of faces, without its rows."""
        return cls(table.uris, table.real, table.trained_on, table.licences)

    def producer(self, trained_on: Sequence[str]) -> dict[str, Any]:
        """What it adds to the producer of pictures whose generator was trained on `trained_on`."""
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

    `options` is the `Config` of the generator's module; `gates` are those of gates, by name.
    """

    uri: str
    generator: str
    options: Any
    image: ImageConfig
    encoder_threads: int = 1
    faces: FaceSource | None = None
    gates: tuple[Choice, ...] = ()

    def build_generator(self, batch_size: int | None = None) -> Generator:
        """The generator, with another batch size than its options' where one is given."""
        options = replace(self.options, batch_size=batch_size) if batch_size else self.options
        generator: Generator = generators.module(self.generator).build(options)
        return generator

    def producer(self, generator: Generator, gates: GateChain) -> dict[str, Any]:
        """What makes the pictures and their scores; it stands in the dataset's spec."""
        facts: dict[str, Any] = {"generator": self.generator, **generator.producer()}
        if source_type := getattr(generator, "source_type", None):
            facts["source_type"] = source_type
        if self.faces:
            facts |= self.faces.producer(facts.get("trained_on", ()))
        return facts | gates.producer()


class GenerationWorker(UnitWorker):
    """Makes units of a plan with a generator."""

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec.uri)
        self.spec = spec
        self.plan = open_plan(self.dataset)
        self.reader = ImageReader(spec.faces.uris if spec.faces else ())
        self.gates = GateChain(spec.gates)
        self.device = threading.Lock()
        self.encoders = ThreadPoolExecutor(spec.encoder_threads)
        self.notices: list[str] = []
        recorded = recorded_batch_size(self.dataset.store)
        self._build(recorded)
        if recorded is None:
            self._check_producer()

    def _build(self, batch_size: int | None) -> None:
        self.generator = self.spec.build_generator(batch_size)
        prepare = getattr(self.generator, "prepare", None)
        texts = self.plan.texts(MAX_PREPARED_TEXTS) if prepare else None
        if prepare and texts:
            prepare(sorted(texts, key=str))

    def _check_producer(self) -> None:
        """Other weights or libraries on this node would make other pictures under the same name."""
        there, here = self.dataset.spec.producer, self.spec.producer(self.generator, self.gates)
        if there != here:
            lines = "\n  ".join(difference(there, here, "producer"))
            raise ValueError(f"this node's generator is not the one of {self.spec.uri}:\n  {lines}")

    def _make(self, unit: int) -> UnitReport:
        """Plan rows, pictures, gates and files, table, shard."""
        rows = self.plan.rows(self.dataset.spec.unit_rows(unit))
        files = read_faces(self.plan, rows, self.reader)
        with self.device:
            self.preemption.begin(unit)
            start = time.time()
            futures = self._on_device(rows, files)
            end = time.time()
            notes = self._notes()
        results = [future.result() for future in futures]
        table = to_table(rows, results, source=self.spec.generator, producer=self.dataset.spec.producer_id)
        receipt = self.dataset.commit(unit, table, notes)
        return UnitReport(unit, self.name, receipt, None, start, end, self._take_notices())

    def _on_device(self, rows: Sequence[Row], files: Sequence[FaceFiles]) -> "list[Future[EncodedSample | Failure]]":
        """The unit's pictures, on their way to the encoders; out of memory halves the batch once for the dataset."""
        recorded = recorded_batch_size(self.dataset.store)
        if recorded and recorded != self.generator.batch_size:
            self._rebuild(recorded)
        try:
            return generate_rows(self.generator, rows, self.spec.image, self.encoders, files, self.gates)
        except OutOfMemory as error:
            self.notices.append(f"{error}: batch size {self.generator.batch_size} is halved for the whole dataset")
            self._rebuild(halve_batch_size(self.dataset.store, self.generator.batch_size))
        return generate_rows(self.generator, rows, self.spec.image, self.encoders, files, self.gates)

    def _rebuild(self, batch_size: int) -> None:
        del self.generator  # its memory is needed for the next one
        gc.collect()
        self._build(batch_size)

    def _notes(self) -> dict[str, Any]:
        """What made this shard beyond the spec: kind of device, libraries, batch size in use."""
        notes: dict[str, Any] = getattr(self.generator, "device_notes", dict)()
        return {"batch_size": self.generator.batch_size, **notes}

    def _take_notices(self) -> tuple[str, ...]:
        notices, self.notices = tuple(self.notices), []
        return notices


# -- rows to files


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A picture's file, and what generator and gates say of it; `reason`: why it is rejected, None where it is not."""

    image: EncodedImage
    scores: Mapping[str, float] = field(default_factory=dict)
    box: tuple[float, ...] | None = None
    matrix: tuple[float, ...] | None = None
    reason: str | None = None


def generate_rows(
    generator: Generator,
    rows: Sequence[Row],
    image: ImageConfig,
    encoders: Executor,
    files: Sequence[FaceFiles] = (),
    gates: Gate | None = None,
) -> list[Future[EncodedSample | Failure]]:
    """Makes the rows batch by batch; each batch is encoded by `encoders` while the next one is on the device.

    `files` has those of each row where rows are made from faces; the next batch's are decoded meanwhile, too.
    """
    source_type = getattr(generator, "source_type", images.GENERATED)
    futures = []
    for batch, faces in _batches(generator.batch_size, rows, files, encoders):
        pictures = _pictures(generator, batch, faces)
        verdicts = _verdicts(gates, batch, faces, pictures)
        futures += [
            encoders.submit(encode, picture, image, source_type, verdict)
            for picture, verdict in zip(pictures, verdicts, strict=True)
        ]
    return futures


def _batches(
    size: int, rows: Sequence[Row], files: Sequence[FaceFiles], encoders: Executor
) -> Iterator[tuple[Sequence[Row], list[Faces | Failure]]]:
    """Rows and their faces, a batch at a time; those of the next batch are being decoded. No faces without files."""
    batches = [slice(start, start + size) for start in range(0, len(rows), size)]
    decoding = encoders.submit(decode_faces, files[batches[0]])
    for number, batch in enumerate(batches):
        faces = decoding.result()
        if number + 1 < len(batches):
            decoding = encoders.submit(decode_faces, files[batches[number + 1]])
        yield rows[batch], faces


def read_faces(plan: Plan, rows: Sequence[Row], reader: ImageReader) -> list[FaceFiles]:
    """The image files of the faces that each row is made from; an empty list for a plan without faces."""
    if plan.faces is None:
        return []
    refs = [tuple(plan.faces.image_ref(face) for face in row.faces) for row in rows]
    files = reader.read(ref for of_row in refs for ref in of_row)
    return [tuple(files[ref] for ref in of_row) for of_row in refs]


def decode_faces(files: Sequence[FaceFiles]) -> list[Faces | Failure]:
    """The pictures of rows' faces; several rows of one face share its file and its pixels."""
    decoded: dict[int, np.ndarray | Failure] = {}
    for body in (body for of_row in files for body in of_row):
        if id(body) not in decoded:
            try:
                decoded[id(body)] = Failure("its face has no picture") if body is None else images.decode(body)
            except ValueError as error:
                decoded[id(body)] = Failure(f"its face cannot be read: {error}")
    faces: list[Faces | Failure] = []
    for of_row in files:
        pictures = [decoded[id(body)] for body in of_row]
        failure = next((picture for picture in pictures if isinstance(picture, Failure)), None)
        faces.append(failure or tuple(picture for picture in pictures if isinstance(picture, np.ndarray)))
    return faces


def _pictures(generator: Generator, rows: Sequence[Row], faces: Sequence[Faces | Failure]) -> list[Picture]:
    """One picture or failure per row; rows whose faces could not be read never reach the generator."""
    if not faces:
        return _counted(generator.make(rows), rows)
    readable = {number: face for number, face in enumerate(faces) if not isinstance(face, Failure)}
    given = [rows[number] for number in readable]
    results = _counted(generator.make(given, list(readable.values())), given) if given else []
    pictures = dict(zip(readable, results, strict=True))
    return [face if isinstance(face, Failure) else pictures[number] for number, face in enumerate(faces)]


def _counted(pictures: list[Picture], rows: Sequence[Row]) -> list[Picture]:
    if len(pictures) != len(rows):
        raise RuntimeError(f"the generator returned {len(pictures)} pictures for {len(rows)} rows")
    return pictures


def _verdicts(
    gates: Gate | None, rows: Sequence[Row], faces: Sequence[Faces | Failure], pictures: Sequence[Picture]
) -> list[Verdict]:
    """The gates' verdict on each picture; failures, and arrays that are not valid images, get an empty one."""
    verdicts = [Verdict()] * len(pictures)
    scored = {n: _image(one) for n, one in enumerate(pictures) if not isinstance(one, Failure) and _is_image(one)}
    if gates and scored:
        theirs = [face for face in (faces[n] for n in scored) if not isinstance(face, Failure)] if faces else []
        given = gates.check([rows[n] for n in scored], theirs, list(scored.values()))
        for n, verdict in zip(scored, given, strict=True):
            verdicts[n] = verdict
    return verdicts


def _image(picture: np.ndarray | GeneratedImage) -> GeneratedImage:
    return picture if isinstance(picture, GeneratedImage) else GeneratedImage(picture)


def _is_image(picture: np.ndarray | GeneratedImage) -> bool:
    pixels = _image(picture).pixels
    return pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size > 0


def encode(
    picture: Picture, config: ImageConfig, source_type: str = images.GENERATED, verdict: Verdict | None = None
) -> EncodedSample | Failure:
    """The file of a picture. It is decoded once more, since the recorded hash is that of what readers will see."""
    if isinstance(picture, Failure):
        return picture
    image, verdict = _image(picture), verdict or Verdict()
    try:
        data = images.encode(image.pixels, config, source_type)
        encoded = EncodedImage.from_file(data, images.decode(data))
    except (ValueError, OSError) as error:
        return Failure(f"cannot encode as {config.format}: {error}")
    matrix = None if image.matrix is None else tuple(map(float, image.matrix.ravel()))
    return EncodedSample(encoded, {**image.scores, **verdict.scores}, image.box, matrix, verdict.reason)


def to_table(
    rows: Sequence[Row], results: Sequence[EncodedSample | Failure], *, source: str, producer: str
) -> pa.Table:
    """The unit's samples (schema of `synthfer.sample`), one per row: failed ones without a picture, with a reason."""
    records = [_record(row, result, source, producer) for row, result in zip(rows, results, strict=True)]
    return pa.Table.from_pylist(records, schema=SCHEMA)


def _record(row: Row, result: EncodedSample | Failure, source: str, producer: str) -> dict[str, Any]:
    sample_id = row.sample_id
    record = {
        "sample_id": sample_id,
        "label": row.label,
        "split": row.split,
        "source": source,
        "source_id": row.source_id or sample_id,
        "parent_id": row.parent_id,
        "partner_id": row.partner_id,
        "partner_source_id": row.partner_source_id,
        "derived_from_real_identity": row.real,
        "attributes": dict(row.attributes),
        "prompt": row.prompt,
        "negative_prompt": row.negative_prompt,
        "operation": row.operation,
        "code": row.code,
        "seed": row.seed,
        "producer": producer,
    }
    if isinstance(result, Failure):
        return record | {"decision": "failed", "reason": stored_reason(result.reason)}
    return record | {
        "decision": "rejected" if result.reason else "accepted",
        "reason": stored_reason(result.reason),
        "scores": [{"gate": name, "value": value} for name, value in result.scores.items()] or None,
        "box": result.box,
        "matrix": result.matrix,
        "width": result.image.width,
        "height": result.image.height,
        "pixels_hash": result.image.pixels_hash,
        "image": {"bytes": result.image.data, "path": None},
    }
