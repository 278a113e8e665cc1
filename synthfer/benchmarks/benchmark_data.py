"""Sealed datasets for benchmarks: noise where content does not matter, drawn faces where files must be realistic."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from synthfer.expressions import EXPRESSIONS
from synthfer.images import ImageConfig, encode
from synthfer.sample import SCHEMA, imported_sample_id, pixels_hash, seed_of
from synthfer.sources import avatars
from synthfer.store import Dataset, Spec

_DRAWN = 63
_UNIT_SIZE = 256


def noise(count: int, side: int) -> list[np.ndarray]:
    """Pictures of even noise, uint8 (side, side, 3)."""
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, side, side, 3), np.uint8))


def faces(count: int, side: int) -> list[np.ndarray]:
    """A few drawn faces over and over, uint8 (side, side, 3), each time with other grain, so that no two are equal."""
    drawn = [
        avatars.draw(avatars.sample_attributes(seed_of(0, "benchmark", k), EXPRESSIONS[k % len(EXPRESSIONS)]), side)
        for k in range(min(count, _DRAWN))
    ]
    rng = np.random.default_rng(0)
    grain = (rng.integers(-3, 4, drawn[0].shape, np.int16) for _ in range(count))
    return [np.clip(drawn[k % len(drawn)] + some, 0, 255).astype(np.uint8) for k, some in enumerate(grain)]


def seal(uri: Path, pictures: Sequence[np.ndarray], split: str, image: ImageConfig | None = None) -> str:
    """A sealed dataset of these pictures; labels go round the seven expressions."""
    image, rows = image or ImageConfig(), []
    for number, pixels in enumerate(pictures):
        key = imported_sample_id(uri.name, split, str(number))
        rows.append({
            "sample_id": key, "label": number % len(EXPRESSIONS), "split": split, "source": uri.name, "source_id": key,
            "producer": "benchmark", "decision": "accepted", "width": pixels.shape[1], "height": pixels.shape[0],
            "pixels_hash": pixels_hash(pixels), "image": {"bytes": encode(pixels, image), "path": None},
        })  # fmt: skip
    spec = Spec(
        plan={"kind": "benchmark", "name": uri.name},
        producer={"name": "benchmark"},
        image={"format": image.format},
        rows=len(rows),
        unit_size=_UNIT_SIZE,
    )
    dataset = Dataset.create(str(uri), spec)
    for unit in range(spec.units):
        members = spec.unit_rows(unit)
        dataset.commit(unit, pa.Table.from_pylist(rows[members.start : members.stop], SCHEMA), {})
    dataset.seal()
    return str(uri)
