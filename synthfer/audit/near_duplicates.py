"""Guards G3 to G5: test pictures that are nearly in the training data, by perceptual hash, embedding or alignment."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synthfer.audit import copies, neighbours, perceptual
from synthfer.audit.copies import CopyScan
from synthfer.audit.evidence import Pairs, pairs
from synthfer.audit.features import Features
from synthfer.audit.neighbours import Matches
from synthfer.guards.verdict import Guard, Status, Verdict
from synthfer.limits import MAX_KEPT
from synthfer.schema import option

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
    """How alike two pictures may be."""

    hamming_fail: int = option(6, "bits of 64 in which perceptual hashes of copies differ at most", low=0, high=32)
    hamming_warn: int = option(10, "bits up to which a pair is reported for a person to look at", low=0, high=32)
    cosine: float | None = option(
        None, "cosine of embeddings that fails (null: from unrelated training pairs, one test row in 1,000)", high=1
    )
    keep: int = option(16, "matches kept of each test row, by each guard", low=1, high=MAX_KEPT)


@dataclass(frozen=True)
class Levels:
    """The limits with the embedder's level filled in: a `cosine` above 1 is one that no pair reaches.

    All unrelated pairs but a share of `tail` stay below `unrelated`, None where there are too few of them.
    """

    limits: Limits
    cosine: float
    unrelated: float | None
    tail: float = _TAIL


@dataclass(frozen=True)
class NearMatches:
    """Matches of training rows with test rows: by `hashes` (score is minus the distance, view 1 if they agree once
    aligned), `vectors`, `copies`.

    `nearest` is the one training row most alike to each test row by its vector, whatever its cosine.
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


def moved(matches: NearMatches, right: int) -> NearMatches:
    """Matches whose test rows are numbered within the whole test set, in which the block begins at row `right`."""
    parts = (matches.hashes, matches.vectors, matches.copies, matches.nearest)
    return NearMatches(*(part.moved(right=right) for part in parts))


