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
from synthfer.store import Dataset, View
from synthfer.store.card import README
from synthfer.store.dataset_ref import open_ref

log = logging.getLogger(__name__)


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
    """The sample ids of rows, from the plan of a generated dataset or the index of an imported one."""
    if not is_collection(dataset.spec.plan):
        plan = open_plan(dataset)
        return lambda rows: [row.sample_id for row in plan.rows(rows)]
    source, index = dataset.spec.plan["source"], StoredIndex(dataset.store)
    unit_size = dataset.spec.unit_size
    return lambda rows: [sample_id(source, entry) for entry in index.unit(rows.start // unit_size)]


def verify(config: VerifyConfig, invocation: Invocation) -> Outcome:
    """Every finding, and exit code 1 if there is any."""
    dataset = Dataset.open(config.uri)
    with Meter("shards", dataset.spec.units, invocation.status) as meter:
        findings = dataset.verify(
            lambda done, total: meter.add(1),
            pixels=config.pixels,
            expected_ids=expected_ids(dataset),
        )
    for finding in findings:
        log.error("%s: %s", finding.key, finding.problem)
    problems = [f"{finding.key}: {finding.problem}" for finding in findings]
    summary = {"uri": dataset.uri, "sealed": dataset.manifest is not None, "problems": problems}
    return Outcome(summary, FAILURE if findings else COMPLETE)


def gc(config: GcConfig, invocation: Invocation) -> Outcome:
    """What is left over, and whether it is gone now."""
    left_over = Dataset.open(config.uri).gc(config.delete, config.min_age_s)
    return Outcome({"uri": config.uri, "left_over": left_over, "deleted": config.delete})


def card(config: CardConfig, invocation: Invocation) -> Outcome:
    """The card as it stands in the dataset."""
    text = Dataset.open(config.uri).store.get(README).decode()
    invocation.results.print(text, markup=False, soft_wrap=True)
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
