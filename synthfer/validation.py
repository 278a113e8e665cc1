"""Values checked against type hints, and type hints in words.

Ranges and choices are the metadata of a `config.option`: low, high, choices. With `exact` in it 16.0 is no integer.
"""

import math
import types
import typing
from collections.abc import Mapping, Sequence
from reprlib import Repr
from typing import Any, Literal, Union

_TYPES = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null", Any: "any"}
MAX_INTEGER = 2**63 - 1
"""What a column, a seed or a counter holds."""
_NULLS = ("null", "Null", "NULL", "~")


class MismatchError(ValueError):
    """A value does not fit its type."""


def describe(hint: Any, metadata: Mapping[str, Any]) -> str:
    """The values of a type in words: "integer >= 1 or null"."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(member, metadata) for member in inner)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (list, tuple, Sequence):
        return f"list of {describe(inner[0], metadata)}"
    if origin in (dict, Mapping):
        return f"map of {describe(inner[0], {})} to {describe(inner[1], metadata)}"
    if hint is str and metadata.get("choices"):
        return f"one of {', '.join(map(str, metadata['choices']))}"
    low, high = (metadata.get(bound) if hint in (int, float) else None for bound in ("low", "high"))
    if low is not None and high is not None:
        return f"{_TYPES[hint]} from {_bound(low)} to {_bound(high)}"
    bound = f" >= {_bound(low)}" if low is not None else f" <= {_bound(high)}" if high is not None else ""
    return _TYPES.get(hint, getattr(hint, "__name__", str(hint))) + bound


def _bound(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def show(value: Any) -> str:
    """A value as a person writes it in YAML, shortened."""
    short = Repr()
    short.maxstring = short.maxother = 80
    words = {None: "null", True: "true", False: "false", "": "''"}
    if isinstance(value, (bool, str, type(None))) and len(str(value)) < 80:
        return words.get(value) or str(value)
    return short.repr(value)


def convert(hint: Any, text: str | None, value: Any, metadata: Mapping[str, Any]) -> Any:
    """`value` converted to type `hint`; `text` is the word that it was read from, which a text keeps as it is."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(inner, text, value, metadata)
    if origin is Literal:
        return _checked(text if text in inner else value, text in inner or value in inner)
    if origin in (list, tuple, Sequence) and isinstance(value, list):
        return (list if origin is list else tuple)(convert(inner[0], None, item, metadata) for item in value)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {convert(inner[0], None, k, {}): convert(inner[1], None, v, metadata) for k, v in value.items()}
    if hint is str and text is not None and not isinstance(value, str) and "${" not in text:
        value = text
    exact = metadata.get("exact", False)
    if hint in (int, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        bounded = abs(value) <= MAX_INTEGER if hint is int or isinstance(value, int) else math.isfinite(value)
        whole = bounded and (hint is float or isinstance(value, int) or (value == int(value) and not exact))
        return hint(_checked(value, whole and _in_range(value, metadata)))
    choices = metadata.get("choices") if hint is str else None
    fits = hint is Any or (isinstance(hint, type) and type(value) is hint)
    return _checked(value, fits and (not choices or value in choices))


def _convert_union(members: Sequence[Any], text: str | None, value: Any, metadata: Mapping[str, Any]) -> Any:
    """The first member of a union that takes the value; null before text, numbers before text."""
    if value is None and type(None) in members and text in (None, *_NULLS):
        return None
    for member in sorted((m for m in members if m is not type(None)), key=lambda member: member is str):
        try:
            return convert(member, text, value, metadata)
        except MismatchError:
            continue
    raise MismatchError


def _in_range(value: float, metadata: Mapping[str, Any]) -> bool:
    low, high = metadata.get("low"), metadata.get("high")
    return (low is None or value >= low) and (high is None or value <= high)


def _checked(value: Any, fits: bool) -> Any:
    if not fits:
        raise MismatchError
    return value
