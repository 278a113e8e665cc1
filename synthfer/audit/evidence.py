"""Pairs of rows that guards find, by row numbers, and the table of them that people and programs read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synthfer.audit.splits import AuditSplit
from synthfer.guards.verdict import PAIRS, Guard, Status


@dataclass(frozen=True)
class Pairs:
    """Pairs that one guard found: `left` and `right` are row numbers (int64, (k,)) of the splits named by `ends`.

    `score` (float64, (k,)) is the guard's own measure, `detail` (k texts) how the two are related.
    """

    guard: Guard
    status: Status
    ends: tuple[str, str]
    left: np.ndarray
    right: np.ndarray
    score: np.ndarray
    detail: np.ndarray

    def __len__(self) -> int:
        return len(self.left)

    @property
    def across(self) -> bool:
        """Whether the pairs join training data with test data."""
        return self.ends == ("train", "test")

    def conflicting(self, splits: Mapping[str, AuditSplit]) -> np.ndarray:
        """Which pairs have two labels that differ, bool (k,)."""
        left, right = (splits[end].labels[rows] for end, rows in zip(self.ends, (self.left, self.right), strict=True))
        differ: np.ndarray = (left != right) & (left >= 0) & (right >= 0)
        return differ


def pairs(
    guard: Guard, status: Status, ends: tuple[str, str], rows: np.ndarray, score: float | np.ndarray, detail: object
) -> Pairs:
    """Pairs from row numbers (k, 2); one score or detail for all is repeated."""
    rows = np.asarray(rows, np.int64).reshape(-1, 2)
    scores = np.broadcast_to(np.asarray(score, float), len(rows))
    details = np.broadcast_to(np.asarray(detail, object), len(rows))
    return Pairs(guard, status, ends, rows[:, 0], rows[:, 1], scores, details)


def flagged(evidence: Iterable[Pairs], splits: Mapping[str, AuditSplit]) -> dict[str, np.ndarray]:
    """For train and test, the rows that are in a failing pair of a training and a test row, bool (n,)."""
    marks = {name: np.zeros(len(split), bool) for name, split in splits.items()}
    for group in evidence:
        if group.across and group.status == "fail":
            marks["train"][group.left] = True
            marks["test"][group.right] = True
    return marks


def table(evidence: Iterable[Pairs], splits: Mapping[str, AuditSplit]) -> pa.Table:
    """All pairs as the table `PAIRS`, in the order given."""
    return pa.concat_tables([PAIRS.empty_table(), *(_table(group, splits) for group in evidence)])


def _table(group: Pairs, splits: Mapping[str, AuditSplit]) -> pa.Table:
    columns: list[pa.Array] = [
        pa.array([group.guard.value] * len(group), pa.string()),
        pa.array([group.status] * len(group), pa.string()),
        pa.array(group.score),
        pa.array(group.detail.tolist(), pa.string()),
    ]
    for end, rows in zip(group.ends, (group.left, group.right), strict=True):
        split = splits[end]
        facts = split.facts.take(rows)
        columns += [
            pa.array([end] * len(group), pa.string()),
            facts["sample_id"].combine_chunks(),
            split.dataset_uris(rows),
            facts["split"].combine_chunks(),
            facts["label"].combine_chunks(),
            facts["source_id"].combine_chunks(),
        ]
    return pa.Table.from_arrays(columns, schema=PAIRS)
