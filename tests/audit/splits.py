"""Sides of an audit made of facts alone, for the guards that look at no picture."""

import numpy as np
import pyarrow as pa

from synthfer.audit.splits import FACTS, AuditSplit
from synthfer.sample import SCHEMA
from synthfer.store.dataset_ref import UnitRange


def side(name: str, *rows: dict) -> AuditSplit:
    """A side whose rows have these facts; ids are made up from the side's name and the row."""
    filled = [
        {"sample_id": f"{name}{i}", "split": name, "label": 0, "source_id": f"{name}{i}", "pixels_hash": f"{name}{i}"}
        | row
        for i, row in enumerate(rows)
    ]
    schema = pa.schema([SCHEMA.field(column) for column in FACTS])
    facts = pa.Table.from_pylist(filled, schema)
    return AuditSplit(name, (), (name,), (UnitRange(f"{name}-data", (0,)),), facts, np.array([0, len(rows)]))


def sides(train: list[dict], test: list[dict]) -> dict[str, AuditSplit]:
    return {"train": side("train", *train), "test": side("test", *test)}
