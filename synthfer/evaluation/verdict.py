"""What an audit says: one verdict per guard, and the pairs of samples that are its evidence."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa

Status = Literal["pass", "warn", "fail", "skipped"]
_WORST: tuple[Status, ...] = ("fail", "warn", "pass", "skipped")

_SAMPLE = ("side", "sample_id", "dataset", "split", "label", "source_id")
PAIRS = pa.schema(
    [("guard", pa.string()), ("status", pa.string()), ("score", pa.float64()), ("detail", pa.string())]
    + [
        (f"{end}_{name}", pa.int64() if name == "label" else pa.string())
        for end in ("left", "right")
        for name in _SAMPLE
    ]
)
"""One row per offending pair. `status`: fail or warn; `score`: the guard's own number (distance, correlation ...);
`detail`: how the two are related, in words. `left` is in training data wherever one of the two is; `side` is train or
test; `dataset` a URI; `label` an expression index or null."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one guard found. `threshold` in words; `numbers` are the guard's counts and measures."""

    guard: str
    name: str
    status: Status
    threshold: str
    message: str
    numbers: Mapping[str, float | int | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The whole of an audit.

    `sides`: train and test, each with its `uris`, `hashes` (manifest or view), `splits` and number of `rows`.
    `verdicts` in the order of the guards. `pairs` has the schema `PAIRS`, the worst first within each guard.
    `flagged`: per side the number of rows that stand in a failing pair across the sides.
    """

    sides: Mapping[str, Mapping[str, Any]]
    verdicts: tuple[Verdict, ...]
    pairs: pa.Table
    flagged: Mapping[str, int]

    @property
    def status(self) -> Status:
        """The worst of the verdicts."""
        return worst(verdict.status for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """All but the pairs."""
        return {
            "status": self.status,
            "sides": {name: dict(side) for name, side in self.sides.items()},
            "flagged": dict(self.flagged),
            "pairs": self.pairs.num_rows,
            "verdicts": [asdict(verdict) for verdict in self.verdicts],
        }


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of some statuses; `skipped` where there is none."""
    return min(statuses, key=_WORST.index, default="skipped")
