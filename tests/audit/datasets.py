"""Small sealed datasets of drawn faces, for the audit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from synthfer import images
from synthfer.expressions import EXPRESSIONS
from synthfer.sample import SCHEMA, imported_sample_id, pixels_hash
from synthfer.sources.avatars import draw, sample_attributes
from synthfer.store import Dataset, Spec

PNG = images.ImageConfig(format="png")


def faces(seeds: Sequence[int]) -> list[np.ndarray]:
    """Drawn faces of 64 x 64 pixels; the expression goes by the seed."""
    return [draw(sample_attributes(seed, EXPRESSIONS[seed % 7])) for seed in seeds]


def dataset(
    uri: Path, pictures: Sequence[np.ndarray], splits: str | Sequence[str] = "train", unit_size: int = 40, **columns
) -> str:
    """A sealed dataset of these pictures; `columns` are lists of values. Labels go round the seven expressions."""
    name, records = uri.name, []
    for row, pixels in enumerate(pictures):
        split = splits if isinstance(splits, str) else splits[row]
        key = imported_sample_id(name, split, str(row))
        record = {
            "sample_id": key, "label": row % 7, "split": split, "source": name, "source_id": key, "producer": "p",
            "decision": "accepted", "width": pixels.shape[1], "height": pixels.shape[0],
            "pixels_hash": pixels_hash(pixels), "image": {"bytes": images.encode(pixels, PNG), "path": None},
        }  # fmt: skip
        records.append(record | {column: values[row] for column, values in columns.items()})
    spec = Spec(
        plan={"kind": "drawn", "name": name},
        producer={"name": "drawn"},
        image={"format": "png"},
        rows=len(records),
        unit_size=unit_size,
    )
    made = Dataset.create(str(uri), spec)
    for unit in range(spec.units):
        rows = spec.unit_rows(unit)
        made.commit(unit, pa.Table.from_pylist(records[rows.start : rows.stop], SCHEMA), {})
    made.seal()
    return str(uri)
