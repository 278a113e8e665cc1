"""The two sides of an audit, training data and test data: which rows of which datasets and views stand on them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.sample import LINEAGE
from synthfer.store.dataset_ref import DatasetRef, UnitRange

FACTS = ("sample_id", "split", "label", *LINEAGE, "pixels_hash")
"""What the guards that need no picture look at."""


@dataclass(frozen=True)
class AuditSplit:
    """One side: its parts, the facts of each row, and the place where each part's rows begin (and the end).

    `facts` has the columns `FACTS`; the rows of `parts[i]` are `starts[i]` to `starts[i + 1]`.
    """

    name: str
    origins: tuple[DatasetRef, ...]
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
        found: np.ndarray = self.facts[column].to_numpy(zero_copy_only=False)
        return found

    def datasets_of(self, rows: np.ndarray) -> pa.Array:
        """The URIs of the datasets that hold some rows (int64, (k,)), as texts (k,)."""
        uris = pa.array([part.dataset for part in self.parts], pa.string())
        return uris.take(pa.array(np.searchsorted(self.starts, rows, "right") - 1))

    def describe(self) -> dict[str, Any]:
        """What stands on this side, as JSON."""
        return {
            "uris": [named.uri for named in self.origins],
            "hashes": [named.hash for named in self.origins],
            "splits": list(self.splits),
            "rows": len(self),
        }
