"""Guard G11: the audit's self-test. Copies of training pictures are planted among test data and must be found.

An audit that finds nothing says something only if it would have found what there is to find, in these very pictures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan

import numpy as np

from synthfer.embedders import Embedder
from synthfer.evaluation.copies import KINDS, plant
from synthfer.evaluation.features import Features, of_pictures
from synthfer.evaluation.near import NearMatches
from synthfer.evaluation.verdict import Verdict
from synthfer.sample import seed_of

_MUST_FIND, _SHOULD_FIND = 0.75, 0.9
# Several changes at once are often missed; what share is found is told, not judged.
_NOT_JUDGED = "all"
_ROUNDING = 1e-9
Tally = dict[str, tuple[int, int]]
"""kind of copy -> planted, found"""


def copies_of(pictures: Sequence[np.ndarray], rows: Sequence[int], embedder: Embedder, seed: int) -> Features:
    """The features of one copy of each kind of each picture, kind by kind; picture i is training row `rows[i]`."""
    planted = (
        plant(pixels, kind, np.random.default_rng(seed_of(seed, "canary", kind, int(row))))
        for kind in KINDS
        for pixels, row in zip(pictures, rows, strict=True)
    )
    return of_pictures(planted, embedder)


def tally(found: NearMatches, rows: Sequence[int]) -> Tally:
    """How many of the copies of these training rows a guard would fail; `found.right` counts as `copies_of` does."""
    caught = np.zeros(len(KINDS) * len(rows), bool)
    for part in (found.hashes[found.hashes.view == 1], found.vectors, found.copies):
        caught[part.right[part.left == np.asarray(rows)[part.right % len(rows)]]] = True
    hits = caught.reshape(len(KINDS), len(rows)).sum(1)
    return {kind: (len(rows), int(n)) for kind, n in zip(KINDS, hits, strict=True)}


def add(tallies: Sequence[Tally]) -> Tally:
    """The sum of some tallies."""
    planted, found = Counter[str](), Counter[str]()
    for tally in tallies:
        planted.update({kind: counts[0] for kind, counts in tally.items()})
        found.update({kind: counts[1] for kind, counts in tally.items()})
    return {kind: (planted[kind], found[kind]) for kind in planted}


def verdict(tally: Tally, shuffled: Mapping[str, float]) -> Verdict:
    """Whether enough of every kind was found, and shuffled labels gave chance; NaN where no row could be judged."""
    shares = {kind: found / planted for kind, (planted, found) in tally.items() if planted}
    judged = {kind: share for kind, share in shares.items() if kind != _NOT_JUDGED}
    missed = {kind: share for kind, share in judged.items() if share < _SHOULD_FIND}
    blind = any(share < _MUST_FIND for share in missed.values())
    shuffling = not isnan(shuffled["accuracy"])
    astray = shuffling and abs(shuffled["accuracy"] - shuffled["chance"]) > shuffled["limit"] + _ROUNDING
    told = []
    if missed:
        kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in missed.items())
        warning = "a pass of G3 to G5 says little on this data" if blind else "some of such copies would be missed"
        told.append(f"Planted copies were found only in part ({kinds}): {warning}.")
    elif judged:
        told.append(f"At least {min(judged.values()):.0%} of each kind of planted copy was found.")
    else:
        told.append("No copy was planted.")
    if astray:
        told.append(f"Shuffled labels score {shuffled['accuracy']:.1%}, chance is {shuffled['chance']:.1%}: look why.")
    limit = f"; shuffled labels within {shuffled['limit']:.1%} of chance" if shuffling else ""
    return Verdict(
        guard="G11",
        name="planted copies, shuffled labels",
        status="fail" if blind or astray else "warn" if missed else "pass" if judged else "skipped",
        threshold=f"of each kind {_SHOULD_FIND:.0%} should and {_MUST_FIND:.0%} must be found (several changes at "
        f"once are not judged){limit}",
        message=" ".join(told),
        numbers={f"found_{kind}": share for kind, share in shares.items()}
        | ({f"shuffled_{name}": value for name, value in shuffled.items()} if shuffling else {}),
    )
