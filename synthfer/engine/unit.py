"""One unit of work without Ray: its rows through a generator, a gate and an encoder to the table that is committed.

Rows that are made from faces come with the files of these; a file that cannot be read fails its rows alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from synthfer import images
from synthfer.gates.edits import EditGate
from synthfer.generators import Faces, Failure, GeneratedImage, Generator, Picture
from synthfer.sample import SCHEMA, Row, pixels_hash

Files = tuple[bytes | None, ...]
"""The image files of the faces that a row is made from; None where a sample has no picture."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as it is stored: the file's bytes, size and hash of the pixels that they decode to, and what was seen.

    `reason`: why it is rejected; None where it is accepted.
    """

    data: bytes
    width: int
    height: int
    pixels_hash: str
    scores: Mapping[str, float] = field(default_factory=dict)
    box: tuple[float, ...] | None = None
    matrix: tuple[float, ...] | None = None
    reason: str | None = None

    @classmethod
    def of(cls, data: bytes, pixels: np.ndarray) -> "Encoded":
        """A file and the pixels that it decodes to, uint8 (H, W, 3)."""
        height, width = pixels.shape[:2]
        return cls(data, width, height, pixels_hash(pixels))


def encode(
    picture: Picture, config: images.ImageConfig, source_type: str = images.GENERATED, reason: str | None = None
) -> Encoded | Failure:
    """The file of a picture. It is decoded once more, since the recorded hash is that of what readers will see."""
    if isinstance(picture, Failure):
        return picture
    made = picture if isinstance(picture, GeneratedImage) else GeneratedImage(picture)
    try:
        data = images.encode(made.pixels, config, source_type)
        found = Encoded.of(data, images.decode(data))
    except (ValueError, OSError) as error:
        return Failure(f"cannot encode as {config.format}: {error}")
    matrix = None if made.matrix is None else tuple(map(float, made.matrix.ravel()))
    return replace(found, scores=dict(made.scores), box=made.box, matrix=matrix, reason=reason)


def make_unit(
    generator: Generator,
    rows: Sequence[Row],
    image: images.ImageConfig,
    encoders: Executor,
    files: Sequence[Files] = (),
    gate: EditGate | None = None,
) -> list[Future[Encoded | Failure]]:
    """Makes the rows batch by batch; each batch is encoded by `encoders` while the next one is on the device.

    `files` has those of each row where rows are made from faces; the next batch's are decoded meanwhile, too.
    """
    source_type = getattr(generator, "source_type", images.GENERATED)
    futures = []
    for batch, faces in _batches(generator.batch_size, rows, files, encoders):
        pictures = _made(generator, batch, faces)
        verdicts = _judged(gate, batch, faces, pictures) if gate and faces else [(one, None) for one in pictures]
        futures += [encoders.submit(encode, picture, image, source_type, reason) for picture, reason in verdicts]
    return futures


def _batches(
    size: int, rows: Sequence[Row], files: Sequence[Files], encoders: Executor
) -> Iterator[tuple[Sequence[Row], list[Faces | Failure]]]:
    """Rows and their faces, a batch at a time; those of the next batch are being decoded. No faces without files."""
    cuts = [slice(start, start + size) for start in range(0, len(rows), size)]
    ahead = encoders.submit(decoded, files[cuts[0]])
    for number, cut in enumerate(cuts):
        faces = ahead.result()
        if number + 1 < len(cuts):
            ahead = encoders.submit(decoded, files[cuts[number + 1]])
        yield rows[cut], faces


def decoded(files: Sequence[Files]) -> list[Faces | Failure]:
    """The pictures of rows' faces; several rows of one face share its file and its pixels."""
    known: dict[int, np.ndarray | Failure] = {}
    for body in (body for row in files for body in row):
        if id(body) not in known:
            try:
                known[id(body)] = Failure("its face has no picture") if body is None else images.decode(body)
            except ValueError as error:
                known[id(body)] = Failure(f"its face cannot be read: {error}")
    found: list[Faces | Failure] = []
    for row in files:
        pictures = [known[id(body)] for body in row]
        bad = next((one for one in pictures if isinstance(one, Failure)), None)
        found.append(bad or tuple(one for one in pictures if isinstance(one, np.ndarray)))
    return found


def _made(generator: Generator, rows: Sequence[Row], faces: Sequence[Faces | Failure]) -> list[Picture]:
    """One picture or failure per row; rows whose faces could not be read never reach the generator."""
    if not faces:
        return _as_many(generator.make(rows), rows)
    good = {number: face for number, face in enumerate(faces) if not isinstance(face, Failure)}
    some = [rows[number] for number in good]
    made = dict(zip(good, _as_many(generator.make(some, list(good.values())), some) if good else [], strict=True))
    return [face if isinstance(face, Failure) else made[number] for number, face in enumerate(faces)]


def _as_many(pictures: list[Picture], rows: Sequence[Row]) -> list[Picture]:
    if len(pictures) != len(rows):
        raise RuntimeError(f"the generator returned {len(pictures)} pictures for {len(rows)} rows")
    return pictures


def _judged(
    gate: EditGate, rows: Sequence[Row], faces: Sequence[Faces | Failure], pictures: Sequence[Picture]
) -> list[tuple[Picture, str | None]]:
    """Pictures with the gate's scores, each with the reason why it is rejected, if it is."""
    found: list[tuple[Picture, str | None]] = [(picture, None) for picture in pictures]
    ready = [
        (number, rows[number], face, picture if isinstance(picture, GeneratedImage) else GeneratedImage(picture))
        for number, (face, picture) in enumerate(zip(faces, pictures, strict=True))
        if not isinstance(picture, Failure) and not isinstance(face, Failure) and face
    ]
    if ready:
        numbers, some, theirs, made = (list(column) for column in zip(*ready, strict=True))
        for number, one, scores in zip(numbers, made, gate.score(some, theirs, made), strict=True):
            found[number] = replace(one, scores={**one.scores, **scores}), gate.decide(scores)
    return found


def to_table(rows: Sequence[Row], results: Sequence[Encoded | Failure], *, source: str, producer: str) -> pa.Table:
    """The unit's samples (schema of `synthfer.sample`), one per row: failed ones without a picture, with a reason."""
    records = [_record(row, result, source, producer) for row, result in zip(rows, results, strict=True)]
    return pa.Table.from_pylist(records, schema=SCHEMA)


def _record(row: Row, result: Encoded | Failure, source: str, producer: str) -> dict:
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
        return record | {"decision": "failed", "reason": result.reason}
    return record | {
        "decision": "rejected" if result.reason else "accepted",
        "reason": result.reason,
        "scores": [{"gate": name, "value": value} for name, value in result.scores.items()] or None,
        "box": result.box,
        "matrix": result.matrix,
        "width": result.width,
        "height": result.height,
        "pixels_hash": result.pixels_hash,
        "image": {"bytes": result.data, "path": None},
    }
