"""What all kinds of plan share: rows 0..len-1, each computed in constant time and the same on every machine."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synthfer.limits import MAX_UNIT_ROWS
from synthfer.sample import Row
from synthfer.schema import ConfigError, option

if TYPE_CHECKING:
    from synthfer.planning.faces import FaceTable

UNLABELLED = "none"
"""Stands for the expression of rows that ask for none, as in the counts of a dataset."""


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """The keys that every kind of plan has."""

    seed: int = option(0, "the seed of everything the plan draws, and of the pictures' noise", low=0, high=10**18)
    unit_size: int | None = option(
        None, "rows per unit of work and commit (null: chosen by a probe)", low=1, high=MAX_UNIT_ROWS
    )


class Plan(ABC):
    """The rows of what to make. `faces` is the table of the faces that they are made from, None for none."""

    method: int
    """Version of the rule that makes rows from a spec; it goes up when rows would change."""
    faces: "FaceTable | None" = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, index: int) -> Row:
        """Row `index`, 0 <= index < len."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Rows of each expression, and of `UNLABELLED` where there are such."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """Everything that the rows are computed from, as JSON; a table of faces by its hash."""

    @abstractmethod
    def summary(self, limit: int = 7000) -> dict[str, Any]:
        """What a dry run shows, as JSON: rows, expressions, and attributes counted over the first `limit` rows."""

    def __getitem__(self, index: int) -> Row:
        """Row `index`; `IndexError` outside."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} is not in a plan of {len(self)} rows")
        return self.row(index)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.spec() == other.spec()

    __hash__ = None  # type: ignore[assignment]

    def rows(self, indices: range) -> list[Row]:
        """The rows of a unit."""
        return [self[index] for index in indices]

    def texts(self, limit: int) -> set[str | None] | None:
        """Every prompt and negative prompt of the plan; None where there are none, or may be more than `limit`."""
        return None

    def attribute_counts(self, limit: int) -> dict[str, Any]:
        """JSON: `attributes`, rows per value among the first `counted` rows, which are all if at most `limit`."""
        rows = self.rows(range(min(limit, len(self))))
        counts: dict[str, Counter[str]] = {}
        for row in rows:
            for name, value in row.attributes.items():
                counts.setdefault(name, Counter())[value] += 1
        return {"counted": len(rows), "attributes": {name: dict(sorted(by.items())) for name, by in counts.items()}}

    def cells_per_expression(self) -> dict[str, int]:
        """How many cells each expression has, where the plan lays them out."""
        return {}

    def check_method(self, spec: Mapping[str, Any]) -> None:
        """`ConfigError` where another version of the method wrote the spec."""
        if spec["method"] != self.method:
            raise ConfigError(
                f"the plan was made by method {spec['method']}, this version of synthfer has method {self.method}, "
                "so rows would differ: go on with the version that started the dataset, or choose another out="
            )


def check_range(name: str, span: Sequence[float]) -> None:
    """`ValueError` where an option that names a least and a most number does not."""
    if len(span) != 2 or span[0] > span[1]:
        raise ValueError(f"{name}: expected the least and the most, as [0.5,1.5], not {list(span)}")
