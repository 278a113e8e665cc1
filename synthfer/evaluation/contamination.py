"""Guards of a matrix cell: did the candidate learn from its test rows (G7), and can the score be true (G8, G10)?

Training overlap (G7) is found row by row where the candidate has a list of its training rows, by pairs of copies from
audits, and by what is declared about the candidate, its teacher and its generator.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.classifiers.training_fingerprint import digest
from synthfer.documents import parse, read_json
from synthfer.evaluation.inputs import Candidate, TestSet, original_collection
from synthfer.guards.verdict import AUDIT_FILE, PAIRS, PAIRS_FILE, Guard, Status, Verdict
from synthfer.sample import SPLITS
from synthfer.schema import REQUIRED, ConfigError, option
from synthfer.store import ObjectStore, open_store
from synthfer.store.parquet import Limits, read_table

MAX_PAIRS = 50_000_000
"""Pairs of one audit: ten for each row of the largest test sets."""
MAX_PAIR_BYTES = 8 * 2**30

# How a test row is related to a training row, by column.
_RELATIONS = {
    "sample_id": "as the same sample or its original",
    "parent_id": "by the sample that they were made from",
    "partner_id": "by a second sample that they were made from",
    "partner_source_id": "by the original or identity of a second sample that they were made from",
    "source_id": "by identity or original",
    "pixels_hash": "by their pixels",
}
_SELECTION: dict[str, tuple[Status, str]] = {
    "validation": ("pass", "The checkpoint was selected on validation rows."),
    "unknown": (
        "warn",
        "It is not declared which rows the checkpoint was selected on: if on test rows, its scores are too high.",
    ),
    "test": ("fail", "The checkpoint was selected on test rows: its scores in its own collection do not count."),
}


@dataclass(frozen=True, kw_only=True)
class Audits:
    """What audits of training data against test data found.

    `pairs` (`guards.verdict.PAIRS`): those of all audits together. `covered`: hash and split of the test data that they
    compared, since an audit that found nothing has no pair.
    """

    pairs: pa.Table
    covered: Collection[tuple[str, str]] = ()

    @cached_property
    def copies(self) -> list[tuple[pa.Array, pa.Array]]:
        """The failing pairs in both directions: digests of the ids of one end, and the ids of the other."""
        failing = self.pairs.filter(pc.field("status") == "fail")
        left, right = (failing[f"{end}_sample_id"].combine_chunks() for end in ("left", "right"))
        return [(digest(left), right), (digest(right), left)]

    def cover(self, test: TestSet) -> bool:
        """Whether an audit compared this test set: all of its splits, or it has one of the rows as test data."""
        if all((test.hash, split) in self.covered for split in test.splits):
            return True
        ids = test.facts["sample_id"].combine_chunks()
        ends = (self.pairs.filter(pc.field(f"{end}_side") == "test")[f"{end}_sample_id"] for end in ("left", "right"))
        return any(pc.any(pc.is_in(named, value_set=ids)).as_py() for named in ends)


NO_AUDITS = Audits(pairs=PAIRS.empty_table())


def read_audits(uris: Sequence[str]) -> Audits:
    """The audits in these folders; `ConfigError` where a file is not one that jobs/audit.py writes."""
    tables, covered = [NO_AUDITS.pairs], set()
    for uri in uris:
        store = open_store(uri)
        try:
            tables.append(_read_pairs(store))
            test = _read_side(store)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ConfigError(f"audits: there is no audit at {store.uri}: name a folder of jobs/audit.py") from error
        except ValueError as error:
            raise ConfigError(f"audits: {error}; it is not written by jobs/audit.py: name an audit's folder") from error
        covered |= {(digest, split) for digest in test.hashes for split in test.splits}
    return Audits(pairs=pa.concat_tables(tables), covered=frozenset(covered))


@dataclass(frozen=True, kw_only=True)
class _AuditedSide:
    """What is read of a side in `audit.json`."""

    hashes: list[str] = option(REQUIRED, "hashes of its datasets")
    splits: list[str] = option(REQUIRED, "its splits", choices=SPLITS)


def _read_side(store: ObjectStore) -> _AuditedSide:
    """The test data that an audit compared; `ValueError` where the file is not one of an audit."""
    where = f"{store.uri}/{AUDIT_FILE}"
    value = read_json(store.get(AUDIT_FILE), where)
    for key in ("sides", "test"):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        raise ValueError(f"{where} has no sides.test")
    known = {field.name: value[field.name] for field in fields(_AuditedSide) if field.name in value}
    return parse(known, f"{where}, sides.test", _AuditedSide)


def _read_pairs(store: ObjectStore) -> pa.Table:
    """The pairs of an audit; `ValueError` where the file is damaged or no table of pairs."""
    where = f"{store.uri}/{PAIRS_FILE}"
    return read_table(store.get(PAIRS_FILE), where, PAIRS, Limits(rows=MAX_PAIRS, unpacked=MAX_PAIR_BYTES))


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What a candidate's training data and a test set of n rows have in common.

    `related` bool (n,): rows that are related to a training row by lineage or pixels. `copied` bool (n,): rows of which
    an audit found a copy in the training data. `reasons`: sentences that say why scores on this set do not count; none
    where they do. `searched`: whether an audit looked for copies of this test set.
    """

    related: np.ndarray
    copied: np.ndarray
    reasons: tuple[str, ...]
    searched: bool

    @property
    def flagged(self) -> np.ndarray:
        """Rows that the candidate has seen in either way, bool (n,)."""
        return self.related | self.copied


