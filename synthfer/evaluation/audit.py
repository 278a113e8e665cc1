"""The audit: does training data touch test data? Guards G1 to G6, G9, G11 and G12, each with its evidence.

The guards that need no picture look at the whole of both sides. The others compare blocks of training rows with
blocks of test rows: what is held at once follows from the block sizes, not from the datasets.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer import embedders
from synthfer.canonical import canonical_json
from synthfer.config import REQUIRED, Choice, ConfigError, option, registry_section
from synthfer.evaluation import agreement, canaries, duplicates, evidence, lineage, near
from synthfer.evaluation.copies import CopyScan
from synthfer.evaluation.features import Features, of_pictures, read_pictures
from synthfer.evaluation.near import Limits
from synthfer.evaluation.pool import Pool, Serial
from synthfer.evaluation.sides import FACTS, AuditSplit
from synthfer.evaluation.verdict import Audit, Verdict
from synthfer.sample import SPLITS
from synthfer.store.dataset_ref import UnitRange, open_ref, unit_ranges

# Blocks of training rows of which copies are planted.
_CANARY_BLOCKS = 4
# Training rows of a dataset, spread over all of it, that tell how alike unrelated pictures are.
_UNRELATED = 4096


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What is compared with what, and how closely."""

    train: str = option(REQUIRED, "training data: datasets or views, separated by commas")
    test: str = option(REQUIRED, "test data: datasets or views, separated by commas")
    train_splits: list[str] = option(["train"], "splits that are training data", choices=SPLITS)
    test_splits: list[str] = option(["val", "test"], "splits that are test data", choices=SPLITS)
    near: Limits = field(default_factory=Limits)
    copies: CopyScan = field(default_factory=CopyScan)
    embedder: Any = registry_section(embedders.names, embedders.module, default="patches", of="what sees likeness")
    predictions: str | None = option(
        None, "a classifier's answers for the test rows: Parquet with sample_id and predicted or label_probs"
    )
    canaries: int = option(48, "training pictures of which copies are planted and must be found", low=0)
    train_block: int = option(4096, "training rows that a worker holds at once", low=1)
    test_block: int = option(256, "test rows that a worker holds at once, with all their views", low=1)
    seed: int = option(0, "of the planted copies and the shuffled labels", low=0)


def audit(config: AuditConfig, pool: Pool | None = None) -> Audit:
    """Every guard's verdict on training data against test data; `pool` says where the work is done.

    `ConfigError` or `ValueError` where a side is empty, or not what it should be.
    """
    pool = pool or Serial()
    return examine(config, open_sides(config, pool), pool)


def open_sides(config: AuditConfig, pool: Pool) -> dict[str, AuditSplit]:
    """Both sides with the facts of all rows."""
    return {name: open_side(name, config, pool) for name in ("train", "test")}


def examine(
    config: AuditConfig, sides: Mapping[str, AuditSplit], pool: Pool, progress: Callable[[int], None] | None = None
) -> Audit:
    """The audit of opened sides; `progress(1)` follows each block of test rows."""
    test = sides["test"]
    given = agreement.read_answers(config.predictions, test) if config.predictions else None
    lineage_verdict, tied = lineage.lineage(sides)
    exact_verdict, same = duplicates.exact(sides)
    seen = look(config, sides, pool, progress or (lambda blocks: None))
    near_verdicts, alike = near.judge(near.exclude_known(seen.found, identical(sides)), seen.levels, config.copies)
    found = [*tied, *same, *alike]
    marks = evidence.flagged(found, sides)
    verdicts = [
        lineage_verdict,
        exact_verdict,
        *near_verdicts,
        duplicates.conflicts(sides, found),
        *answered(given, sides, seen.found, marks["test"]),
        seen.canaries,
    ]
    return Audit(
        sides={name: side.describe() for name, side in sides.items()},
        verdicts=tuple(sorted(verdicts, key=lambda verdict: int(verdict.guard[1:]))),
        pairs=evidence.table(found, sides),
        flagged={name: int(mark.sum()) for name, mark in marks.items()},
    )


def left_out(audit_pairs: pa.Table) -> pa.Table:
    """The selection (`synthfer.store.view.SCHEMA`) that leaves out every training row of a failing pair."""
    reasons: dict[str, str] = {}
    across = (pc.field("left_side") == "train") & (pc.field("right_side") == "test")
    failing = audit_pairs.filter(across & (pc.field("status") == "fail"))
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


