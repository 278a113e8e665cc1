"""Ray's label selectors, which choose nodes or groups of nodes, without Ray.

A selector is a mapping of labels to values; a value is `a`, `!a`, `in(a, b)` or `!in(a, b)`.
"""

import re
from collections.abc import Mapping

_VALUE = re.compile(r"(?P<no>!?)(?:in\((?P<several>.*)\)|(?P<one>.*))")


def parse_value(value: str) -> tuple[bool, list[str]]:
    """Whether a selector's value asks for its labels (True) or against them, and the labels."""
    match = _VALUE.fullmatch(value)
    assert match  # it matches any text
    labels = [match["one"]] if match["several"] is None else match["several"].split(",")
    return not match["no"], [label.strip() for label in labels]


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether something with these labels is chosen by the selector."""
    return all(_matches(labels.get(key), value) for key, value in selector.items())


def _matches(label: str | None, value: str) -> bool:
    positive, labels = parse_value(value)
    return (label in labels) is positive
