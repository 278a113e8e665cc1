"""One unit of work without Ray: a unit's rows through a generator and an encoder to the table that is committed."""

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synthfer import images
from synthfer.generators import Failure, Generator, Picture
from synthfer.sample import SCHEMA, Row, pixels_hash


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture as it is stored: the file's bytes, and size and hash of the pixels that they decode to."""

    data: bytes
    width: int
    height: int
    pixels_hash: str

    @classmethod
    def of(cls, data: bytes, pixels: np.ndarray) -> "Encoded":
        """A file and the pixels that it decodes to, uint8 (H, W, 3)."""
        height, width = pixels.shape[:2]
        return cls(data, width, height, pixels_hash(pixels))


def encode(picture: Picture, config: images.ImageConfig) -> Encoded | Failure:
    """The file of a picture. It is decoded once more, since the recorded hash is that of what readers will see."""
    if isinstance(picture, Failure):
        return picture
    try:
        data = images.encode(picture, config)
        return Encoded.of(data, images.decode(data))
    except (ValueError, OSError) as error:
        return Failure(f"cannot encode as {config.format}: {error}")


def make_unit(
    generator: Generator, rows: Sequence[Row], image: images.ImageConfig, encoders: Executor
) -> list[Future[Encoded | Failure]]:
    """Makes the rows batch by batch; each batch is encoded by `encoders` while the next one is on the device."""
    futures = []
    for start in range(0, len(rows), generator.batch_size):
        batch = rows[start : start + generator.batch_size]
        pictures = generator.make(batch)
        if len(pictures) != len(batch):
            raise RuntimeError(f"the generator returned {len(pictures)} pictures for {len(batch)} rows")
        futures += [encoders.submit(encode, picture, image) for picture in pictures]
    return futures


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
        "attributes": dict(row.attributes),
        "prompt": row.prompt,
        "negative_prompt": row.negative_prompt,
        "code": row.code,
        "seed": row.seed,
        "producer": producer,
    }
    if isinstance(result, Failure):
        return record | {"decision": "failed", "reason": result.reason}
    return record | {
        "decision": "accepted",
        "width": result.width,
        "height": result.height,
        "pixels_hash": result.pixels_hash,
        "image": {"bytes": result.data, "path": None},
    }
