"""A sealed dataset of small pictures with labels, identities and splits, for plans of faces."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from synthfer import images
from synthfer.expressions import EXPRESSIONS
from synthfer.sample import SCHEMA, pixels_hash
from synthfer.store import Dataset, Spec

LOSSLESS = images.ImageConfig(format="png")


def faces_dataset(
    folder: Path,
    labels: list[int | None],
    *,
    identities: list[str] | None = None,
    splits: list[str] | None = None,
    broken: tuple[int, ...] = (),
    rejected: tuple[int, ...] = (),
    kind: str = "synthetic",
    unit_size: int = 8,
    size: int = 24,
) -> str:
    """Its URI. The pictures of `broken` rows cannot be decoded; those of `rejected` rows are rejected."""
    count = len(labels)
    producer = {"kind": kind, "source": "made", "source_type": "algorithmicMedia", "licence": "none needed"}
    spec = Spec(plan={"kind": "collection"}, producer=producer, image={}, rows=count, unit_size=unit_size)
    dataset = Dataset.create(str(folder), spec)
    with ThreadPoolExecutor(1) as pool:
        records = list(pool.map(lambda i: _record(i, labels[i], size, kind), range(count)))
    for i, record in enumerate(records):
        record["source_id"] = identities[i] if identities else record["sample_id"]
        record["split"] = splits[i] if splits else "train"
        if i in broken:
            record["image"] = {"bytes": record["image"]["bytes"][:40], "path": None}
        if i in rejected:
            record |= {"decision": "rejected", "reason": "made so"}
    for unit in range(spec.units):
        rows = spec.unit_rows(unit)
        dataset.commit(unit, pa.Table.from_pylist([records[i] for i in rows], schema=SCHEMA), {})
    dataset.seal()
    return dataset.uri


def _record(index: int, label: int | None, size: int, kind: str) -> dict:
    noise = np.random.default_rng(index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    pixels = np.kron(noise, np.ones((size // 4, size // 4, 1), np.uint8))
    return {
        "sample_id": f"face-{index:04d}",
        "label": label,
        "source": "made",
        "attributes": {"gender": "female" if index % 2 else "male", "intensity": "clear"},
        "derived_from_real_identity": kind == "real",
        "producer": "made",
        "decision": "accepted",
        "width": size,
        "height": size,
        "pixels_hash": pixels_hash(pixels),
        "image": {"bytes": images.encode(pixels, LOSSLESS), "path": None},
    }


def even(count: int) -> list[int | None]:
    """Labels that take turns."""
    return [i % len(EXPRESSIONS) for i in range(count)]
