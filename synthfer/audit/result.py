"""The result of an audit: the verdicts, the pairs of rows that are their evidence, and a selection without them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from synthfer.guards.verdict import Status, Verdict, worst


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """All that an audit found.

    `sides`: train and test, each with its `uris`, `hashes` (manifest or view), `splits` and number of `rows`.
    `verdicts` in the order of the guards. `pairs` has the schema `PAIRS`, the worst first within each guard.
    `flagged`: for train and test the number of rows that are in a failing pair of a training and a test row.
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
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
        }


def clean_selection(pairs: pa.Table) -> pa.Table:
    """The selection (`synthfer.store.view.SCHEMA`) that rejects every training row of a failing pair with a test row.

    `pairs` has the schema `PAIRS`. The reason names the first such pair of each row.
    """
    reasons: dict[str, str] = {}
    across = (pc.field("left_side") == "train") & (pc.field("right_side") == "test")
    failing = pairs.filter(across & (pc.field("status") == "fail"))
    for row in failing.select(["guard", "detail", "left_sample_id", "right_sample_id"]).to_pylist():
        reason = f"audit {row['guard']}: {row['detail']} (test sample {row['right_sample_id']})"
        reasons.setdefault(row["left_sample_id"], reason)
    ids = sorted(reasons)
    return pa.table(
        {
            "sample_id": pa.array(ids, pa.string()),
            "decision": pa.array(["rejected"] * len(ids), pa.string()),
            "reason": pa.array([reasons[key] for key in ids], pa.string()),
            "weight": pa.array([0.0] * len(ids), pa.float64()),
        }
    )
