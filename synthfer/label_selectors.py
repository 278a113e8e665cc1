"""Label selectors as Ray reads them: which nodes, or which pools of nodes, are meant. Without Ray.

A selector is a mapping of labels to values; a value is `a`, `!a`, `in(a, b)` or `!in(a, b)`.
"""

import re
from collections.abc import Mapping

_VALUE = re.compile(r"(?P<no>!?)(?:in\((?P<several>.*)\)|(?P<one>.*))")


def values_of(wanted: str) -> tuple[bool, list[str]]:
    """A selector's value: whether these labels are wanted, and which."""
    found = _VALUE.fullmatch(wanted)
    assert found  # it matches all text
    values = [found["one"]] if found["several"] is None else found["several"].split(",")
    return not found["no"], [value.strip() for value in values]


def fits(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether something with these labels is meant by the selector."""
    return all(_fits(labels.get(key), wanted) for key, wanted in selector.items())


def _fits(label: str | None, wanted: str) -> bool:
    positive, values = values_of(wanted)
    return (label in values) is positive
