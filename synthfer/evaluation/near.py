"""Guards G3 to G5: test pictures that are nearly in the training data, seen by hash, by an embedder, by alignment."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synthfer.config import option
from synthfer.evaluation import copies, neighbours, perceptual
from synthfer.evaluation.copies import CopyScan
from synthfer.evaluation.evidence import Pairs, pairs
from synthfer.evaluation.features import Features
from synthfer.evaluation.neighbours import Matches
from synthfer.evaluation.verdict import Status, Verdict

_ENDS = ("train", "test")
_AS_IT_IS, _MIRRORED = (1, 0, 1.0, 0.0, 0.0), (-1, 0, 1.0, 0.0, 0.0)
# Share of test rows that may reach the embedder's level by chance, however many training rows there are.
_CHANCE = 1e-3
# Share of unrelated pairs in the tail, from which the level follows; a small sample gives too few pairs for the first.
_TAIL, _MOST_TAIL = 1e-4, 0.05
_PAIRS_IN_TAIL = 20
_HIGHEST = 0.999  # vectors are kept as float16: those of the same picture are hardly more alike
_NO_LEVEL = 2.0  # above any cosine


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How near is too near."""

    hamming_fail: int = option(6, "bits of 64 in which perceptual hashes of copies differ at most", low=0, high=32)
    hamming_warn: int = option(10, "bits that are worth a look", low=0, high=32)
    cosine: float | None = option(
        None, "likeness of embeddings that fails (null: from unrelated training pairs, one test row in 1,000)", high=1
    )
    keep: int = option(16, "matches kept of each test row, for each guard", low=1)


@dataclass(frozen=True)
class Levels:
    """The limits with the embedder's level filled in: a `cosine` above 1 is one that no pair reaches.

    All unrelated pairs but a share of `tail` stay below `unrelated`, None where there are too few to tell.
    """

    limits: Limits
    cosine: float
    unrelated: float | None
    tail: float = _TAIL


@dataclass(frozen=True)
class NearMatches:
    """Matches of training rows with test rows: by `hashes` (score is minus the distance, view 1 if they agree once
    aligned), `vectors`, `copies`.

    `nearest` is the one training row most alike to each test row by its vector, however unlike it is.
    """

    hashes: Matches
    vectors: Matches
    copies: Matches
    nearest: Matches


def merge(parts: Sequence[NearMatches], keep: int) -> NearMatches:
    """The matches of several blocks of test rows, or the best of several blocks of training rows."""

    def best(name: str, most: int) -> Matches:
        return neighbours.merge(*(getattr(part, name) for part in parts), keep=most)

    return NearMatches(best("hashes", keep), best("vectors", keep), best("copies", keep), best("nearest", 1))


def moved(found: NearMatches, right: int) -> NearMatches:
    """The same where the first test row is this row of the whole."""
    parts = (found.hashes, found.vectors, found.copies, found.nearest)
    return NearMatches(*(part.moved(right=right) for part in parts))


