"""Guards of one cell of the matrix: G7, did it learn from these rows; G8, too good to be true; G10, chosen on what?

G7 asks by row where the candidate knows its training rows, by audited pairs of copies, and by what is declared of it,
its teacher and its generator.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthfer.classifiers.training_fingerprint import digest
from synthfer.evaluation.cells import Candidate, TestSet, home
from synthfer.evaluation.verdict import PAIRS, Status, Verdict

# What the tie of a test row to a training row is, by its column.
_WAYS = {
    "sample_id": "as the same sample or its original",
    "parent_id": "by what they were made from",
    "partner_id": "by a second sample that they were made from",
    "partner_source_id": "by the original or identity of a second sample that they were made from",
    "source_id": "by identity or original",
    "pixels_hash": "by their pixels",
}
_SELECTION: dict[str, tuple[Status, str]] = {
    "validation": ("pass", "The checkpoint was chosen on validation rows."),
    "unknown": ("warn", "Nobody says what the checkpoint was chosen on: if on test rows, its scores are too high."),
    "test": ("fail", "The checkpoint was chosen on test rows: its scores in its own collection do not count."),
}


@dataclass(frozen=True, kw_only=True)
class Audits:
    """What audits of training data against test data found.

    `pairs` (`evaluation.verdict.PAIRS`): of all of them together. `covered`: hash and split of the test data that they
    looked at, since one that found nothing has no pair.
    """

    pairs: pa.Table
    covered: Collection[tuple[str, str]] = ()

    @cached_property
    def halves(self) -> list[tuple[pa.Array, pa.Array]]:
        """The failing pairs both ways round: digests of the ids of one half, and the ids of the other."""
        failing = self.pairs.filter(pc.field("status") == "fail")
        left, right = (failing[f"{end}_sample_id"].combine_chunks() for end in ("left", "right"))
        return [(digest(left), right), (digest(right), left)]

    def concern(self, test: TestSet) -> bool:
        """Whether one looked at this test set: at all of its splits, or it names one of its rows as test data."""
        if all((test.hash, split) in self.covered for split in test.splits):
            return True
        ids = test.facts["sample_id"].combine_chunks()
        ends = (self.pairs.filter(pc.field(f"{end}_side") == "test")[f"{end}_sample_id"] for end in ("left", "right"))
        return any(pc.any(pc.is_in(named, value_set=ids)).as_py() for named in ends)


NO_AUDITS = Audits(pairs=PAIRS.empty_table())


@dataclass(frozen=True, kw_only=True)
class Contact:
    """What ties a candidate's training data to a test set of n rows.

    `tied` bool (n,): rows that are tied to a training row by lineage or pixels. `copied` bool (n,): rows that an audit
    found a copy of in the training data. `reasons`: sentences that say why scores on this set do not count; none where
    they do. `searched`: whether an audit looked for copies of this test set, so that having none says something.
    """

    tied: np.ndarray
    copied: np.ndarray
    reasons: tuple[str, ...]
    searched: bool

    @property
    def flagged(self) -> np.ndarray:
        """Rows that the candidate has seen in one way or the other, bool (n,)."""
        return self.tied | self.copied


def contact(candidate: Candidate, test: TestSet, audits: Audits, searched: bool, max_flagged_share: float) -> Contact:
    """What of a test set the candidate has seen; `searched` is `audits.concern(test)`.

    One row tied by lineage or pixels is one too many, and so is a declared split that test rows are from. Of rows with
    a copy found by an audit, more than `max_flagged_share` of the set are; audits tell of a candidate only where `seen`
    says which of the audited rows it learned from.
    """
    tied, how = _tied(candidate, test)
    copied = _copied(candidate, test, audits)
    reasons = [*how, *_declared(candidate, test)]
    if copied.mean() > max_flagged_share:
        reasons.append(f"An audit found copies of {copied.sum():,} of {len(test):,} test rows in its training data.")
    return Contact(tied=tied, copied=copied, reasons=tuple(reasons), searched=searched)


def _tied(candidate: Candidate, test: TestSet) -> tuple[np.ndarray, list[str]]:
    """Rows that are tied to a training row, bool (n,), and the sentence that says how."""
    if candidate.seen is None:
        return np.zeros(len(test), bool), []
    ties = candidate.seen.related_by(test.digests)
    tied: np.ndarray = np.logical_or.reduce(list(ties.values()))
    if not tied.any():
        return tied, []
    ways = ", ".join(f"{ties[column].sum():,} {how}" for column, how in _WAYS.items() if ties[column].any())
    return tied, [f"{tied.sum():,} of {len(test):,} test rows are tied to its training rows: {ways}."]


def _declared(candidate: Candidate, test: TestSet) -> list[str]:
    """A sentence for each declared "collection:split" that test rows are from."""
    rows: dict[str, int] = {}
    for (source, split), count in test.origins.items():
        key = f"{home(source)}:{split}"
        rows[key] = rows.get(key, 0) + count
    found = []
    for named in candidate.declared:
        collection, _, split = named.rpartition(":")
        if drawn := rows.get(f"{home(collection)}:{split}"):
            found.append(f"It, its teacher or its generator is declared to have learned from {named}, and "
                         f"{drawn:,} of {len(test):,} test rows are from there.")  # fmt: skip
    return found


def _copied(candidate: Candidate, test: TestSet, audits: Audits) -> np.ndarray:
    """Test rows that stand in a failing pair with a row that the candidate has seen, bool (n,)."""
    if candidate.seen is None:
        return np.zeros(len(test), bool)
    partners = pa.chunked_array(
        [theirs.filter(pa.array(candidate.seen.contains(ours), pa.bool_())) for ours, theirs in audits.halves],
        pa.string(),
    )
    copied: np.ndarray = pc.is_in(test.facts["sample_id"], value_set=partners.combine_chunks()).to_numpy()
    return copied


def training_data(candidate: Candidate, found: Contact) -> Verdict:
    """Guard G7: has the candidate learned from test rows, itself or through its teacher or generator?"""
    known = candidate.seen is not None or bool(candidate.declared)
    clean = (
        f"Nothing that it is known to have learned from is in the test set.{_unsearched(candidate, found)}"
        if known
        else "Nobody says what it learned from, so it may have learned from the test set: declare trained_on."
    )
    return Verdict(
        guard="G7",
        name="training data",
        status="fail" if found.reasons else "pass" if known else "warn",
        threshold="no tied row, no declared split, no more audited copies than allowed",
        message=" ".join(found.reasons) or clean,
        numbers={"tied_rows": int(found.tied.sum()), "copied_rows": int(found.copied.sum())},
    )


def _unsearched(candidate: Candidate, found: Contact) -> str:
    """Why near copies may be there all the same, or nothing."""
    if not found.searched:
        return " Near copies were not searched for: no audit of this test set was given (audits=)."
    return "" if candidate.seen else " Near copies cannot be told: no list of its training rows lies beside it."


def ceiling_of(test: TestSet, ceilings: Mapping[str, float]) -> float | None:
    """The accuracy that nobody honestly passes on a test set, 0..1; None where one of its collections has none.

    Of several collections the mean, weighted by their rows.
    """
    if not ceilings.keys() >= set(test.collections):
        return None
    return sum(ceilings[source] * rows for (source, _), rows in test.origins.items()) / len(test)


def plausible(accuracy: float, test: TestSet, ceiling: float | None) -> Verdict:
    """Guard G8: an accuracy above the ceiling is taken for a leak until an audit of the pictures finds none."""
    facts: dict[str, Any] = {"guard": "G8", "name": "plausible score", "numbers": {"accuracy": accuracy}}
    if ceiling is None:
        message = f"No ceiling is set for {', '.join(test.collections)}."
        return Verdict(status="skipped", threshold="-", message=message, **facts)
    bad = accuracy > ceiling
    splits = f"[{','.join(test.splits)}]"
    return Verdict(
        status="fail" if bad else "pass",
        threshold=f"accuracy of at most {ceiling:.1%}",
        message=f"An accuracy of {accuracy:.1%} is above the ceiling of {ceiling:.1%}. Look for test pictures in the "
        f"training data: python jobs/audit.py train=TRAINING_DATA test={test.uri} test_splits={splits} out=AUDIT"
        if bad
        else f"An accuracy of {accuracy:.1%} is within what others reach.",
        **facts,
    )


def selection(candidate: Candidate) -> Verdict:
    """Guard G10: a checkpoint must be chosen on validation rows alone."""
    status, message = _SELECTION[candidate.selection]
    return Verdict(
        guard="G10",
        name="selection",
        status=status,
        threshold="chosen on validation rows",
        message=message,
    )
