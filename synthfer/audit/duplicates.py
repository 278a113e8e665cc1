"""Guards G2 and G6: pictures with the same pixels, and duplicates or copies whose labels differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synthfer.audit.evidence import Pairs, pairs
from synthfer.audit.splits import AuditSplit
from synthfer.guards.verdict import Guard, Verdict


@dataclass(frozen=True)
class _Groups:
    """All rows of training (`side` 0) and test data (1): `group` is equal where the pixels are."""

    group: np.ndarray
    side: np.ndarray
    row: np.ndarray
    split: np.ndarray
    label: np.ndarray

    def distinct(self, values: np.ndarray) -> np.ndarray:
        """How many different values each group has, int64 (groups,)."""
        distinct = np.unique(np.stack([self.group, values]), axis=1)
        return np.bincount(distinct[0], minlength=self.group.max() + 1)


def identical_pixels(splits: Mapping[str, AuditSplit]) -> tuple[Verdict, list[Pairs]]:
    """Pixel-identical samples (by the hash of the decoded picture), whatever their files are.

    Between training and test data every row of a group is in a pair; within one, each copy with the first of them.
    """
    groups = _groups(splits)
    sizes = np.bincount(groups.group)
    across = groups.distinct(groups.side) > 1
    numbers = {
        "groups": int((sizes > 1).sum()),
        "rows_in_groups": int(sizes[sizes > 1].sum()),
        "copies": int(len(groups.group) - len(sizes)),
        "groups_across_splits": int((groups.distinct(groups.split) > 1).sum()),
        "groups_across_sides": int(across.sum()),
        "groups_with_conflicting_labels": int(_conflicting(groups).sum()),
    }
    evidence = [_across(groups, across), *_within(groups)]
    status = "fail" if numbers["groups_across_sides"] else "warn" if numbers["groups"] else "pass"
    message = {
        "fail": f"{numbers['groups_across_sides']:,} pictures are in training and in test data, pixel for pixel.",
        "warn": f"{numbers['copies']:,} copies within training or test data; none between them.",
        "pass": "No two samples have the same pixels.",
    }[status]
    verdict = Verdict(
        guard=Guard.IDENTICAL_PIXELS,
        status=status,  # type: ignore[arg-type]
        threshold="no picture in both with the same pixels",
        message=message,
        numbers=numbers,
    )
    return verdict, evidence


def conflicting_labels(splits: Mapping[str, AuditSplit], evidence: Sequence[Pairs]) -> Verdict:
    """Whether pairs of duplicates and copies have the same label; similar embeddings alone do not count as copies."""
    counted = [group for group in evidence if _is_copy(group)]
    total = bad = 0
    for ends in {group.ends for group in counted}:
        same_ends = [group for group in counted if group.ends == ends]
        pairs_of = np.concatenate([group.left * len(splits[ends[1]]) + group.right for group in same_ends])
        first = np.unique(pairs_of, return_index=True)[1]  # two guards may have found the same pair
        total += len(first)
        bad += int(np.concatenate([group.conflicting(splits) for group in same_ends])[first].sum())
    return Verdict(
        guard=Guard.CONFLICTING_LABELS,
        status="warn" if bad else "pass",
        threshold="no duplicate or copy with another label",
        message=f"{bad:,} of {total:,} pairs of duplicates and copies have two labels: drop them, or keep one of each."
        if bad
        else "No duplicate or copy has another label.",
        numbers={"pairs": total, "conflicting": bad},
    )


def _is_copy(group: Pairs) -> bool:
    """Whether a group's pairs certainly show the same picture."""
    if group.guard is Guard.PERCEPTUAL_DUPLICATES:
        return group.status == "fail"
    return group.guard in (Guard.IDENTICAL_PIXELS, Guard.TRANSFORMED_COPIES)


def _groups(splits: Mapping[str, AuditSplit]) -> _Groups:
    order = [splits["train"], splits["test"]]
    hashes = np.concatenate([side.texts("pixels_hash") for side in order]).astype("S32")
    split_names = np.concatenate([side.texts("split") for side in order]).astype("U8")
    return _Groups(
        group=np.unique(hashes, return_inverse=True)[1].astype(np.int64),
        side=np.repeat([0, 1], [len(side) for side in order]),
        row=np.concatenate([np.arange(len(side)) for side in order]),
        split=np.unique(split_names, return_inverse=True)[1].astype(np.int64),
        label=np.concatenate([side.labels for side in order]),
    )


def _conflicting(groups: _Groups) -> np.ndarray:
    """Which groups have two labels, bool (groups,)."""
    labelled = groups.label >= 0
    distinct = np.unique(np.stack([groups.group[labelled], groups.label[labelled]]), axis=1)
    return np.bincount(distinct[0], minlength=groups.group.max() + 1) > 1


def _across(groups: _Groups, across: np.ndarray) -> Pairs:
    """Each row of a group that is in both, with the first row of its group in the other."""
    in_both = across[groups.group]
    first = [_first_rows(groups, side) for side in (0, 1)]
    train = in_both & (groups.side == 0)
    test = in_both & (groups.side == 1)
    rows = np.concatenate(
        [
            np.stack([groups.row[train], first[1][groups.group[train]]], axis=1),
            np.stack([first[0][groups.group[test]], groups.row[test]], axis=1),
        ]
    )
    return pairs(Guard.IDENTICAL_PIXELS, "fail", ("train", "test"), np.unique(rows, axis=0), 1.0, "identical pixels")


def _within(groups: _Groups) -> list[Pairs]:
    """Each later copy within training data, or within test data, with the first of its group there."""
    evidence = []
    for side, name in enumerate(("train", "test")):
        first = _first_rows(groups, side)
        copies = np.flatnonzero(groups.side == side)
        copies = copies[groups.row[copies] != first[groups.group[copies]]]
        rows = np.stack([first[groups.group[copies]], groups.row[copies]], axis=1)
        evidence.append(pairs(Guard.IDENTICAL_PIXELS, "warn", (name, name), rows, 1.0, "identical pixels"))
    return evidence


def _first_rows(groups: _Groups, side: int) -> np.ndarray:
    """The first row of each group in training data (side 0) or test data (1), int64 (groups,); -1 for none."""
    first = np.full(groups.group.max() + 1, -1, np.int64)
    backwards = np.flatnonzero(groups.side == side)[::-1]  # so that the first row is the last one written
    first[groups.group[backwards]] = groups.row[backwards]
    return first
