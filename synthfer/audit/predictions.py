"""Predictions for the test rows: those of a file, or those of the nearest training picture.

The nearest picture's label is the simplest classifier, and the one that gains most from copies of test rows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.audit.splits import AuditSplit
from synthfer.expressions import EXPRESSIONS, index_of
from synthfer.sources.parquet_files import ERRORS, LIST_ROWS, open_parquet


def read_predictions(path: str, test: AuditSplit) -> np.ndarray:
    """A classifier's predictions from a Parquet file with `sample_id` and `predicted` or `label_probs`: int64 (n,).

    `predicted` is an expression index or name, `label_probs` seven numbers. Predictions for other samples are not used;
    a test row without a label needs none and may get -1. `ValueError` names a missing column, a value that is not an
    expression, a sample that occurs twice, or how many labelled test rows have no prediction.
    """
    table = _read(path)
    column = next((name for name in ("predicted", "label_probs") if name in table.column_names), None)
    if "sample_id" not in table.column_names or column is None:
        raise ValueError(f"predictions: {path} needs sample_id and predicted or label_probs; it has "
                         f"{', '.join(table.column_names)}")  # fmt: skip
    given, wanted = _ids(table["sample_id"], path), test.facts["sample_id"]
    for ids, where in ((given, path), (wanted, "the test data")):
        if pc.count_distinct(ids, mode="all").as_py() != len(ids):
            raise ValueError(f"predictions: a sample_id occurs twice in {where}, so its prediction is not clear")
    try:
        values = np.array([-1, *map(_index, table[column].to_pylist())], np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"predictions: {path}: {error}") from error
    predicted = values[pc.fill_null(pc.index_in(wanted, value_set=given.combine_chunks()), -1).to_numpy() + 1]
    labelled = test.labels >= 0
    absent = np.flatnonzero(labelled & (predicted < 0))
    if len(absent):
        raise ValueError(f"predictions: {path} has no prediction for {len(absent):,} of {labelled.sum():,} labelled "
                         f"test rows ({wanted[int(absent[0])]} is the first): give one for each")  # fmt: skip
    return predicted


def _read(path: str) -> pa.Table:
    """The columns of a file that are used, read in batches; `ValueError` says why it cannot be read."""
    try:
        with open_parquet(Path(path)) as file:
            names = file.schema.names
            columns = [name for name in names if name in ("sample_id", "predicted", "label_probs")]
            if columns and len(set(names)) == len(names):
                groups = range(len(file.groups))
                parts = [part for group in groups for part in file.batches(group, columns, LIST_ROWS)]
                schema = pa.schema([file.schema.field(name) for name in columns])
                return pa.Table.from_batches(parts, schema)
            return file.schema.empty_table()
    except FileNotFoundError as error:
        raise ValueError(f"predictions: there is no file {path}") from error
    except ERRORS as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"predictions: {path} cannot be read as Parquet: {reason}") from error


def _ids(column: pa.ChunkedArray, path: str) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise ValueError(f"predictions: {path}: sample_id holds {column.type}, not texts") from error


def _index(value: int | float | str | Sequence[float] | None) -> int:
    """The expression of a prediction, -1 for null; `ValueError` where it is not an expression."""
    if value is None:
        return -1
    if isinstance(value, str):
        return index_of(value)
    if isinstance(value, Sequence):
        probs = np.asarray(value, float)
        if probs.shape != (len(EXPRESSIONS),) or not np.isfinite(probs).all():
            raise ValueError(f"label_probs {value} are not {len(EXPRESSIONS)} numbers")
        return int(probs.argmax())
    if value not in range(len(EXPRESSIONS)):
        raise ValueError(f"predicted {value!r} is not an expression: give a name, or an index from 0 to 6")
    return int(value)


def shuffled_accuracy(nearest: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, float]:
    """Part of the self-test: accuracy of the nearest training row when the training labels are shuffled, and chance.

    `nearest`: train row of each test row, int64 (m,), -1 for none; labels int64, -1 for none. `limit` is how far from
    chance the accuracy may lie, five standard errors; NaN accuracy where no row has a label and a neighbour.
    """
    rng, mixed = np.random.default_rng(seed), train.copy()
    labelled = np.flatnonzero(mixed >= 0)
    mixed[labelled] = mixed[rng.permutation(labelled)]
    known = (nearest >= 0) & (test >= 0)
    known[known] = mixed[nearest[known]] >= 0
    if not known.any():
        return {"accuracy": float("nan"), "chance": float("nan"), "limit": float("nan")}
    shares = [
        np.bincount(labels, minlength=len(EXPRESSIONS)) / len(labels) for labels in (train[labelled], test[known])
    ]
    chance = float(shares[0] @ shares[1])
    predicted = mixed[nearest[known]]
    # Test rows that share a nearest row are right or wrong together, so fewer of them count (Kish's effective size).
    uses = np.unique(nearest[known], return_counts=True)[1].astype(float)
    independent = uses.sum() ** 2 / (uses**2).sum()
    return {
        "accuracy": float((predicted == test[known]).mean()),
        "chance": chance,
        "limit": float(5 * np.sqrt(chance * (1 - chance) / independent)),
    }


def nearest_labels(nearest: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The label of each test row's nearest training row, int64 (m,); -1 where there is none."""
    if not len(train):
        return np.full(len(nearest), -1, np.int64)
    return np.where(nearest >= 0, train[nearest], -1)
