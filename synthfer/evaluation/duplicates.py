"""Guards G2 and G6: samples with the same pixels, within and across splits, and those of them whose labels differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synthfer.evaluation.evidence import Pairs, pairs
from synthfer.evaluation.sides import AuditSplit
from synthfer.evaluation.verdict import Verdict


@dataclass(frozen=True)
class _Groups:
    """All rows of both sides, sorted by pixels: `group` numbers them, `side` is 0 (train) or 1 (test)."""

    group: np.ndarray
    side: np.ndarray
    row: np.ndarray
    split: np.ndarray
    label: np.ndarray

    def distinct(self, values: np.ndarray) -> np.ndarray:
        """How many different values each group has, int64 (groups,)."""
        seen = np.unique(np.stack([self.group, values]), axis=1)
        return np.bincount(seen[0], minlength=self.group.max() + 1)


def exact(sides: Mapping[str, AuditSplit]) -> tuple[Verdict, list[Pairs]]:
    """Pixel-identical samples (the hash of the decoded picture), whatever their files are.

    Across the sides every row of a group stands in a pair; within one, each copy with the first of them.
    """
    groups = _groups(sides)
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
    found = [_across(groups, across), *_within(groups)]
    status = "fail" if numbers["groups_across_sides"] else "warn" if numbers["groups"] else "pass"
    message = {
        "fail": f"{numbers['groups_across_sides']:,} pictures stand in training and in test data, pixel for pixel.",
        "warn": f"{numbers['copies']:,} copies within a side; none across.",
        "pass": "No two samples have the same pixels.",
    }[status]
    verdict = Verdict(
        guard="G2",
        name="exact duplicates",
        status=status,  # type: ignore[arg-type]
        threshold="no pixel-identical picture on both sides",
        message=message,
        numbers=numbers,
    )
    return verdict, found


def conflicts(sides: Mapping[str, AuditSplit], found: Sequence[Pairs]) -> Verdict:
    """What the pairs of duplicates and copies say of the labels: the same face under two names."""
    judged = [group for group in found if group.guard in ("G2", "G5") or (group.guard, group.status) == ("G3", "fail")]
    total = bad = 0
    for ends in {group.ends for group in judged}:
        mine = [group for group in judged if group.ends == ends]
        pairs_of = np.concatenate([group.left * len(sides[ends[1]]) + group.right for group in mine])
        first = np.unique(pairs_of, return_index=True)[1]  # two guards may have found the same pair
        total += len(first)
        bad += int(np.concatenate([group.conflicting(sides) for group in mine])[first].sum())
    return Verdict(
        guard="G6",
        name="conflicting labels",
        status="warn" if bad else "pass",
        threshold="no duplicate or copy with another label",
        message=f"{bad:,} of {total:,} pairs of duplicates and copies have two labels: drop them, or keep one of each."
        if bad
        else "No duplicate or copy has another label.",
        numbers={"pairs": total, "conflicting": bad},
    )


def _groups(sides: Mapping[str, AuditSplit]) -> _Groups:
    order = [sides["train"], sides["test"]]
    hashes = np.concatenate([side.texts("pixels_hash") for side in order]).astype("S32")
    splits = np.concatenate([side.texts("split") for side in order]).astype("U8")
    return _Groups(
        group=np.unique(hashes, return_inverse=True)[1].astype(np.int64),
        side=np.repeat([0, 1], [len(side) for side in order]),
        row=np.concatenate([np.arange(len(side)) for side in order]),
        split=np.unique(splits, return_inverse=True)[1].astype(np.int64),
        label=np.concatenate([side.labels for side in order]),
    )


def _conflicting(groups: _Groups) -> np.ndarray:
    """Which groups have two labels, bool (groups,)."""
    labelled = groups.label >= 0
    seen = np.unique(np.stack([groups.group[labelled], groups.label[labelled]]), axis=1)
    return np.bincount(seen[0], minlength=groups.group.max() + 1) > 1


def _across(groups: _Groups, across: np.ndarray) -> Pairs:
    """Each row of a group on both sides, with the first row of its group on the other side."""
    here = across[groups.group]
    first = [_first_rows(groups, side) for side in (0, 1)]
    train = here & (groups.side == 0)
    test = here & (groups.side == 1)
    rows = np.concatenate(
        [
            np.stack([groups.row[train], first[1][groups.group[train]]], axis=1),
            np.stack([first[0][groups.group[test]], groups.row[test]], axis=1),
        ]
    )
    return pairs("G2", "fail", ("train", "test"), np.unique(rows, axis=0), 1.0, "identical pixels")


def _within(groups: _Groups) -> list[Pairs]:
    """Each later copy on a side with the first of its group there."""
    found = []
    for side, name in enumerate(("train", "test")):
        first = _first_rows(groups, side)
        copies = np.flatnonzero(groups.side == side)
        copies = copies[groups.row[copies] != first[groups.group[copies]]]
        rows = np.stack([first[groups.group[copies]], groups.row[copies]], axis=1)
        found.append(pairs("G2", "warn", (name, name), rows, 1.0, "identical pixels"))
    return found


def _first_rows(groups: _Groups, side: int) -> np.ndarray:
    """The first row of each group on one side, int64 (groups,); -1 where there is none."""
    first = np.full(groups.group.max() + 1, -1, np.int64)
    mine = np.flatnonzero(groups.side == side)[::-1]
    first[groups.group[mine]] = groups.row[mine]
    return first
