"""The two splits that an audit compares, training data and test data: which rows of which datasets and views."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.audit.task_pool import TaskPool
from synthfer.sample import LINEAGE, SPLITS
from synthfer.schema import ConfigError
from synthfer.store.dataset_ref import DatasetRef, UnitRange, open_ref, unit_ranges

FACTS = ("sample_id", "split", "label", *LINEAGE, "pixels_hash")
"""The columns that guards read which need no picture."""


@dataclass(frozen=True)
class AuditSplit:
    """Training or test data (`name`): its parts, the facts of each row, and where each part's rows start (and end).

    `facts` has the columns `FACTS`; the rows of `parts[i]` are `starts[i]` to `starts[i + 1]`.
    """

    name: str
    datasets: tuple[DatasetRef, ...]
    splits: tuple[str, ...]
    parts: tuple[UnitRange, ...]
    facts: pa.Table
    starts: np.ndarray

    def __len__(self) -> int:
        return self.facts.num_rows

    @cached_property
    def labels(self) -> np.ndarray:
        """Expression indices, int64 (n,); -1 where there is none."""
        return pc.fill_null(self.facts["label"], -1).to_numpy()

    def texts(self, column: str) -> np.ndarray:
        """A text column as an object array (n,)."""
        values: np.ndarray = self.facts[column].to_numpy(zero_copy_only=False)
        return values

    def dataset_uris(self, rows: np.ndarray) -> pa.Array:
        """The URIs of the datasets that hold some rows (int64, (k,)), as texts (k,)."""
        uris = pa.array([part.dataset for part in self.parts], pa.string())
        return uris.take(pa.array(np.searchsorted(self.starts, rows, "right") - 1))

    def describe(self) -> dict[str, Any]:
        """What is compared, as JSON."""
        return {
            "uris": [named.uri for named in self.datasets],
            "hashes": [named.hash for named in self.datasets],
            "splits": list(self.splits),
            "rows": len(self),
        }


def open_split(name: str, uris: Sequence[str], splits: Sequence[str], block: int, pool: TaskPool) -> AuditSplit:
    """Opens training or test data (`name`) and reads the facts of all its rows, `block` rows in one task.

    `ConfigError` where there is no row, or a dataset is named twice.
    """
    datasets, splits = tuple(map(open_ref, uris)), tuple(splits)
    opened = [dataset.uri for named in datasets for dataset in named.datasets]
    if len(set(opened)) < len(opened):
        twice = next(uri for uri in opened if opened.count(uri) > 1)
        raise ConfigError(f"{name}: {twice} is named twice, by itself or by a view of it; name it once")
    pieces: Sequence[UnitRange] = list(unit_ranges(datasets, block))
    tables: Sequence[pa.Table] = list(pool.map(read_facts, ((part, splits) for part in pieces)))
    filled = [(part, table) for part, table in zip(pieces, tables, strict=True) if table.num_rows]
    if not filled:
        available = {key for part in pieces for key in part.rows(["split"], SPLITS)["split"].unique().to_pylist()}
        others = ", ".join(split for split in SPLITS if split in available)
        raise ConfigError(
            f"{name}: no accepted row of split {' or '.join(splits)} in {', '.join(uris)}; "
            + (f"there are rows of {others}: write {name}_splits=[{others}]" if others else "there is none at all")
        )
    pieces, tables = zip(*filled, strict=True)
    starts = np.cumsum([0, *(table.num_rows for table in tables)])
    return AuditSplit(name, datasets, splits, pieces, pa.concat_tables(tables), starts)


def read_facts(part: UnitRange, splits: Sequence[str]) -> pa.Table:
    """The facts of a part's rows."""
    return part.rows(FACTS, splits)


def uris_of(text: str) -> list[str]:
    """The URIs in a list separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