def overlap(candidate: Candidate, test: TestSet, audits: Audits, searched: bool, max_flagged_share: float) -> Overlap:
    """What of a test set the candidate has seen; `searched` is `audits.cover(test)`.

    A single row related by lineage or pixels makes the scores invalid, and so does a declared split that test rows are
    from. Rows with a copy found by an audit may be up to `max_flagged_share` of the set; audits apply to a candidate
    only where `seen` says which of the audited rows it learned from.
    """
    related, how = _related(candidate, test)
    copied = _copied(candidate, test, audits)
    reasons = [*how, *_declared(candidate, test)]
    if copied.mean() > max_flagged_share:
        reasons.append(f"An audit found copies of {copied.sum():,} of {len(test):,} test rows in its training data.")
    return Overlap(related=related, copied=copied, reasons=tuple(reasons), searched=searched)


def _related(candidate: Candidate, test: TestSet) -> tuple[np.ndarray, list[str]]:
    """Rows that are related to a training row, bool (n,), and the sentence that says how."""
    if candidate.seen is None:
        return np.zeros(len(test), bool), []
    ties = candidate.seen.related_by(test.digests)
    related: np.ndarray = np.logical_or.reduce(list(ties.values()))
    if not related.any():
        return related, []
    ways = ", ".join(f"{ties[column].sum():,} {how}" for column, how in _RELATIONS.items() if ties[column].any())
    return related, [f"{related.sum():,} of {len(test):,} test rows are related to its training rows: {ways}."]


def _declared(candidate: Candidate, test: TestSet) -> list[str]:
    """A sentence for each declared "collection:split" that test rows are from."""
    rows: dict[str, int] = {}
    for (source, split), count in test.origins.items():
        key = f"{original_collection(source)}:{split}"
        rows[key] = rows.get(key, 0) + count
    sentences = []
    for named in candidate.declared:
        collection, _, split = named.rpartition(":")
        if drawn := rows.get(f"{original_collection(collection)}:{split}"):
            sentences.append(f"It, its teacher or its generator is declared to have learned from {named}, and "
                         f"{drawn:,} of {len(test):,} test rows are from there.")  # fmt: skip
    return sentences


def _copied(candidate: Candidate, test: TestSet, audits: Audits) -> np.ndarray:
    """Test rows that are in a failing pair with a row that the candidate has seen, bool (n,)."""
    if candidate.seen is None:
        return np.zeros(len(test), bool)
    partners = pa.chunked_array(
        [ids.filter(pa.array(candidate.seen.contains(digests), pa.bool_())) for digests, ids in audits.copies],
        pa.string(),
    )
    copied: np.ndarray = pc.is_in(test.facts["sample_id"], value_set=partners.combine_chunks()).to_numpy()
    return copied


def training_overlap(candidate: Candidate, overlap: Overlap) -> Verdict:
    """Guard G7: has the candidate learned from test rows, itself or through its teacher or generator?"""
    known = candidate.seen is not None or bool(candidate.declared)
    clean = (
        f"Nothing that it is known to have learned from is in the test set.{_unsearched(candidate, overlap)}"
        if known
        else "It is not declared what it learned from, so it may have learned from the test set: declare trained_on."
    )
    return Verdict(
        guard=Guard.TRAINING_OVERLAP,
        status="fail" if overlap.reasons else "pass" if known else "warn",
        threshold="no related row, no declared split, no more audited copies than allowed",
        message=" ".join(overlap.reasons) or clean,
        numbers={"tied_rows": int(overlap.related.sum()), "copied_rows": int(overlap.copied.sum())},
    )


def _unsearched(candidate: Candidate, overlap: Overlap) -> str:
    """Why there may be near copies all the same, or nothing."""
    if not overlap.searched:
        return " Near copies were not searched for: no audit of this test set was given (audits=)."
    return (
        "" if candidate.seen else " Near copies cannot be attributed: there is no list of its training rows beside it."
    )


def ceiling_of(test: TestSet, ceilings: Mapping[str, float]) -> float | None:
    """The highest accuracy that is honestly reached on a test set, 0..1; None where one of its collections has none.

    Of several collections the mean, weighted by their rows.
    """
    if not ceilings.keys() >= set(test.collections):
        return None
    return sum(ceilings[source] * rows for (source, _), rows in test.origins.items()) / len(test)


def plausible_score(accuracy: float, test: TestSet, ceiling: float | None) -> Verdict:
    """Guard G8: an accuracy above the ceiling counts as leakage until an audit of the pictures finds none."""
    facts: dict[str, Any] = {"guard": Guard.PLAUSIBLE_SCORE, "numbers": {"accuracy": accuracy}}
    if ceiling is None:
        message = f"No ceiling is set for {', '.join(test.collections)}."
        return Verdict(status="skipped", threshold="-", message=message, **facts)
    too_high = accuracy > ceiling
    splits = f"[{','.join(test.splits)}]"
    return Verdict(
        status="fail" if too_high else "pass",
        threshold=f"accuracy of at most {ceiling:.1%}",
        message=f"An accuracy of {accuracy:.1%} is above the ceiling of {ceiling:.1%}. Look for test pictures in the "
        f"training data: python jobs/audit.py train=TRAINING_DATA test={test.uri} test_splits={splits} out=AUDIT"
        if too_high
        else f"An accuracy of {accuracy:.1%} is within what others reach.",
        **facts,
    )


def checkpoint_selection(candidate: Candidate) -> Verdict:
    """Guard G10: a checkpoint must be selected on validation rows alone."""
    status, message = _SELECTION[candidate.selection]
    return Verdict(
        guard=Guard.CHECKPOINT_SELECTION,
        status=status,
        threshold="selected on validation rows",
        message=message,
    )