def exclude_known(matches: NearMatches, known: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> NearMatches:
    """Without the pairs of rows that are `known` already; the nearest rows stay."""
    hashes, vectors, aligned = (
        part[~known(part.left, part.right)] for part in (matches.hashes, matches.vectors, matches.copies)
    )
    return NearMatches(hashes, vectors, aligned, matches.nearest)


def compare(
    blocks: Iterable[Features], starts: Sequence[int], test: Features, levels: Levels, scan: CopyScan
) -> NearMatches:
    """Everything near between blocks of training rows, which are held one at a time, and one block of test rows.

    `starts`: the number of each block's first row; the matches' left rows count from there.
    """
    views, candidates, limits = copies.views(test.grey), _Candidates(scan.keep), levels.limits
    matches, vectors = merge([], limits.keep), test.vectors.astype(np.float32)
    for start, train in zip(starts, blocks, strict=True):
        train_vectors = train.vectors.astype(np.float32)
        block = (
            _hashes(train, test, limits, scan),
            neighbours.top_matches(train_vectors, vectors, levels.cosine, limits.keep),
            neighbours.merge(keep=1),
            neighbours.nearest(train_vectors, vectors),
        )
        matches = merge([matches, NearMatches(*(part.moved(left=int(start)) for part in block))], limits.keep)
        candidates.add(copies.scan(copies.patches(train.grey), views, scan), train.grey, int(start))
    return NearMatches(matches.hashes, matches.vectors, candidates.confirmed(test.grey, scan), matches.nearest)


class _Candidates:
    """The best pairs to align over all blocks so far, with the training pictures that they need."""

    def __init__(self, keep: int) -> None:
        self.keep, self.pairs = keep, neighbours.merge(keep=keep)
        self.grey: dict[int, np.ndarray] = {}

    def add(self, matches: Matches, grey: np.ndarray, start: int) -> None:
        self.pairs = neighbours.merge(self.pairs, matches.moved(left=start), keep=self.keep)
        wanted = set(self.pairs.left.tolist())
        self.grey = {row: old for row, old in self.grey.items() if row in wanted}
        self.grey |= {row: grey[row - start] for row in wanted - self.grey.keys()}

    def confirmed(self, test: np.ndarray, scan: CopyScan) -> Matches:
        rows, positions = np.unique(self.pairs.left, return_inverse=True)
        if not len(rows):
            return self.pairs
        grey = np.stack([self.grey[int(row)] for row in rows])
        local = Matches(positions.astype(np.int64), self.pairs.right, self.pairs.score, self.pairs.view)
        confirmed = copies.confirm(grey, test, local, scan)
        return Matches(rows[confirmed.left], confirmed.right, confirmed.score, confirmed.view)


def _hashes(train: Features, test: Features, limits: Limits, scan: CopyScan) -> Matches:
    """Pairs whose hashes are near; `view` is 1 where the pictures agree once aligned, else 0.

    Faces of one style have near hashes without being copies, so the hash alone proves nothing.
    """
    rows, distance = perceptual.close_pairs(train.hashes, test.hashes, max(limits.hamming_fail, limits.hamming_warn))
    matches = Matches(rows[:, 0], rows[:, 1], -distance.astype(np.float32), np.zeros(len(rows), np.int64))
    matches = neighbours.merge(matches, keep=limits.keep)
    near, confirmed = matches[-matches.score <= limits.hamming_fail], []
    for view in (_AS_IT_IS, _MIRRORED):
        shown = Matches(near.left, near.right, near.score, np.full(len(near), copies.VIEWS.index(view)))
        confirmed.append(copies.confirm(train.grey, test.grey, shown, scan))
    keys = [part.left * len(test) + part.right for part in (matches, *confirmed)]
    agree = np.isin(keys[0], np.concatenate(keys[1:])).astype(np.int64)
    return Matches(matches.left, matches.right, matches.score, agree)


def levels(vectors: np.ndarray, train_rows: int, limits: Limits) -> Levels:
    """The level of likeness that fewer than one test row in 1,000 reaches by chance, from some training rows.

    The cosine of unrelated pairs is taken to have an exponential tail in Fisher's z (peaks over threshold, Pickands
    1975): two quantiles give its scale, and it is extrapolated to the number of training rows that each test row is
    compared with. `vectors`: float (n, d), of rows spread over the training data. Fewer than 29 rows have too few pairs
    and give no level; nor do pictures that are all alike.
    """
    tail = max(_TAIL, _PAIRS_IN_TAIL / max(1, len(vectors) * (len(vectors) - 1) // 2))
    if tail > _MOST_TAIL:
        return Levels(limits, _NO_LEVEL if limits.cosine is None else limits.cosine, None, tail)
    rows = vectors.astype(np.float32)
    cosines = (rows @ rows.T)[~np.tri(len(rows), dtype=bool)]
    quantiles = np.quantile(cosines, [1 - 10 * tail, 1 - tail])
    near, far = np.arctanh(quantiles.clip(-_HIGHEST, _HIGHEST))
    level = float(np.tanh(far + (far - near) / np.log(10) * max(0.0, np.log(tail * train_rows / _CHANCE))))
    cosine = limits.cosine if limits.cosine is not None else level if level < _HIGHEST else _NO_LEVEL
    return Levels(limits, cosine, float(quantiles[1]), tail)


def strictest(datasets: Sequence[Levels]) -> Levels:
    """The highest level of several datasets; one that gave none counts only where no other gave one."""
    return max(datasets, key=lambda levels: (levels.cosine <= 1, levels.cosine))


def verdicts(matches: NearMatches, levels: Levels, scan: CopyScan) -> tuple[list[Verdict], list[Pairs]]:
    """The three verdicts and their pairs, the worst first."""
    by_hash = _hash_pairs(matches.hashes, levels.limits)
    by_vector = _pairs(Guard.EMBEDDING_DUPLICATES, matches.vectors, "embeddings {score:.3f} alike")
    by_view = _pairs(Guard.TRANSFORMED_COPIES, matches.copies, "{view}")
    keep = levels.limits.keep
    hash_threshold = (
        f"pHash of picture or mirror image: {levels.limits.hamming_fail} bits fail where the aligned pictures "
        f"agree, {levels.limits.hamming_warn} bits need a look"
    )
    said = [
        _verdict(Guard.PERCEPTUAL_DUPLICATES, by_hash, hash_threshold, keep),
        _embedding_verdict(by_vector, levels),
        _verdict(Guard.TRANSFORMED_COPIES, [by_view], f"agreement {scan.agreement:.2f} once aligned", keep),
    ]
    return said, [*by_hash, by_vector, by_view]


def _embedding_verdict(evidence: Pairs, levels: Levels) -> Verdict:
    """The verdict on embeddings; skipped where no pair can reach the level."""
    if levels.cosine > 1:
        return Verdict(
            guard=Guard.EMBEDDING_DUPLICATES,
            status="skipped",
            threshold=f"none below a cosine of {_HIGHEST}",
            message="The training pictures are too few, or too alike to the embedder, to separate copies from "
            "unrelated pictures: set near.cosine, or choose another embedder.",
        )
    threshold, numbers = f"cosine {levels.cosine:.3f}", {"cosine": levels.cosine}
    if levels.unrelated is not None:
        threshold += f"; {1 - levels.tail:.2%} of unrelated pairs stay below {levels.unrelated:.3f}"
        numbers["unrelated"] = levels.unrelated
    return _verdict(Guard.EMBEDDING_DUPLICATES, [evidence], threshold, levels.limits.keep, numbers)


def _hash_pairs(matches: Matches, limits: Limits) -> list[Pairs]:
    copied = (-matches.score <= limits.hamming_fail) & (matches.view == 1)
    groups = []
    for status, part in (("fail", _sorted(matches[copied])), ("warn", _sorted(matches[~copied]))):
        rows = np.stack([part.left, part.right], axis=1)
        detail = [f"hashes differ in {-score:.0f} bits" for score in part.score]
        groups.append(pairs(Guard.PERCEPTUAL_DUPLICATES, status, _ENDS, rows, -part.score, detail))  # type: ignore[arg-type]
    return groups


def _pairs(guard: Guard, matches: Matches, text: str) -> Pairs:
    matches = _sorted(matches)
    detail = [
        text.format(score=score, view=_view_name(int(view)))
        for score, view in zip(matches.score, matches.view, strict=True)
    ]
    return pairs(guard, "fail", _ENDS, np.stack([matches.left, matches.right], axis=1), matches.score, detail)


def _view_name(view: int) -> str:
    """How the test picture of a view was changed, in words; the alignment after it is finer."""
    flip, angle, zoom, right, down = copies.VIEWS[view]
    done = ["mirrored"] * (flip < 0) + [f"turned by about {angle:.0f} degrees"] * (angle != 0)
    done += [f"{'enlarged' if zoom > 1 else 'shrunk'} to about {zoom:.0%}"] * (zoom != 1)
    done += ["shifted"] * bool(right or down)
    return ", ".join(done) or "as it is"


def _sorted(matches: Matches) -> Matches:
    return matches[np.argsort(-matches.score, kind="stable")]


def _verdict(
    guard: Guard,
    groups: Sequence[Pairs],
    threshold: str,
    keep: int,
    numbers: Mapping[str, float] | None = None,
) -> Verdict:
    failing, warned = (
        np.concatenate([np.empty(0, np.int64), *(group.right for group in groups if group.status == status)])
        for status in ("fail", "warn")
    )
    rows, matches = np.unique(failing, return_counts=True)
    full, to_look_at = int((matches >= keep).sum()), len(np.unique(warned))
    status: Status = "fail" if len(rows) else "warn" if to_look_at else "pass"
    message = {
        "fail": f"{len(rows):,} test rows have near copies in the training data, not counting identical ones.",
        "warn": f"{to_look_at:,} test rows are near training rows, none certainly a copy: look at the pairs.",
        "pass": "No test row has a near copy in the training data, not counting identical ones.",
    }[status]
    if full:
        message += f" {full:,} have {keep} or more and there may be others: raise near.keep, or audit what is left."
    counts = {"test_rows": len(rows), "pairs": len(failing), "test_rows_to_look_at": to_look_at}
    return Verdict(
        guard=guard, status=status, threshold=threshold, message=message, numbers=counts | dict(numbers or {})
    )
