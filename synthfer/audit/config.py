"""The keys of an audit."""

from dataclasses import dataclass, field
from typing import Any

from synthfer import embedders
from synthfer.audit.copies import CopyScan
from synthfer.audit.near_duplicates import Limits
from synthfer.limits import MAX_BATCH, MAX_KEPT
from synthfer.sample import SPLITS
from synthfer.schema import REQUIRED, option, registry_section


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What is compared with what, and how closely."""

    train: str = option(REQUIRED, "training data: datasets or views, separated by commas")
    test: str = option(REQUIRED, "test data: datasets or views, separated by commas")
    train_splits: list[str] = option(["train"], "splits that are training data", choices=SPLITS)
    test_splits: list[str] = option(["val", "test"], "splits that are test data", choices=SPLITS)
    near: Limits = field(default_factory=Limits)
    copies: CopyScan = field(default_factory=CopyScan)
    embedder: Any = registry_section(
        embedders.names, embedders.module, default="patches", of="what measures how alike two pictures are"
    )
    predictions: str | None = option(
        None, "a classifier's predictions for the test rows: Parquet with sample_id and predicted or label_probs"
    )
    canaries: int = option(
        48, "training pictures of which copies are planted that the audit must find", low=0, high=MAX_KEPT
    )
    train_block: int = option(4096, "training rows that a worker holds at once", low=1, high=MAX_BATCH)
    test_block: int = option(256, "test rows that a worker holds at once, with all their views", low=1, high=MAX_BATCH)
    seed: int = option(0, "of the planted copies and the shuffled labels", low=0)
