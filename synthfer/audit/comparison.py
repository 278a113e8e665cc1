"""Compares the pictures of training and test data block by block, and tests itself with planted copies."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from synthfer import embedders
from synthfer.audit import canaries, near_duplicates, predictions
from synthfer.audit.config import AuditConfig
from synthfer.audit.features import Features, of_pictures, read_pictures
from synthfer.audit.near_duplicates import Levels, NearMatches
from synthfer.audit.splits import AuditSplit
from synthfer.audit.task_pool import TaskPool
from synthfer.canonical import canonical_json
from synthfer.guards.verdict import Verdict
from synthfer.schema import Choice
from synthfer.store.dataset_ref import UnitRange

# Blocks of training rows of which copies are planted.
_CANARY_BLOCKS = 4
# Training rows of a dataset, spread over all of it, that show how alike unrelated pictures are.
_UNRELATED = 4096

EmbedderSpec = tuple[str, bytes]
"""Name of an embedder and its options as canonical JSON: hashable, so that each process builds it once."""


@dataclass(frozen=True)
class Comparison:
    """What comparing the pictures gave. `nearest`: the training row most alike to each test row, int64 (m,), or -1."""

    matches: NearMatches
    levels: Levels
    nearest: np.ndarray
    self_test: Verdict


def compare_pictures(
    config: AuditConfig, splits: Mapping[str, AuditSplit], pool: TaskPool, progress: Callable[[int], None]
) -> Comparison:
    """Compares all training rows with every block of test rows, and looks for planted copies in the same way."""
    choice: Choice = config.embedder
    spec = (choice.name, canonical_json(asdict(choice.options)))
    train, test = splits["train"], splits["test"]
    left = _FeatureBlocks.of(train, config.train_block, spec, pool)
    right = _FeatureBlocks.of(test, config.test_block, spec, pool)
    levels = near_duplicates.strictest(
        [near_duplicates.levels(vectors, len(train), config.near) for vectors in _unrelated(train, left, pool)]
    )
    calls = ((pool.stream(left.handles), left.starts, block, levels, config.copies) for block in right.handles)
    parts = []
    for start, part in zip(right.starts, pool.map(near_duplicates.compare, calls), strict=True):
        parts.append(near_duplicates.moved(part, start))
        progress(1)
    matches = near_duplicates.merge(parts, config.near.keep)
    nearest = np.full(len(test), -1, np.int64)
    nearest[matches.nearest.right] = matches.nearest.left
    counts = canaries.add(_run_canaries(config, train, left, levels, spec, pool))
    shuffled = predictions.shuffled_accuracy(nearest, train.labels, test.labels, config.seed)
    return Comparison(matches, levels, nearest, canaries.planted_copies(counts, shuffled))


@dataclass(frozen=True)
class _FeatureBlocks:
    """The features of a split in blocks: handles, the row where each begins, its part, and its first row in that."""

    handles: list[Any]
    starts: list[int]
    sizes: np.ndarray
    parts: list[int]
    offsets: list[int]

    @classmethod
    def of(cls, split: AuditSplit, rows: int, spec: EmbedderSpec, pool: TaskPool) -> "_FeatureBlocks":
        handles, blocks = [], []
        for number, part in enumerate(split.parts):
            size = int(split.starts[number + 1] - split.starts[number])
            whole = pool.submit(_features, part, split.splits, spec)
            for low in range(0, size, rows):
                handles.append(pool.submit(_cut, whole, low, low + rows) if size > rows else whole)
                blocks.append((int(split.starts[number]) + low, min(rows, size - low), number, low))
        starts, sizes, parts, offsets = (list(column) for column in zip(*blocks, strict=True))
        return cls(handles, starts, np.array(sizes), parts, offsets)


def _features(part: UnitRange, splits: Sequence[str], spec: EmbedderSpec) -> Features:
    """The features of a part's rows."""
    return of_pictures(read_pictures(part, splits), _embedder(*spec))


def _cut(whole: Features, low: int, high: int) -> Features:
    """Some rows of a part's features."""
    return whole[low:high]


@cache
def _embedder(name: str, options: bytes) -> embedders.Embedder:
    """The embedder, built once in each process."""
    return embedders.build(name, **json.loads(options))


def _unrelated(train: AuditSplit, blocks: _FeatureBlocks, pool: TaskPool) -> Iterator[np.ndarray]:
    """Vectors of rows spread over each training dataset: pictures of one dataset are more alike than those of two."""
    owners = [train.parts[part].dataset for part in blocks.parts]
    for dataset in dict.fromkeys(owners):
        own = [number for number, owner in enumerate(owners) if owner == dataset]
        step = -(-int(blocks.sizes[own].sum()) // _UNRELATED)
        firsts = [-(blocks.starts[number] - blocks.starts[own[0]]) % step for number in own]
        calls = ((blocks.handles[number], first, step) for number, first in zip(own, firsts, strict=True))
        yield np.concatenate(list(pool.map(_some_vectors, calls)))


def _some_vectors(block: Features, first: int, step: int) -> np.ndarray:
    """The vectors of every `step`th row of a block."""
    return block.vectors[first::step]


def _run_canaries(
    config: AuditConfig,
    train: AuditSplit,
    blocks: _FeatureBlocks,
    levels: Levels,
    spec: EmbedderSpec,
    pool: TaskPool,
) -> list[canaries.Counts]:
    """Plants copies of rows spread over some of the blocks, and looks for them in all training data."""
    if not config.canaries:
        return []
    picked = range(0, len(blocks.handles), max(1, len(blocks.handles) // _CANARY_BLOCKS))[:_CANARY_BLOCKS]
    each, calls = -(-config.canaries // len(picked)), []
    for block in picked:
        size = int(blocks.sizes[block])
        rows = np.unique(np.linspace(0, size - 1, min(each, size)).astype(int))
        part = train.parts[blocks.parts[block]]
        within, rows = rows + blocks.offsets[block], rows + blocks.starts[block]
        training = pool.stream(blocks.handles)
        calls.append(
            (part, train.splits, within.tolist(), rows.tolist(), training, blocks.starts, spec, levels, config)
        )
    return list(pool.map(_plant_and_find, calls))


def _plant_and_find(
    part: UnitRange,
    splits: Sequence[str],
    within: Sequence[int],
    rows: Sequence[int],
    blocks: Iterable[Features],
    starts: Sequence[int],
    spec: EmbedderSpec,
    levels: Levels,
    config: AuditConfig,
) -> canaries.Counts:
    """Copies some pictures of a part, `within` it and `rows` of all training data, and counts the copies found."""
    pictures = list(read_pictures(part, splits, within))
    planted = canaries.copies_of(pictures, rows, _embedder(*spec), config.seed)
    return canaries.count(near_duplicates.compare(blocks, starts, planted, levels, config.copies), rows)
