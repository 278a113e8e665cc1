"""The commands that look after a dataset: verify, gc, card and longtail."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from synthfer.cli import COMPLETE, FAILURE, Command, Invocation, Outcome
from synthfer.planning import open_plan
from synthfer.planning.longtail import long_tail
from synthfer.progress import Meter
from synthfer.sample import SPLITS
from synthfer.schema import REQUIRED, option
from synthfer.sources.index import StoredIndex, is_collection, sample_id
from synthfer.store import Dataset, Finding, View
from synthfer.store.card import README
from synthfer.store.contract import CONTRACT
from synthfer.store.dataset_ref import open_ref
from synthfer.store.manifest import SUCCESS
from synthfer.store.objects import read_object
from synthfer.store.shard import hash_covers

log = logging.getLogger(__name__)

MAX_PROBLEMS = 200
"""More of them say no more, and a dataset of a million damaged shards has as many."""
MAX_CARD_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What to verify, and how deeply."""

    uri: str = option(REQUIRED, "the dataset: a folder or s3://bucket/prefix")
    pixels: bool = option(False, "decode every picture, not only some of each shard")


@dataclass(frozen=True, kw_only=True)
class GcConfig:
    """Where to look for left-overs."""

    uri: str = option(REQUIRED, "the dataset: a folder or s3://bucket/prefix")
    delete: bool = option(False, "remove what is found; without it nothing is touched")
    min_age_s: float = option(3600.0, "leave alone what is younger than this many seconds", low=0)


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """Whose card to print."""

    uri: str = option(REQUIRED, "the dataset: a folder or s3://bucket/prefix")


@dataclass(frozen=True, kw_only=True)
class LongTailConfig:
    """What is thinned out, and how steeply."""

    uri: str = option(REQUIRED, "the dataset or view: a folder or s3://bucket/prefix")
    out: str = option(REQUIRED, "where the view goes: a folder or s3://bucket/prefix")
    ratio: float = option(100.0, "rows of the most frequent expression to those of the rarest", low=1)
    split: str = option("train", "the split that is thinned out", choices=SPLITS)
    seed: int = option(0, "draws the rows that stay", low=0)


def expected_ids(dataset: Dataset) -> Callable[[range], list[str]]:
    """The sample ids of rows, from the plan of a generated dataset or the index of an imported one.

    `ValueError` or `FileNotFoundError`: plan, index or faces are damaged, changed or not there.
    """
    spec = dataset.spec
    if not is_collection(spec.plan):
        plan = open_plan(dataset)
        return lambda rows: [row.sample_id for row in plan.rows(rows)]
    source, sha256 = (spec.plan.get(name) for name in ("source", "index_sha256"))
    if not isinstance(source, str) or not isinstance(sha256, str):
        raise ValueError(f"{dataset.uri}/{CONTRACT}: the plan of a collection needs source and index_sha256")
    index = StoredIndex(dataset.store, spec.rows, spec.unit_size)
    index.check(sha256)
    return lambda rows: [sample_id(source, entry) for entry in index.unit(rows.start // spec.unit_size)]


def verify(config: VerifyConfig, invocation: Invocation) -> Outcome:
    """What is wrong, and exit code 1 if anything is."""
    dataset = Dataset.open(config.uri)
    findings, ids = list[Finding](), None
    try:
        ids = expected_ids(dataset)
    except (ValueError, FileNotFoundError) as error:
        findings.append(Finding(CONTRACT, f"its rows cannot be compared with the plan: {error}"))
    with Meter("shards", dataset.spec.units, invocation.status) as meter:
        findings += dataset.verify(lambda done, total: meter.add(1), pixels=config.pixels, expected_ids=ids)
    problems = [f"{finding.key}: {finding.problem}" for finding in findings]
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS:,} more problems"]
    for problem in problems:
        log.error("%s", problem)
    manifest = None if findings else dataset.manifest
    if manifest and not manifest.accepted:
        log.warning("%s is sound, but none of its %d rows is accepted", dataset.uri, manifest.rows)
    totals = {"rows": manifest.rows, "accepted": manifest.accepted} if manifest else {}
    hashed = {"manifest_hash": manifest.manifest_hash, "hash_covers": hash_covers(manifest.format)} if manifest else {}
    sealed = not any(finding.key == SUCCESS for finding in findings)
    summary = {"uri": dataset.uri, "sealed": sealed, **totals, **hashed, "problems": problems}
    return Outcome(summary, FAILURE if findings else COMPLETE)


def gc(config: GcConfig, invocation: Invocation) -> Outcome:
    """What is left over, and whether it is gone now."""
    left_over = Dataset.open(config.uri).gc(config.delete, config.min_age_s)
    return Outcome({"uri": config.uri, "left_over": left_over, "deleted": config.delete})


def card(config: CardConfig, invocation: Invocation) -> Outcome:
    """The card as it stands in the dataset."""
    dataset = Dataset.open(config.uri)
    where = f"{dataset.uri}/{README}"
    try:
        text = read_object(dataset.store, README, MAX_CARD_BYTES).decode()
    except FileNotFoundError as error:
        raise ValueError(f"{where} is not there yet: it is written when the dataset is complete") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    shown = "".join(char if char.isprintable() or char == "\n" else " " for char in text)  # no codes for a terminal
    invocation.results.print(shown, markup=False, soft_wrap=True)
    return Outcome()


def longtail(config: LongTailConfig, invocation: Invocation) -> Outcome:
    """The view, and how many rows it leaves out."""
    source = open_ref(config.uri)
    selection = long_tail(source, config.ratio, config.seed, config.split)
    if source.view:
        selection = View(source.view).narrowed(selection)
    made_by = {"job": "longtail", "ratio": config.ratio, "split": config.split, "seed": config.seed}
    view = View.create(config.out, source.datasets, selection, made_by)
    return Outcome({"view": view.uri, "view_hash": view.view_hash, "left_out": selection.num_rows})


ABOUT = "Looks after a dataset in a folder or a bucket."
COMMANDS = {
    "verify": Command(
        VerifyConfig,
        verify,
        about="Reads every shard and says what is wrong: sizes, hashes, rows, ids, pixels, stray files.",
        example="python jobs/dataset.py verify uri=s3://bucket/run pixels=true",
    ),
    "gc": Command(
        GcConfig,
        gc,
        about="Lists what killed writers left behind, and removes it with delete=true.",
        example="python jobs/dataset.py gc uri=out/faces delete=true",
    ),
    "card": Command(
        CardConfig,
        card,
        about="Prints the dataset card, which is there once the dataset is complete.",
        example="python jobs/dataset.py card uri=out/faces",
    ),
    "longtail": Command(
        LongTailConfig,
        longtail,
        about="Makes a view in which expressions are as unequal as you say: a control for what balancing does.",
        example="python jobs/dataset.py longtail uri=out/fer2013 out=out/fer2013-tail ratio=100",
    ),
}
