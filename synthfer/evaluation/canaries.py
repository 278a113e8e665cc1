"""Guard G11: the audit's self-test. Copies of training pictures are planted among test data and must be found.

An audit that finds nothing says something only if it would have found what there is to find, in these very pictures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from synthfer.evaluation.copies import KINDS, CopyScan, plant
from synthfer.evaluation.embedders import Embedder
from synthfer.evaluation.features import Features, of_pictures
from synthfer.evaluation.near import Levels, compare
from synthfer.evaluation.verdict import Verdict
from synthfer.sample import seed_of

_MUST_FIND, _SHOULD_FIND = 0.75, 0.9
# Several changes at once are often missed; what share is found is told, not judged.
_NOT_JUDGED = "all"
Tally = dict[str, tuple[int, int]]
"""kind of copy -> planted, found"""


def hunt(
    pictures: Sequence[np.ndarray],
    rows: Sequence[int],
    block: Features,
    embedder: Embedder,
    levels: Levels,
    scan: CopyScan,
    seed: int,
) -> Tally:
    """Plants one copy of each kind of each picture and looks for it in the block; picture i is its row `rows[i]`."""
    tally: Tally = {}
    for kind in KINDS:
        planted = [
            plant(pixels, kind, np.random.default_rng(seed_of(seed, "canary", kind, int(row))))
            for pixels, row in zip(pictures, rows, strict=True)
        ]
        found = compare([block], [0], of_pictures(planted, embedder), levels, scan)
        near = [
            found.hashes[found.hashes.view == 1],
            found.vectors,
            found.copies,
        ]
        caught = {(int(left), int(right)) for part in near for left, right in zip(part.left, part.right, strict=True)}
        hits = sum((int(row), place) in caught for place, row in enumerate(rows))
        tally[kind] = (len(rows), hits)
    return tally


def add(tallies: Sequence[Tally]) -> Tally:
    """The sum of some tallies."""
    planted, found = Counter[str](), Counter[str]()
    for tally in tallies:
        planted.update({kind: counts[0] for kind, counts in tally.items()})
        found.update({kind: counts[1] for kind, counts in tally.items()})
    return {kind: (planted[kind], found[kind]) for kind in planted}


def verdict(tally: Tally, shuffled: Mapping[str, float]) -> Verdict:
    """Whether enough of every kind was found, and shuffled labels gave chance."""
    shares = {kind: found / planted for kind, (planted, found) in tally.items() if planted}
    missed = {kind: share for kind, share in shares.items() if share < _SHOULD_FIND and kind != _NOT_JUDGED}
    blind = any(share < _MUST_FIND for share in missed.values())
    astray = abs(shuffled["accuracy"] - shuffled["chance"]) > shuffled["limit"]
    facts = {
        "guard": "G11",
        "name": "planted copies, shuffled labels",
        "threshold": f"of each kind {_SHOULD_FIND:.0%} should and {_MUST_FIND:.0%} must be found (several changes at "
        f"once are not judged); shuffled labels within {shuffled['limit']:.1%} of chance",
        "numbers": {f"found_{kind}": share for kind, share in shares.items()}
        | {f"shuffled_{name}": value for name, value in shuffled.items() if value == value},
    }
    if not shares:
        return Verdict(status="skipped", message="No copy was planted.", **facts)  # type: ignore[arg-type]
    if missed:
        told = ", ".join(f"{kind} {share:.0%}" for kind, share in missed.items())
        message = f"The audit misses planted copies here ({told}): a pass of G3 to G5 says little on this data."
    elif astray:
        message = f"Shuffled labels score {shuffled['accuracy']:.1%}, chance is {shuffled['chance']:.1%}: look why."
    else:
        least = min(share for kind, share in shares.items() if kind != _NOT_JUDGED)
        message = f"At least {least:.0%} of each kind of planted copy was found."
    status = "fail" if blind or astray else "warn" if missed else "pass"
    return Verdict(status=status, message=message, **facts)  # type: ignore[arg-type]
