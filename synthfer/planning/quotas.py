"""Quotas: how many rows each expression gets: by number, by an even total, or by what a labelled set lacks."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthfer.expressions import EXPRESSIONS, ORDERS, index_of
from synthfer.files import read_file
from synthfer.limits import MAX_ROWS
from synthfer.planning.plan import PlanConfig
from synthfer.schema import ConfigError, option
from synthfer.suggest import nearest

DEFAULT_TOTAL = 700
MAX_CSV_BYTES = 2**16
"""A table of seven counts."""
_MAX_DIGITS = 12
_SHOWN = 200

# Training images per class as published, in each dataset's own order: FER2013 (Goodfellow et al. 2013),
# RAF-DB basic (Li et al. 2017), AffectNet with seven classes (Mollahosseini et al. 2017).
_PUBLISHED = {
    "fer2013": ("fer2013", (3995, 436, 4097, 7215, 4830, 3171, 4965)),
    "rafdb": ("rafdb", (1290, 281, 717, 4772, 1982, 705, 2524)),
    "affectnet7": ("affectnet", (74874, 134415, 25459, 14090, 6378, 3803, 24882)),
}
PUBLISHED = {
    name: dict(sorted(zip(ORDERS[order], counts, strict=True))) for name, (order, counts) in _PUBLISHED.items()
}


@dataclass(frozen=True, kw_only=True)
class CountsConfig(PlanConfig):
    """The keys of a plan that has no cells. Give at most one of total, per_expression, balance."""

    total: int | None = option(None, "rows in all, spread evenly over the expressions", low=1, high=MAX_ROWS)
    per_expression: int | dict[str, int] | None = option(
        None, "rows of each expression, as {fear: 500}", low=0, high=MAX_ROWS
    )
    balance: str | None = option(
        None,
        "what a labelled set lacks to be uniform: fer2013, rafdb, affectnet7, a dataset, a view, a label,count CSV",
    )
    balance_to: int | None = option(None, "with balance: fill up to this many per expression", low=1, high=MAX_ROWS)

    @property
    def any_count(self) -> bool:
        """Whether any number of rows is asked for."""
        return any(value is not None for value in (self.total, self.per_expression, self.balance, self.balance_to))

    def counts(self, total: int | None = None) -> dict[str, int]:
        """Rows of each expression; `total` where no number is asked for. `ConfigError` as of `quotas`."""
        return quotas(
            dict.fromkeys(EXPRESSIONS, 1),
            total=self.total if self.any_count else total,
            per_expression=self.per_expression,
            balance=self.balance,
            balance_to=self.balance_to,
        )


def quotas(
    cells: Mapping[str, int],
    *,
    total: int | None = None,
    per_expression: int | Mapping[str, int] | None = None,
    per_cell: int | None = None,
    balance: str | None = None,
    balance_to: int | None = None,
) -> dict[str, int]:
    """Rows per expression. `cells` says how many cells each has; at most one way of asking may be given.

    `total` is spread evenly (differences of at most one); a map `per_expression` gives 0 to those it leaves
    out; `balance` (see `labelled_counts`) fills every class up to the largest, or to `balance_to`. Nothing
    given means a total of 700. Raises `ConfigError` for contradictions, negative numbers and no rows at all.
    """
    ways = {"total": total, "per_expression": per_expression, "per_cell": per_cell, "balance": balance}
    given = [f"plan.{name}" for name, value in ways.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} contradict one another: give one")
    if balance_to is not None and balance is None:
        raise ConfigError("plan.balance_to needs plan.balance, which says what there is")
    if per_cell is not None:
        counts = {name: _whole("plan.per_cell", per_cell) * cells[name] for name in EXPRESSIONS}
    elif per_expression is not None:
        counts = _per_expression(per_expression)
    elif balance is not None:
        counts = shortfall(labelled_counts(balance), balance_to)
    else:
        counts = even(DEFAULT_TOTAL if total is None else total)
    if not any(counts.values()):
        raise ConfigError(f"{given[0]} gives every expression 0 rows, so there is nothing to make: ask for more")
    if (rows := sum(counts.values())) > MAX_ROWS:
        raise ConfigError(f"{given[0]} asks for {rows:,} rows; a dataset has {MAX_ROWS:,} at most: ask for less")
    return counts


def even(total: int) -> dict[str, int]:
    """A total over the seven expressions, with differences of at most one."""
    share, rest = divmod(_whole("plan.total", total), len(EXPRESSIONS))
    return {name: share + (i < rest) for i, name in enumerate(EXPRESSIONS)}


def shortfall(counts: Mapping[str, int], to: int | None = None) -> dict[str, int]:
    """How many each class is short of `to`, or of the largest class; 0 for those that have more."""
    goal = max(counts.values()) if to is None else _whole("plan.balance_to", to)
    return {name: max(0, goal - counts[name]) for name in EXPRESSIONS}


def labelled_counts(source: str, key: str = "plan.balance") -> Mapping[str, int]:
    """Images per expression of a labelled set: a published one, a `label,count` CSV, the URI of a dataset or view.

    `key` is the config's, for errors.
    """
    if source in PUBLISHED:
        return PUBLISHED[source]
    if source.lower().endswith(".csv"):
        return csv_counts(source, key)
    if "/" in source or Path(source).exists():
        return dataset_counts(source, key)
    raise ConfigError(
        f"{key}={source}: unknown{nearest(source, PUBLISHED)}; "
        f"it takes {', '.join(PUBLISHED)}, the URI of a dataset, or a CSV file of label,count"
    )


def csv_counts(path: str, key: str = "plan.balance") -> dict[str, int]:
    """Counts of a CSV file with the header `label,count`, one line per class, labels in any usual word."""
    try:
        return _csv_counts(path)
    except ConfigError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{key}={path}: cannot be read: {error}") from None


def dataset_counts(uri: str, key: str = "plan.balance") -> dict[str, int]:
    """Accepted, labelled training rows per expression of a complete dataset, or of a view."""
    from synthfer.store.dataset_ref import open_ref, unit_ranges  # the store is needed for nothing else here

    try:
        ref = open_ref(uri)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"{key}={uri}: {error}") from None
    counts = np.zeros(len(EXPRESSIONS), dtype=np.int64)
    for part in unit_ranges([ref], 2**30):
        for batch in part.batches(["label"], ["train"]):
            counts += np.bincount(batch["label"].drop_null().to_numpy(), minlength=len(EXPRESSIONS))
    return dict(zip(EXPRESSIONS, counts.tolist(), strict=True))


def _csv_counts(path: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    with io.StringIO(read_file(path, MAX_CSV_BYTES).decode("utf-8-sig"), newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if [field.strip().lower() for field in header] != ["label", "count"]:
            raise ConfigError(f"{path}, line 1: expected the header label,count, not {','.join(header)[:_SHOWN]!r}")
        for fields in filter(None, reader):
            try:
                name, count = _csv_line(fields)
                if name in counts:
                    raise ValueError(f"{name} was counted on an earlier line")
            except ValueError as error:
                raise ConfigError(f"{path}, line {reader.line_num}: {error}") from None
            counts[name] = count
        missing = ", ".join(name for name in EXPRESSIONS if name not in counts)
        if missing:
            raise ConfigError(f"{path}, line {reader.line_num}: the end, and no line for {missing} (0 for none)")
    return counts


def _csv_line(fields: list[str]) -> tuple[str, int]:
    if len(fields) != 2:
        raise ValueError(f"expected label,count, not {','.join(fields)[:_SHOWN]!r}")
    if not fields[1].strip().isdecimal() or len(fields[1].strip()) > _MAX_DIGITS:
        raise ValueError(f"expected a count of 0 or more, of at most {_MAX_DIGITS} digits, not {fields[1][:_SHOWN]!r}")
    return EXPRESSIONS[index_of(fields[0])], int(fields[1])


def _per_expression(rows: int | Mapping[str, int]) -> dict[str, int]:
    if not isinstance(rows, Mapping):
        return dict.fromkeys(EXPRESSIONS, _whole("plan.per_expression", rows))
    counts = dict.fromkeys(EXPRESSIONS, 0)
    words: dict[str, str] = {}
    for word, count in rows.items():
        try:
            name = EXPRESSIONS[index_of(word)]
        except ValueError as error:
            raise ConfigError(f"plan.per_expression.{word}: {error}") from None
        if name in words:
            raise ConfigError(f"plan.per_expression: {words[name]} and {word} are the same expression")
        words[name] = word
        counts[name] = _whole(f"plan.per_expression.{word}", count)
    return counts


def _whole(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError(f"{key}: expected an integer of 0 or more, not {value!r}")
    return value
