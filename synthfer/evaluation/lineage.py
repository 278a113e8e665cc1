"""Guard G1: no training sample descends from a test sample, or the reverse, or shows its person."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.evaluation.evidence import Pairs, pairs
from synthfer.evaluation.sides import AuditSplit
from synthfer.evaluation.verdict import Verdict

# How a training row may be tied to a test row: the columns that agree, and what that means.
_TIES = (
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


def lineage(sides: Mapping[str, AuditSplit]) -> tuple[Verdict, list[Pairs]]:
    """Every row of either side that is tied to one of the other stands in at least one pair."""
    train, test = sides["train"], sides["test"]
    found, tied = [], {"train": np.zeros(len(train), bool), "test": np.zeros(len(test), bool)}
    for theirs, ours, meaning in _TIES:
        rows = _ties(train.facts[theirs], test.facts[ours])
        rows = rows[~(tied["train"][rows[:, 0]] & tied["test"][rows[:, 1]])]
        tied["train"][rows[:, 0]] = tied["test"][rows[:, 1]] = True
        found.append(pairs("G1", "fail", ("train", "test"), rows, 1.0, meaning))
    numbers = {f"{name}_rows": int(mark.sum()) for name, mark in tied.items()}
    bad = numbers["train_rows"]
    message = (
        f"{bad:,} training rows are tied to {numbers['test_rows']:,} test rows: leave them out, or split by lineage."
        if bad
        else "No training row and test row descend from each other or share an identity."
    )
    verdict = Verdict(
        guard="G1",
        name="lineage",
        status="fail" if bad else "pass",
        threshold="no shared sample, parent, original or identity",
        message=message,
        numbers=numbers,
    )
    return verdict, found


def _ties(train: pa.ChunkedArray, test: pa.ChunkedArray) -> np.ndarray:
    """Pairs (k, 2) of rows with one value: each train row with the first such test row, and the reverse."""
    there = _first(train, test)
    back = _first(test, train)
    rows = np.concatenate([there, back[:, ::-1]])
    return np.unique(rows, axis=0) if len(rows) else rows


def _first(of: pa.ChunkedArray, among: pa.ChunkedArray) -> np.ndarray:
    """Pairs (k, 2): rows of `of` whose value is in `among`, with the first row there; nulls match nothing."""
    if not len(of) or not len(among):
        return np.empty((0, 2), np.int64)
    place = pc.index_in(of, value_set=among.combine_chunks(), skip_nulls=True)
    hit = np.flatnonzero(pc.is_valid(place).to_numpy())
    return np.stack([hit, place.drop_null().to_numpy().astype(np.int64)], axis=1)
