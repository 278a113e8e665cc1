"""The audit: does training data touch test data? Every guard of the pictures and their lineage, with its evidence.

The guards that need no picture read the facts of all rows at once. The others compare blocks of training rows with
blocks of test rows: memory follows from the block sizes, not from the datasets.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.audit import duplicates, evidence, lineage, near_duplicates, predictions
from synthfer.audit.comparison import compare_pictures
from synthfer.audit.config import AuditConfig
from synthfer.audit.result import AuditResult
from synthfer.audit.splits import AuditSplit, open_split, uris_of
from synthfer.audit.task_pool import SerialPool, TaskPool
from synthfer.guards.predictions import class_order, score_without_copies
from synthfer.guards.verdict import Verdict
from synthfer.store.dataset_ref import UnitRange


def audit(config: AuditConfig, pool: TaskPool | None = None) -> AuditResult:
    """Every guard's verdict on training data against test data; `pool` says where the work is done.

    `ConfigError` or `ValueError` where either has no row, or a file is not what it should be.
    """
    pool = pool or SerialPool()
    return examine(config, open_splits(config, pool), pool)


def open_splits(config: AuditConfig, pool: TaskPool) -> dict[str, AuditSplit]:
    """Training and test data (`train`, `test`) with the facts of all rows."""
    return {
        "train": open_split("train", uris_of(config.train), config.train_splits, config.train_block, pool),
        "test": open_split("test", uris_of(config.test), config.test_splits, config.test_block, pool),
    }


def examine(
    config: AuditConfig,
    splits: Mapping[str, AuditSplit],
    pool: TaskPool,
    progress: Callable[[int], None] | None = None,
) -> AuditResult:
    """The audit of opened data; `progress(1)` is called after each block of test rows."""
    train, test = splits["train"], splits["test"]
    given = predictions.read_predictions(config.predictions, test) if config.predictions else None
    lineage_verdict, related = lineage.shared_lineage(splits)
    pixels_verdict, identical = duplicates.identical_pixels(splits)
    compared = compare_pictures(config, splits, pool, progress or (lambda blocks: None))
    matches = near_duplicates.exclude_known(compared.matches, _same_pixels(splits))
    near_verdicts, similar = near_duplicates.verdicts(matches, compared.levels, config.copies)
    pairs = [*related, *identical, *similar]
    flagged = evidence.flagged(pairs, splits)
    if given is None:  # the nearest training picture's label stands in for a classifier
        given, classifier = predictions.nearest_labels(compared.nearest, train.labels), "the nearest training picture"
    else:
        classifier = "the classifier"
    verdicts: list[Verdict] = [
        lineage_verdict,
        pixels_verdict,
        *near_verdicts,
        duplicates.conflicting_labels(splits, pairs),
        class_order(given, test.labels, classifier),
        compared.self_test,
        score_without_copies(given, test.labels, flagged["test"], classifier),
    ]
    return AuditResult(
        sides={name: split.describe() for name, split in splits.items()},
        verdicts=tuple(sorted(verdicts, key=lambda verdict: verdict.guard.order)),
        pairs=evidence.table(pairs, splits),
        flagged={name: int(marks.sum()) for name, marks in flagged.items()},
    )


def _same_pixels(splits: Mapping[str, AuditSplit]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Says which pairs of a train row and a test row have the same pixels: another guard reports them already."""
    train, test = (splits[name].texts("pixels_hash") for name in ("train", "test"))
    return lambda left, right: np.asarray(train[left] == test[right], bool)


def block_count(split: AuditSplit, rows: int) -> int:
    """How many blocks of at most `rows` rows the parts of a split are cut into."""
    return int(-(-np.diff(split.starts) // rows).sum())


def read_images(splits: Mapping[str, AuditSplit], ids: Sequence[str], pool: TaskPool) -> dict[str, bytes]:
    """The image files of some samples of training or test data, by sample id."""
    wanted, calls = pa.array(ids, pa.string()), []
    for split in splits.values():
        rows = np.flatnonzero(pc.is_in(split.facts["sample_id"], value_set=wanted).to_numpy())
        numbers = np.unique(np.searchsorted(split.starts, rows, "right") - 1)
        calls += [(split.parts[number], split.splits, wanted) for number in numbers]
    return {key: body for some in pool.map(_image_files, calls) for key, body in some.items()}


def _image_files(part: UnitRange, splits: Sequence[str], ids: pa.Array) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for batch in part.batches(["sample_id", "image"], splits):
        rows = batch.filter(pc.is_in(batch["sample_id"], value_set=ids)).to_pylist()
        files |= {row["sample_id"]: row["image"]["bytes"] for row in rows}
    return files