def open_side(name: str, config: AuditConfig, pool: Pool) -> AuditSplit:
    """One side with the facts of all its rows; `ConfigError` where there are none."""
    uris, splits = uris_of(getattr(config, name)), tuple(getattr(config, f"{name}_splits"))
    origins = tuple(map(open_ref, uris))
    datasets = [dataset.uri for named in origins for dataset in named.datasets]
    if len(set(datasets)) < len(datasets):
        twice = next(uri for uri in datasets if datasets.count(uri) > 1)
        raise ConfigError(f"{name}: {twice} is named twice, by itself or by a view of it; name it once")
    pieces: Sequence[UnitRange] = list(unit_ranges(origins, getattr(config, f"{name}_block")))
    tables: Sequence[pa.Table] = list(pool.map(facts, ((part, splits) for part in pieces)))
    filled = [(part, table) for part, table in zip(pieces, tables, strict=True) if table.num_rows]
    if not filled:
        there = {key for part in pieces for key in part.rows(["split"], SPLITS)["split"].unique().to_pylist()}
        others = ", ".join(split for split in SPLITS if split in there)
        raise ConfigError(
            f"{name}: no accepted row of split {' or '.join(splits)} in {', '.join(uris)}; "
            + (f"there are rows of {others}: say {name}_splits=[{others}]" if there else "there is none of any split")
        )
    pieces, tables = zip(*filled, strict=True)
    starts = np.cumsum([0, *(table.num_rows for table in tables)])
    return AuditSplit(name, origins, splits, pieces, pa.concat_tables(tables), starts)


def uris_of(text: str) -> list[str]:
    """The URIs in a list separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def facts(part: UnitRange, splits: Sequence[str]) -> pa.Table:
    """What the guards that need no picture look at."""
    return part.rows(FACTS, splits)


@dataclass(frozen=True)
class Seen:
    """What comparing the pictures gave."""

    found: near.NearMatches
    levels: near.Levels
    canaries: Verdict


def look(config: AuditConfig, sides: Mapping[str, AuditSplit], pool: Pool, progress: Callable[[int], None]) -> Seen:
    """Compares all training rows with every block of test rows, and run_canaries the planted copies."""
    choice: Choice = config.embedder
    chosen = (choice.name, canonical_json(asdict(choice.options)))
    train, test = sides["train"], sides["test"]
    blocks = {name: _Blocks.of(side, getattr(config, f"{name}_block"), chosen, pool) for name, side in sides.items()}
    left, right = blocks["train"], blocks["test"]
    levels = near.strictest([near.levels(v, len(train), config.near) for v in unrelated(train, left, pool)])
    calls = ((pool.one_by_one(left.handles), left.starts, block, levels, config.copies) for block in right.handles)
    parts = []
    for start, part in zip(right.starts, pool.map(near.compare, calls), strict=True):
        parts.append(near.moved(part, start))
        progress(1)
    found = near.merge(parts, config.near.keep)
    tallies = run_canaries(config, train, left, levels, chosen, pool)
    shuffled = agreement.shuffled_accuracy(nearest_rows(found, len(test)), train.labels, test.labels, config.seed)
    return Seen(found, levels, canaries.verdict(canaries.add(tallies), shuffled))


@dataclass(frozen=True)
class _Blocks:
    """The features of a side in blocks: handles, the row where each begins, its part, and its first row in that."""

    handles: list[Any]
    starts: list[int]
    sizes: np.ndarray
    parts: list[int]
    offsets: list[int]

    @classmethod
    def of(cls, side: AuditSplit, rows: int, chosen: tuple[str, bytes], pool: Pool) -> "_Blocks":
        handles, places = [], []
        for number, part in enumerate(side.parts):
            size = int(side.starts[number + 1] - side.starts[number])
            whole = pool.start(features, part, side.splits, chosen)
            for low in range(0, size, rows):
                handles.append(pool.start(cut, whole, low, low + rows) if size > rows else whole)
                places.append((int(side.starts[number]) + low, min(rows, size - low), number, low))
        starts, sizes, parts, offsets = (list(column) for column in zip(*places, strict=True))
        return cls(handles, starts, np.array(sizes), parts, offsets)


def run_canaries(
    config: AuditConfig, train: AuditSplit, blocks: _Blocks, levels: near.Levels, chosen: tuple[str, bytes], pool: Pool
) -> list[canaries.Tally]:
    """Planted copies of rows spread over some of the blocks, looked for in all training data as test rows are."""
    if not config.canaries:
        return []
    picked = range(0, len(blocks.handles), max(1, len(blocks.handles) // _CANARY_BLOCKS))[:_CANARY_BLOCKS]
    each, calls = -(-config.canaries // len(picked)), []
    for block in picked:
        size = int(blocks.sizes[block])
        rows = np.unique(np.linspace(0, size - 1, min(each, size)).astype(int))
        part = train.parts[blocks.parts[block]]
        places, rows = rows + blocks.offsets[block], rows + blocks.starts[block]
        everything = pool.one_by_one(blocks.handles)
        calls.append(
            (part, train.splits, places.tolist(), rows.tolist(), everything, blocks.starts, chosen, levels, config)
        )
    return list(pool.map(hunt, calls))


def hunt(
    part: UnitRange,
    splits: Sequence[str],
    places: Sequence[int],
    rows: Sequence[int],
    blocks: Iterable[Features],
    starts: Sequence[int],
    chosen: tuple[str, bytes],
    levels: near.Levels,
    config: AuditConfig,
) -> canaries.Tally:
    """Plants copies of some pictures of a part, `places` in it and `rows` of the side, and looks for them."""
    pictures = list(read_pictures(part, splits, places))
    planted = canaries.copies_of(pictures, rows, embedder(*chosen), config.seed)
    return canaries.tally(near.compare(blocks, starts, planted, levels, config.copies), rows)


def features(part: UnitRange, splits: Sequence[str], chosen: tuple[str, bytes]) -> Features:
    """The features of a part's rows."""
    return of_pictures(read_pictures(part, splits), embedder(*chosen))


