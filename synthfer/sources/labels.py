"""Labels, counts and splits as collections publish them: words, codes in a published order, a Usage column, shares."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from synthfer.expressions import EXPRESSIONS, index_of, other
from synthfer.sample import seed_of
from synthfer.schema import option

USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
"""The column Usage of FER2013, FERPlus and the CK+ CSV, as splits."""
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Folder and file names of splits -> split."""
_SHOWN = 200
"""Characters of a label that is none; those of published labels are a few."""
_CODE = re.compile(r"[0-9]{1,9}")


def by_word(word: str) -> dict[str, Any]:
    """The fields of an entry that is labelled by a word: label, or the word as attribute and a reason."""
    word = word[:_SHOWN]
    label = _label_of(word)
    if label is None:
        return {"attributes": {"emotion": word}, "reason": without_expression(word)}
    return {"label": label}


@lru_cache(256)
def _label_of(word: str) -> int | None:
    """Cached: `index_of` searches the nearest word for its error, which takes minutes for a million faces."""
    try:
        return index_of(word)
    except ValueError:
        return None


def without_expression(word: str) -> str:
    """The reason of a row whose published label is none of the seven expressions."""
    return f"labelled {other(word) or word!r}, which is none of the seven expressions"


def by_code(order: Sequence[str], code: str, first: int = 0) -> dict[str, Any]:
    """The fields of an entry that is labelled by its position in a published class order, counted from `first`."""
    code = code.strip()[:_SHOWN]
    if _CODE.fullmatch(code) and 0 <= int(code) - first < len(order):
        return by_word(order[int(code) - first])
    last = first + len(order) - 1
    return {
        "attributes": {"emotion": code},
        "reason": f"label {code!r} is none of the published codes {first} to {last}",
    }


def by_usage(usage: str) -> dict[str, Any]:
    """The split of a Usage word, or a reason."""
    if usage in USAGES:
        return {"split": USAGES[usage]}
    return {"reason": f"Usage {usage!r} is none of {', '.join(USAGES)}"}


def counted(words: Sequence[str], *counts: int) -> dict[str, int]:
    """Published counts by expression, given in the order of `words`."""
    return {EXPRESSIONS[index_of(word)]: n for word, n in zip(words, counts, strict=True)}


@dataclass(frozen=True, kw_only=True)
class SplitShares:
    """How a collection without official splits is divided: all images of a group (a person, a photo) share a split."""

    val: float = option(0.1, "share of the groups for validation", low=0, high=1)
    test: float = option(0.2, "share of the groups for testing", low=0, high=1)
    seed: int = option(0, "other splits for another seed", low=0)

    def __post_init__(self) -> None:
        if self.val + self.test > 1:
            raise ValueError(f"val {self.val} and test {self.test} are more than 1 together: lower one of them")

    def split(self, group: str) -> str:
        """The split of a group, a function of its name and the seed alone."""
        position = seed_of(self.seed, "split", group) / 2**63
        return "test" if position < self.test else "val" if position < self.test + self.val else "train"
