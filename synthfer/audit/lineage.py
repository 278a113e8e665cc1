"""Guard G1: no training sample descends from a test sample, or the reverse, or shows the same person."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.audit.evidence import Pairs, pairs
from synthfer.audit.splits import AuditSplit
from synthfer.guards.verdict import Guard, Verdict

# How a training row can be related to a test row: their columns that agree, and what that means.
_RELATIONS = (
    ("sample_id", "sample_id", "is the same sample"),
    ("parent_id", "sample_id", "was made from it"),
    ("source_id", "sample_id", "descends from it"),
    ("sample_id", "parent_id", "is what it was made from"),
    ("sample_id", "source_id", "is what it descends from"),
    ("parent_id", "parent_id", "was made from the same sample"),
    ("source_id", "source_id", "shares its identity or original"),
    ("partner_id", "sample_id", "was made from it and another"),
    ("partner_source_id", "sample_id", "descends from it and another"),
    ("partner_source_id", "source_id", "descends from its identity or original and another"),
    ("partner_id", "parent_id", "was made from the same sample and another"),
    ("sample_id", "partner_id", "is one of the two that it was made from"),
    ("sample_id", "partner_source_id", "is one of the two that it descends from"),
    ("source_id", "partner_source_id", "is of the identity or original of one of the two that it was made from"),
    ("parent_id", "partner_id", "was made from one of the two that it was made from"),
    ("partner_id", "partner_id", "was made from the same second sample"),
    ("partner_source_id", "partner_source_id", "shares the second identity or original"),
)


def shared_lineage(splits: Mapping[str, AuditSplit]) -> tuple[Verdict, list[Pairs]]:
    """The verdict, and pairs: every train row that is related to a test row is in at least one, and the reverse."""
    train, test = splits["train"], splits["test"]
    evidence, related = [], {"train": np.zeros(len(train), bool), "test": np.zeros(len(test), bool)}
    for train_column, test_column, meaning in _RELATIONS:
        rows = _related(train.facts[train_column], test.facts[test_column])
        rows = rows[~(related["train"][rows[:, 0]] & related["test"][rows[:, 1]])]
        related["train"][rows[:, 0]] = related["test"][rows[:, 1]] = True
        evidence.append(pairs(Guard.SHARED_LINEAGE, "fail", ("train", "test"), rows, 1.0, meaning))
    numbers = {f"{name}_rows": int(mark.sum()) for name, mark in related.items()}
    count = numbers["train_rows"]
    message = (
        f"{count:,} training rows are related to {numbers['test_rows']:,} test rows: remove them, or split by lineage."
        if count
        else "No training row and test row descend from each other or share an identity."
    )
    verdict = Verdict(
        guard=Guard.SHARED_LINEAGE,
        status="fail" if count else "pass",
        threshold="no shared sample, parent, original or identity",
        message=message,
        numbers=numbers,
    )
    return verdict, evidence


def _related(train: pa.ChunkedArray, test: pa.ChunkedArray) -> np.ndarray:
    """Pairs (k, 2) of rows with one value: each train row with the first such test row, and the reverse."""
    forward, backward = _first(train, test), _first(test, train)
    rows = np.concatenate([forward, backward[:, ::-1]])
    return np.unique(rows, axis=0) if len(rows) else rows


def _first(of: pa.ChunkedArray, among: pa.ChunkedArray) -> np.ndarray:
    """Pairs (k, 2): rows of `of` whose value is in `among`, with the first row there; nulls match nothing."""
    if not len(of) or not len(among):
        return np.empty((0, 2), np.int64)
    position = pc.index_in(of, value_set=among.combine_chunks(), skip_nulls=True)
    hit = np.flatnonzero(pc.is_valid(position).to_numpy())
    return np.stack([hit, position.drop_null().to_numpy().astype(np.int64)], axis=1)