def unrelated(train: AuditSplit, blocks: _Blocks, pool: Pool) -> Iterator[np.ndarray]:
    """Vectors of rows spread over each training dataset: pictures of one kind are more alike than those of two."""
    owners = [train.parts[part].dataset for part in blocks.parts]
    for dataset in dict.fromkeys(owners):
        mine = [number for number, owner in enumerate(owners) if owner == dataset]
        step = -(-int(blocks.sizes[mine].sum()) // _UNRELATED)
        firsts = [-(blocks.starts[number] - blocks.starts[mine[0]]) % step for number in mine]
        calls = ((blocks.handles[number], first, step) for number, first in zip(mine, firsts, strict=True))
        yield np.concatenate(list(pool.map(some_vectors, calls)))


def some_vectors(block: Features, first: int, step: int) -> np.ndarray:
    """The vectors of every `step`th row of a block."""
    return block.vectors[first::step]


def cut(whole: Features, low: int, high: int) -> Features:
    """Some rows of a part's features."""
    return whole[low:high]


@cache
def embedder(name: str, options: bytes) -> embedders.Embedder:
    """The embedder, built once in each process."""
    return embedders.build(name, **json.loads(options))


def identical(sides: Mapping[str, AuditSplit]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Tells which pairs of train rows and test rows have the same pixels: guard G2 has them already."""
    train, test = (sides[name].texts("pixels_hash") for name in ("train", "test"))
    return lambda left, right: np.asarray(train[left] == test[right], bool)


def blocks_of(side: AuditSplit, rows: int) -> int:
    """How many blocks of at most `rows` rows a side is cut into."""
    return int(-(-np.diff(side.starts) // rows).sum())


def nearest_rows(found: near.NearMatches, rows: int) -> np.ndarray:
    """The training row most alike to each test row by its embedding, int64 (rows,); -1 where there is none."""
    nearest = np.full(rows, -1, np.int64)
    nearest[found.nearest.right] = found.nearest.left
    return nearest


def answered(
    given: np.ndarray | None, sides: Mapping[str, AuditSplit], found: near.NearMatches, flagged: np.ndarray
) -> list[Verdict]:
    """The guards that need answers for the test rows: those `given`, else those of the nearest training rows."""
    test, answers, who = sides["test"], given, "the classifier"
    if answers is None:
        nearest = nearest_rows(found, len(test))
        answers, who = agreement.nearest_answers(nearest, sides["train"].labels), "the nearest training picture"
    return [
        agreement.class_order(answers, test.labels, who),
        agreement.copies_score(answers, test.labels, flagged, who),
    ]


def pictures(sides: Mapping[str, AuditSplit], ids: Sequence[str], pool: Pool) -> dict[str, bytes]:
    """The image files of some samples of either side."""
    wanted, calls = pa.array(ids, pa.string()), []
    for side in sides.values():
        rows = np.flatnonzero(pc.is_in(side.facts["sample_id"], value_set=wanted).to_numpy())
        numbers = np.unique(np.searchsorted(side.starts, rows, "right") - 1)
        calls += [(side.parts[number], side.splits, wanted) for number in numbers]
    return {key: body for some in pool.map(files, calls) for key, body in some.items()}


def files(part: UnitRange, splits: Sequence[str], ids: pa.Array) -> dict[str, bytes]:
    """The image files of a part's rows with these sample ids."""
    found: dict[str, bytes] = {}
    for batch in part.batches(["sample_id", "image"], splits):
        rows = batch.filter(pc.is_in(batch["sample_id"], value_set=ids)).to_pylist()
        found |= {row["sample_id"]: row["image"]["bytes"] for row in rows}
    return found
