"""What a guard checks and what it says: the list of all guards, their verdicts, and the table of evidence."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pyarrow as pa

Status = Literal["pass", "warn", "fail", "skipped"]
_WORST: tuple[Status, ...] = ("fail", "warn", "pass", "skipped")

AUDIT_FILE, PAIRS_FILE = "audit.json", "pairs.parquet"
"""The files of an audit that programs read: its verdicts, and its pairs with the schema `PAIRS`."""

_SAMPLE = ("side", "sample_id", "dataset", "split", "label", "source_id")
PAIRS = pa.schema(
    [("guard", pa.string()), ("status", pa.string()), ("score", pa.float64()), ("detail", pa.string())]
    + [
        (f"{end}_{name}", pa.int64() if name == "label" else pa.string())
        for end in ("left", "right")
        for name in _SAMPLE
    ]
)
"""One row per offending pair. `guard`: its number, as in `Guard`; `status`: fail or warn; `score`: the guard's own
measure (distance, correlation ...); `detail`: how the two are related, in words. `left` is training data wherever one
of the two is; `side` is train or test; `dataset` a URI; `label` an expression index or null."""


class Guard(StrEnum):
    """All guards in the order of reports. The value is the guard's number, which files hold."""

    SHARED_LINEAGE = "G1"
    """Training and test rows do not descend from each other and show no common identity."""
    IDENTICAL_PIXELS = "G2"
    """No picture is in training and in test data, pixel for pixel."""
    PERCEPTUAL_DUPLICATES = "G3"
    """No test picture has the perceptual hash of a training picture."""
    EMBEDDING_DUPLICATES = "G4"
    """No test picture has nearly the embedding of a training picture."""
    TRANSFORMED_COPIES = "G5"
    """No test picture is a turned, cropped, mirrored or relit training picture."""
    CONFLICTING_LABELS = "G6"
    """No duplicate or copy has another label than its original."""
    TRAINING_OVERLAP = "G7"
    """A classifier, its teacher and its generator did not learn from test rows."""
    PLAUSIBLE_SCORE = "G8"
    """An accuracy is not above what is honestly reached on the collection."""
    CLASS_ORDER = "G9"
    """The classes of predictions and labels stand in the same order."""
    CHECKPOINT_SELECTION = "G10"
    """A checkpoint was chosen on validation rows alone."""
    PLANTED_COPIES = "G11"
    """The audit's self-test: it finds planted copies, and shuffled labels score as chance."""
    SCORE_WITHOUT_COPIES = "G12"
    """Test rows with a copy in the training data do not raise the score."""

    @property
    def label(self) -> str:
        """What it checks, in words."""
        return self.name.lower().replace("_", " ")

    @property
    def order(self) -> int:
        """Its position in reports."""
        return list(Guard).index(self)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one guard says. `threshold` in words; `numbers` are the guard's counts and measures."""

    guard: Guard
    status: Status
    threshold: str
    message: str
    numbers: Mapping[str, float | int | None] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As audit.json and matrix.json hold it."""
        return {
            "guard": self.guard.value,
            "name": self.guard.label,
            "status": self.status,
            "threshold": self.threshold,
            "message": self.message,
            "numbers": dict(self.numbers),
        }


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of some statuses; `skipped` where there is none."""
    return min(statuses, key=_WORST.index, default="skipped")
