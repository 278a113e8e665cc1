"""Guard G11, the audit's self-test: copies of training pictures are planted among test data, and it must find them.

That an audit finds nothing means something only if it would find copies where there are some, in these very pictures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan

import numpy as np

from synthfer.audit.copies import KINDS, plant
from synthfer.audit.features import Features, of_pictures
from synthfer.audit.near_duplicates import NearMatches
from synthfer.embedders import Embedder
from synthfer.guards.verdict import Guard, Verdict
from synthfer.sample import seed_of

_MUST_FIND, _SHOULD_FIND = 0.75, 0.9
# Several changes at once are often missed: their share is reported and decides nothing.
_REPORTED_ONLY = "all"
_ROUNDING = 1e-9
Counts = dict[str, tuple[int, int]]
"""kind of copy -> planted, detected"""


def copies_of(pictures: Sequence[np.ndarray], rows: Sequence[int], embedder: Embedder, seed: int) -> Features:
    """The features of one copy of each kind of each picture, kind by kind; picture i is training row `rows[i]`."""
    planted = (
        plant(pixels, kind, np.random.default_rng(seed_of(seed, "canary", kind, int(row))))
        for kind in KINDS
        for pixels, row in zip(pictures, rows, strict=True)
    )
    return of_pictures(planted, embedder)


def count(matches: NearMatches, rows: Sequence[int]) -> Counts:
    """How many planted copies of each kind were detected; `matches.right` numbers them in the order of `copies_of`."""
    caught = np.zeros(len(KINDS) * len(rows), bool)
    for part in (matches.hashes[matches.hashes.view == 1], matches.vectors, matches.copies):
        caught[part.right[part.left == np.asarray(rows)[part.right % len(rows)]]] = True
    hits = caught.reshape(len(KINDS), len(rows)).sum(1)
    return {kind: (len(rows), int(n)) for kind, n in zip(KINDS, hits, strict=True)}


def add(parts: Sequence[Counts]) -> Counts:
    """The sum of some counts."""
    planted, detected = Counter[str](), Counter[str]()
    for counts in parts:
        planted.update({kind: n for kind, (n, _) in counts.items()})
        detected.update({kind: n for kind, (_, n) in counts.items()})
    return {kind: (planted[kind], detected[kind]) for kind in planted}


def planted_copies(counts: Counts, shuffled: Mapping[str, float]) -> Verdict:
    """Whether enough copies of every kind were found, and shuffled labels score as chance.

    `shuffled`: `predictions.shuffled_accuracy`; a NaN accuracy counts for nothing.
    """
    shares = {kind: detected / planted for kind, (planted, detected) in counts.items() if planted}
    required = {kind: share for kind, share in shares.items() if kind != _REPORTED_ONLY}
    missed = {kind: share for kind, share in required.items() if share < _SHOULD_FIND}
    blind = any(share < _MUST_FIND for share in missed.values())
    has_shuffled = not isnan(shuffled["accuracy"])
    off_chance = has_shuffled and abs(shuffled["accuracy"] - shuffled["chance"]) > shuffled["limit"] + _ROUNDING
    messages = []
    if missed:
        kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in missed.items())
        warning = (
            "that G3 to G5 (duplicates and copies) pass says little on this data"
            if blind
            else "some of such copies would be missed"
        )
        messages.append(f"Planted copies were found only in part ({kinds}): {warning}.")
    elif required:
        messages.append(f"At least {min(required.values()):.0%} of each kind of planted copy was found.")
    else:
        messages.append("No copy was planted.")
    if off_chance:
        messages.append(
            f"Shuffled labels score {shuffled['accuracy']:.1%}, chance is {shuffled['chance']:.1%}: find out why."
        )
    limit = f"; shuffled labels within {shuffled['limit']:.1%} of chance" if has_shuffled else ""
    return Verdict(
        guard=Guard.PLANTED_COPIES,
        status="fail" if blind or off_chance else "warn" if missed else "pass" if required else "skipped",
        threshold=f"of each kind {_SHOULD_FIND:.0%} should and {_MUST_FIND:.0%} must be found (several changes at "
        f"once do not count){limit}",
        message=" ".join(messages),
        numbers={f"found_{kind}": share for kind, share in shares.items()}
        | ({f"shuffled_{name}": value for name, value in shuffled.items()} if has_shuffled else {}),
    )
