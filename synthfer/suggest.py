"""The end of an error message about an unknown word: the known word that may have been meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str:
    """The question whether the nearest known word was meant; empty if none is near."""
    near = get_close_matches(word[:80], list(known), n=1)  # its time grows with the square of the length
    return f"; did you mean {near[0]!r}?" if near else ""
