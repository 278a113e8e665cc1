"""What a dataset holds, counted over its metadata: no picture is read.

Memory is bounded whatever the dataset's size: counters stop taking new names at a limit.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.expressions import EXPRESSIONS
from synthfer.planning import open_plan
from synthfer.sample import ATTRIBUTES
from synthfer.store import Dataset

UNLABELLED = "unlabelled"
MAX_CELLS = 100_000
MAX_NAMES = 1_000
SAMPLE_COLUMNS = ("sample_id", "label", "attributes", "prompt", "seed", "decision", "reason", "scores")
_GROUP = ["label", "decision", *ATTRIBUTES]
_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")

Sample = dict[str, Any]


def expression_of(label: int | None) -> str:
    """The name of a label; a null label is `unlabelled`."""
    return UNLABELLED if label is None else EXPRESSIONS[label]


@dataclass(slots=True)
class Reason:
    """Why rows were not accepted: how many of them, and the first few."""

    rows: int = 0
    examples: list[Sample] = field(default_factory=list)


@dataclass(slots=True)
class DatasetCounts:
    """Rows by expression and decision; by attribute, value and expression; accepted rows by cell; reasons."""

    rows: int = 0
    decisions: dict[str, Counter[str]] = field(default_factory=dict)
    values: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    cells: dict[str, Counter[tuple[str | None, ...]]] = field(default_factory=dict)
    cells_complete: bool = True
    reasons: dict[tuple[str, str], Reason] = field(default_factory=dict)

    def total(self, decision: str) -> int:
        """Rows of one decision over all expressions."""
        return sum(counts[decision] for counts in self.decisions.values())

    def expressions(self) -> list[str]:
        """The seven, and `unlabelled` where there are such rows."""
        return [*EXPRESSIONS, *(name for name in self.decisions if name not in EXPRESSIONS)]


@dataclass(frozen=True, slots=True)
class PlannedCounts:
    """What a plan asks for: rows and cells of each expression, and its attributes' values in their order."""

    rows: Mapping[str, int] = field(default_factory=dict)
    cells: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, list[str]] = field(default_factory=dict)


def planned_counts(dataset: Dataset) -> PlannedCounts:
    """What the dataset's plan asks for; nothing for a dataset that was read, not planned."""
    try:
        plan = open_plan(dataset)
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        return PlannedCounts()
    values = {name: list(rows) for name, rows in plan.summary(limit=0)["attributes"].items()}
    return PlannedCounts(plan.counts(), plan.cells_per_expression(), values)


def reason_of(reason: str | None) -> str:
    """A reason without its numbers, so that reasons which differ in these only are one."""
    return _NUMBER.sub("#", reason or "no reason given")


def count_rows(dataset: Dataset) -> DatasetCounts:
    """Count all committed rows; no picture is read."""
    counts = DatasetCounts()
    for groups in grouped(dataset.scan(columns=["label", "decision", "attributes"])):
        for group in groups.to_pylist():
            _count(counts, group, group["rows"])
    if counts.total("accepted") < counts.rows:
        columns = list(SAMPLE_COLUMNS)
        for batch in dataset.scan(columns=columns, where=pc.field("decision") != "accepted"):
            for sample in batch.to_pylist():
                _count_reason(counts, sample)
    return counts


def grouped(batches: Iterable[pa.RecordBatch], most: int = 200_000) -> Iterator[pa.Table]:
    """Rows counted by label, decision and attributes, in as few tables as `most` rows held at a time allow."""
    held: list[pa.Table] = []
    for batch in batches:
        columns = [batch["label"], batch["decision"], *batch["attributes"].flatten(), np.ones(len(batch), np.int64)]
        held.append(pa.table(columns, [*_GROUP, "rows"]))
        if sum(map(len, held)) > most:
            held = [_merged(held)]
            if len(held[0]) > most // 2:
                yield held.pop()
    if held:
        yield _merged(held)


def _merged(tables: list[pa.Table]) -> pa.Table:
    groups = pa.concat_tables(tables).group_by(_GROUP).aggregate([("rows", "sum")])
    return groups.rename_columns({"rows_sum": "rows"}).select([*_GROUP, "rows"])


def _count(counts: DatasetCounts, group: Mapping[str, Any], rows: int) -> None:
    counts.rows += rows
    expression = expression_of(group["label"])
    counts.decisions.setdefault(expression, Counter())[group["decision"]] += rows
    if group["decision"] == "accepted":
        _count_accepted(counts, expression, group, rows)


def _count_accepted(counts: DatasetCounts, expression: str, group: Mapping[str, Any], rows: int) -> None:
    for name in ATTRIBUTES:
        if group[name] is not None:
            values = counts.values.setdefault(name, {})
            if group[name] in values or len(values) < MAX_NAMES:
                values.setdefault(group[name], Counter())[expression] += rows
    cells = counts.cells.setdefault(expression, Counter())
    cell = tuple(group[name] for name in ATTRIBUTES)
    if cell in cells or sum(map(len, counts.cells.values())) < MAX_CELLS:
        cells[cell] += rows
    else:
        counts.cells_complete = False


def _count_reason(counts: DatasetCounts, sample: Sample, examples: int = 3) -> None:
    key = (sample["decision"], reason_of(sample["reason"]))
    if key not in counts.reasons and len(counts.reasons) >= MAX_NAMES:
        key = (sample["decision"], "other reasons")
    reason = counts.reasons.setdefault(key, Reason())
    reason.rows += 1
    if len(reason.examples) < examples:
        reason.examples.append(sample)