def exclude_known(found: NearMatches, known: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> NearMatches:
    """Without the pairs of rows that are `known` already; the nearest rows stay."""
    hashes, vectors, alike = (
        part[~known(part.left, part.right)] for part in (found.hashes, found.vectors, found.copies)
    )
    return NearMatches(hashes, vectors, alike, found.nearest)


def compare(
    blocks: Iterable[Features], starts: Sequence[int], test: Features, levels: Levels, scan: CopyScan
) -> NearMatches:
    """Everything near between blocks of training rows, which are held one at a time, and one block of test rows.

    `starts`: the number of each block's first row; the matches' left rows count from there.
    """
    views, candidates, limits = copies.views(test.grey), _Candidates(scan.keep), levels.limits
    found, vectors = merge([], limits.keep), test.vectors.astype(np.float32)
    for start, train in zip(starts, blocks, strict=True):
        theirs = train.vectors.astype(np.float32)
        near = (
            _hashes(train, test, limits, scan),
            neighbours.top_matches(theirs, vectors, levels.cosine, limits.keep),
            neighbours.merge(keep=1),
            neighbours.nearest(theirs, vectors),
        )
        found = merge([found, NearMatches(*(part.moved(left=int(start)) for part in near))], limits.keep)
        candidates.add(copies.scan(copies.patches(train.grey), views, scan), train.grey, int(start))
    return NearMatches(found.hashes, found.vectors, candidates.confirmed(test.grey, scan), found.nearest)


class _Candidates:
    """The pairs worth aligning, the best over all blocks by now, with the training pictures that they need."""

    def __init__(self, keep: int) -> None:
        self.keep, self.pairs = keep, neighbours.merge(keep=keep)
        self.grey: dict[int, np.ndarray] = {}

    def add(self, found: Matches, grey: np.ndarray, start: int) -> None:
        self.pairs = neighbours.merge(self.pairs, found.moved(left=start), keep=self.keep)
        wanted = set(self.pairs.left.tolist())
        self.grey = {row: old for row, old in self.grey.items() if row in wanted}
        self.grey |= {row: grey[row - start] for row in wanted - self.grey.keys()}

    def confirmed(self, test: np.ndarray, scan: CopyScan) -> Matches:
        rows, places = np.unique(self.pairs.left, return_inverse=True)
        if not len(rows):
            return self.pairs
        grey = np.stack([self.grey[int(row)] for row in rows])
        local = Matches(places.astype(np.int64), self.pairs.right, self.pairs.score, self.pairs.view)
        sure = copies.confirm(grey, test, local, scan)
        return Matches(rows[sure.left], sure.right, sure.score, sure.view)


def _hashes(train: Features, test: Features, limits: Limits, scan: CopyScan) -> Matches:
    """Pairs whose hashes are near; `view` is 1 where the pictures agree once aligned, else 0.

    Faces of one style have near hashes without being copies, so the hash alone convicts nobody.
    """
    rows, distance = perceptual.close_pairs(train.hashes, test.hashes, max(limits.hamming_fail, limits.hamming_warn))
    found = Matches(rows[:, 0], rows[:, 1], -distance.astype(np.float32), np.zeros(len(rows), np.int64))
    found = neighbours.merge(found, keep=limits.keep)
    near, sure = found[-found.score <= limits.hamming_fail], []
    for view in (_AS_IT_IS, _MIRRORED):
        seen = Matches(near.left, near.right, near.score, np.full(len(near), copies.VIEWS.index(view)))
        sure.append(copies.confirm(train.grey, test.grey, seen, scan))
    places = [pairs.left * len(test) + pairs.right for pairs in (found, *sure)]
    agree = np.isin(places[0], np.concatenate(places[1:])).astype(np.int64)
    return Matches(found.left, found.right, found.score, agree)


def levels(vectors: np.ndarray, train_rows: int, limits: Limits) -> Levels:
    """The level of likeness that fewer than one test row in 1,000 reaches by chance, from some training rows.

    The likeness of unrelated pairs is taken to have an exponential tail (peaks over threshold, Pickands 1975) in
    Fisher's z, which is the tail of whatever ends at a cosine of 1: its scale follows from two quantiles, and it is
    followed to the number of training rows that each test row meets. `vectors`: float (n, d), of rows spread over the
    training data. Fewer than 29 have too few pairs to tell, and give no level; nor do pictures that are all alike.
    """
    tail = max(_TAIL, _PAIRS_IN_TAIL / max(1, len(vectors) * (len(vectors) - 1) // 2))
    if tail > _MOST_TAIL:
        return Levels(limits, _NO_LEVEL if limits.cosine is None else limits.cosine, None, tail)
    known = vectors.astype(np.float32)
    likeness = (known @ known.T)[~np.tri(len(known), dtype=bool)]
    quantiles = np.quantile(likeness, [1 - 10 * tail, 1 - tail])
    near, far = np.arctanh(quantiles.clip(-_HIGHEST, _HIGHEST))
    level = float(np.tanh(far + (far - near) / np.log(10) * max(0.0, np.log(tail * train_rows / _CHANCE))))
    cosine = limits.cosine if limits.cosine is not None else level if level < _HIGHEST else _NO_LEVEL
    return Levels(limits, cosine, float(quantiles[1]), tail)


def strictest(found: Sequence[Levels]) -> Levels:
    """The highest level of several datasets; one that gave none counts only where no other gave one."""
    return max(found, key=lambda levels: (levels.cosine <= 1, levels.cosine))


def judge(found: NearMatches, levels: Levels, scan: CopyScan) -> tuple[list[Verdict], list[Pairs]]:
    """The three verdicts and their pairs, the worst first."""
    by_hash = _by_hash(found.hashes, levels.limits)
    by_vector = _of("G4", found.vectors, "embeddings {score:.3f} alike")
    by_view = _of("G5", found.copies, "{view}")
    keep = levels.limits.keep
    verdicts = [
        _verdict(
            "G3",
            "perceptual duplicates",
            by_hash,
            f"pHash of picture or mirror image: {levels.limits.hamming_fail} bits fail where the aligned pictures "
            f"agree, {levels.limits.hamming_warn} bits need a look",
            keep,
        ),
        _by_likeness(by_vector, levels),
        _verdict("G5", "augmented copies", [by_view], f"agreement {scan.agreement:.2f} once aligned", keep),
    ]
    return verdicts, [*by_hash, by_vector, by_view]


def _by_likeness(found: Pairs, levels: Levels) -> Verdict:
    """Guard G4; skipped where no pair can reach the level."""
    name = "embedding duplicates"
    if levels.cosine > 1:
        return Verdict(
            guard="G4",
            name=name,
            status="skipped",
            threshold=f"none below a cosine of {_HIGHEST}",
            message="The training pictures are too few, or too alike to the embedder, to tell copies from strangers: "
            "set near.cosine, or take another embedder.",
        )
    threshold, numbers = f"cosine {levels.cosine:.3f}", {"cosine": levels.cosine}
    if levels.unrelated is not None:
        threshold += f"; {1 - levels.tail:.2%} of unrelated pairs stay below {levels.unrelated:.3f}"
        numbers["unrelated"] = levels.unrelated
    return _verdict("G4", name, [found], threshold, levels.limits.keep, numbers)


def _by_hash(found: Matches, limits: Limits) -> list[Pairs]:
    sure = (-found.score <= limits.hamming_fail) & (found.view == 1)
    groups = []
    for status, part in (("fail", _sorted(found[sure])), ("warn", _sorted(found[~sure]))):
        rows = np.stack([part.left, part.right], axis=1)
        detail = [f"hashes differ in {-score:.0f} bits" for score in part.score]
        groups.append(pairs("G3", status, _ENDS, rows, -part.score, detail))  # type: ignore[arg-type]
    return groups


def _of(guard: str, found: Matches, text: str) -> Pairs:
    found = _sorted(found)
    detail = [
        text.format(score=score, view=_view_name(int(view)))
        for score, view in zip(found.score, found.view, strict=True)
    ]
    return pairs(guard, "fail", _ENDS, np.stack([found.left, found.right], axis=1), found.score, detail)


def _view_name(view: int) -> str:
    """What was done to the test picture in a view, in words; the alignment after it is finer."""
    flip, angle, zoom, right, down = copies.VIEWS[view]
    done = ["mirrored"] * (flip < 0) + [f"turned by about {angle:.0f} degrees"] * (angle != 0)
    done += [f"{'enlarged' if zoom > 1 else 'shrunk'} to about {zoom:.0%}"] * (zoom != 1)
    done += ["shifted"] * bool(right or down)
    return ", ".join(done) or "as it is"


def _sorted(found: Matches) -> Matches:
    return found[np.argsort(-found.score, kind="stable")]


def _verdict(
    guard: str,
    name: str,
    groups: Sequence[Pairs],
    threshold: str,
    keep: int,
    numbers: Mapping[str, float] | None = None,
) -> Verdict:
    fails, looks = (
        np.concatenate([np.empty(0, np.int64), *(group.right for group in groups if group.status == status)])
        for status in ("fail", "warn")
    )
    rows, matches = np.unique(fails, return_counts=True)
    full, looked_at = int((matches >= keep).sum()), len(np.unique(looks))
    status: Status = "fail" if len(rows) else "warn" if looked_at else "pass"
    message = {
        "fail": f"{len(rows):,} test rows have near copies in the training data, beside identical ones.",
        "warn": f"{looked_at:,} test rows are near training rows, none surely a copy: look at the pairs.",
        "pass": "No test row has a near copy in the training data, beside identical ones.",
    }[status]
    if full:
        message += f" {full:,} have {keep} or more and there may be others: raise near.keep, or audit what is left."
    told = {"test_rows": len(rows), "pairs": len(fails), "test_rows_to_look_at": looked_at}
    return Verdict(
        guard=guard, name=name, status=status, threshold=threshold, message=message, numbers=told | dict(numbers or {})
    )
