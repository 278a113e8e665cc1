"""A long-tailed selection of a dataset, as a control: how does a method do where some classes are rare?

The exponential profile of Cui, Jia, Lin, Song and Belongie (CVPR 2019): of classes with rows, from the most to the
least frequent, number i of K keeps n_max * ratio^(-i / (K - 1)) rows, or all that it has.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.sample import SPLITS, seed_of
from synthfer.store.dataset_ref import DatasetRef, unit_ranges

_COLUMNS = ("sample_id", "label", "split")


def profile(counts: np.ndarray, ratio: float) -> np.ndarray:
    """Rows that each class keeps, int64 (K,), of `counts` int64 (K,); `ratio` >= 1 of the first to the last.

    Every class that has a row keeps one at least; equal counts rank by index.
    """
    ranks = np.empty(len(counts), np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    last = max(1, int(np.count_nonzero(counts)) - 1)
    wanted = counts.max() * ratio ** (-ranks / last)
    kept: np.ndarray = np.minimum(np.maximum(np.rint(wanted).astype(np.int64), 1), counts)
    return kept


def long_tail(ref: DatasetRef, ratio: float, seed: int, split: str = "train") -> pa.Table:
    """The selection (`synthfer.store.view.SCHEMA`) that leaves out rows until a long tail of `ratio` is left.

    Which rows of a class stay is drawn by `seed` and their ids. Rows of other splits are not touched. `ValueError`
    where there is no labelled row of `split`.
    """
    assert split in SPLITS
    rows = pa.concat_tables(part.rows(_COLUMNS, [split]) for part in unit_ranges([ref], 2**30))
    rows = rows.filter(pc.is_valid(rows["label"]))
    if not rows.num_rows:
        raise ValueError(f"{ref.uri} has no accepted labelled row of split {split} to make a long tail of")
    labels, ids = rows["label"].to_numpy(), rows["sample_id"].to_pylist()
    keep = profile(np.bincount(labels), ratio)
    out = [key for label in np.unique(labels) for key in _in_seeded_order(ids, labels == label, seed)[keep[label] :]]
    return pa.table(
        {
            "sample_id": pa.array(sorted(out), pa.string()),
            "decision": pa.array(["rejected"] * len(out), pa.string()),
            "reason": pa.array([f"long tail {ratio:g}:1"] * len(out), pa.string()),
            "weight": pa.array([0.0] * len(out), pa.float64()),
        }
    )


def _in_seeded_order(ids: Sequence[str], members: np.ndarray, seed: int) -> list[str]:
    """The ids of a class in an order drawn by the seed."""
    return sorted((ids[int(row)] for row in np.flatnonzero(members)), key=lambda key: seed_of(seed, "long tail", key))
