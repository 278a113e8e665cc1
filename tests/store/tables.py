"""Small real units for the store's tests: drawn pictures, every kind of decision."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pyarrow as pa

from synthfer import images
from synthfer.sample import SCHEMA, pixels_hash
from synthfer.store import Dataset, Spec

UNIT_SIZE = 6


def spec_of(rows: int = 15, unit_size: int = UNIT_SIZE, **plan: object) -> Spec:
    return Spec(
        plan={"preset": "portrait", "seed": 0, **plan},
        producer={"name": "drawn", "weights": "0" * 64},
        image={"format": "png"},
        rows=rows,
        unit_size=unit_size,
    )


@lru_cache(maxsize=64)
def _picture(number: int, side: int) -> tuple[bytes, str]:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    return images.encode(pixels, images.ImageConfig(format="png")), pixels_hash(pixels)


def ids_of(rows: Iterable[int]) -> list[str]:
    """The sample ids of plan rows, as a plan would give them."""
    return [f"{row:032x}" for row in rows]


def table_of(rows: Iterable[int], side: int = 8, reason: str | None = None) -> pa.Table:
    """The samples of plan rows: every fifth failed, every seventh rejected; `reason` marks a second writer's work."""
    records = []
    for row in rows:
        record = {
            "sample_id": f"{row:032x}", "label": row % 7, "split": "train", "source": "drawn", "producer": "p" * 16,
            "attributes": {"gender": "female", "age": "old"}, "prompt": f"face {row}", "seed": row, "reason": reason,
            "scores": [{"gate": "blank", "value": row / 10}], "decision": "rejected" if row % 7 == 6 else "accepted",
        }  # fmt: skip
        if row % 5 == 4:
            records.append(record | {"decision": "failed", "reason": "blank image"})
        else:
            data, digest = _picture(row % 50, side)
            image = {"bytes": data, "path": None}
            records.append(record | {"width": side, "height": side, "pixels_hash": digest, "image": image})
    return pa.Table.from_pylist(records, SCHEMA)


def with_column(table: pa.Table, name: str, values: list) -> pa.Table:
    """The table with other values in one column."""
    field = SCHEMA.field(name)
    return table.set_column(SCHEMA.names.index(name), field, pa.array(values, field.type))


def filled(uri: str, spec: Spec | None = None, side: int = 8, seal: bool = True) -> Dataset:
    """A dataset with every unit committed."""
    dataset = Dataset.create(uri, spec or spec_of())
    units = dataset.missing().tolist()
    receipts = [dataset.commit(unit, table_of(dataset.spec.unit_rows(unit), side), {}) for unit in units]
    if seal:
        dataset.seal(receipts)
    return dataset
