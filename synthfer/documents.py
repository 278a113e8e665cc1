"""JSON and YAML from outside, read as plain data: contracts, manifests, cards, indexes, results, pipelines' configs.

    contract = read_json(store.get("_dataset.json"), f"{store.uri}/_dataset.json", Contract)
    card = read_yaml(body, "runs/editor.card.yaml", Card)

Whoever wrote the file may be a stranger. So nothing in it is run, imported or looked up (no tags, no interpolation),
and size, depth, number of values and digits are bounded before anything is made of them. Keys that stand twice, NaN,
infinities and text that is no Unicode are refused. With a dataclass as `schema` (fields by `synthfer.schema.option`)
keys and types are checked too, and all that is wrong is reported at once.
"""

import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, BinaryIO, TextIO, TypeVar, overload

import yaml

from synthfer.schema import ConfigError, Reader, show_value
from synthfer.suggest import nearest
from synthfer.validation import MAX_INTEGER

T = TypeVar("T")

MAX_JSON_BYTES = 64 * 2**20
MAX_YAML_BYTES = 2**20
"""The parser of YAML needs seconds for a megabyte."""
MAX_ITEM = 2**20
"""Characters of one item of a map that is read item by item."""
MAX_YAML_STREAM_BYTES = 4 * 2**20
MAX_DEPTH = 40
MAX_VALUES = 2_000_000
MAX_VOCABULARY = 5_000_000
"""The largest published tokenizer has 2.3 million values."""
_MAX_LIBRARY_DIGITS = 40
MAX_YAML_VALUES = 50_000
"""Aliases count each time: a few lines of them stand for billions of values."""
_BLANK = re.compile(r"[ \t\r\n]*")
_MAX_DIGITS = len(str(MAX_INTEGER))


class DocumentError(ValueError):
    """A file from outside is not what it should be; the message names the file, where in it, and what is expected."""


@overload
def read_json(body: bytes | str, where: str, schema: type[T], *, max_bytes: int = ...) -> T: ...
@overload
def read_json(body: bytes | str, where: str, schema: None = None, *, max_bytes: int = ...) -> Any: ...
def read_json(body: bytes | str, where: str, schema: type | None = None, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value of a JSON text, or an instance of dataclass `schema`; `DocumentError` names the file at `where`."""
    value = _decoded(_text(body, where, max_bytes), where, _DECODER)
    return _checked(value, where, schema, MAX_VALUES)


def read_library_json(body: bytes, where: str, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value of a JSON text that a Python library wrote and will read again, for checks; errors as of `read_json`.

    Such files hold infinities, which are None here, and integers of thirty digits for "no limit", which are at most
    `MAX_INTEGER` here; vocabularies have up to `MAX_VOCABULARY` values.
    """

    def integer(digits: str) -> int:
        if len(digits) > _MAX_LIBRARY_DIGITS:
            raise ValueError(f"an integer has {len(digits):,} digits")
        return max(-MAX_INTEGER, min(int(digits), MAX_INTEGER))

    def constant(text: str) -> None:
        if text == "NaN":
            raise ValueError("NaN is not a number")

    decoder = json.JSONDecoder(object_pairs_hook=_map, parse_int=integer, parse_float=_number, parse_constant=constant)
    value = _decoded(_text(body, where, max_bytes), where, decoder)
    return _checked(value, where, None, MAX_VOCABULARY)


def json_items(file: BinaryIO, where: str) -> Iterator[tuple[str, Any]]:
    """Keys and values of a JSON map that is too large to be held at once, in their order.

    Syntax, digits and the size of an item are checked here; `check_plain` and `parse` are for who knows which parts of
    an item matter. `DocumentError` names the file and how many items were read.
    """
    text, count = _Window(io.TextIOWrapper(file, encoding="utf-8-sig")), 0
    try:
        text.expect("{")
        while not (count == 0 and text.has("}")):
            key = text.value()
            text.expect(":")
            if not isinstance(key, str):
                raise ValueError("a key is no text")
            yield key, text.value()
            count += 1
            if text.has("}"):
                break
            text.expect(",")
        text.expect("")
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{where} is not a JSON map as it should be, after {count:,} items: {error}") from error


class _Window:
    """A part of a long JSON text, at least an item of it, which moves forwards."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.at = file, "", 0

    def value(self) -> Any:
        """The next value."""
        self._skip()
        try:
            value, end = _DECODER.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            raise ValueError(f"{error.msg}, or an item is larger than {MAX_ITEM:,} characters") from None
        if end - self.at > MAX_ITEM:
            raise ValueError(f"an item is larger than {MAX_ITEM:,} characters")
        self.at = end
        return value

    def has(self, sign: str) -> bool:
        """Whether the next character is this one, which is passed over then; "" is the end."""
        self._skip()
        there = self.text[self.at : self.at + 1] == sign
        self.at += there and len(sign)
        return there

    def expect(self, sign: str) -> None:
        """Passes over a character that must be there."""
        if not self.has(sign):
            raise ValueError(f"expected {sign or 'the end'!r}")

    def _skip(self) -> None:
        """Moves to what is no blank, with a whole item after it in the window."""
        while True:
            match = _BLANK.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if len(self.text) - self.at > MAX_ITEM:
                return
            more = self.file.read(4 * MAX_ITEM)
            if not more:
                return
            self.text, self.at = self.text[self.at :] + more, 0


@overload
def read_yaml(body: bytes | str, where: str, schema: type[T], *, max_bytes: int = ...) -> T: ...
@overload
def read_yaml(body: bytes | str, where: str, schema: None = None, *, max_bytes: int = ...) -> Any: ...
def read_yaml(body: bytes | str, where: str, schema: type | None = None, *, max_bytes: int = MAX_YAML_BYTES) -> Any:
    """The value of a YAML text (one document), or an instance of dataclass `schema`; `DocumentError` as for JSON."""
    with _yaml_errors(where):
        value = yaml.load(_text(body, where, max_bytes), _PlainLoader)  # noqa: S506 - a SafeLoader
    return _checked(value, where, schema, MAX_YAML_VALUES)


def read_yaml_stream(body: bytes | str, where: str, *, max_bytes: int = MAX_YAML_STREAM_BYTES) -> list[Any]:
    """The values of all documents of a YAML text, as of Kubernetes; errors as of `read_yaml`."""
    with _yaml_errors(where):
        values = list(yaml.load_all(_text(body, where, max_bytes), _PlainLoader))
    check_plain(values, where, MAX_YAML_VALUES)
    return values


def parse(value: Any, where: str, schema: type[T]) -> T:
    """An instance of dataclass `schema` from a plain value that stands in the file at `where`."""
    if not isinstance(value, Mapping):
        known = ", ".join(field.name for field in fields(schema))  # type: ignore[arg-type]
        raise DocumentError(f"{where} must be a map with the keys {known}, not {_kind(value)}")
    problems: list[str] = []
    result: T = _DocumentReader({}, [], problems).section(schema, value, "")
    if problems:
        raise DocumentError(f"{where}: {ConfigError(*problems)}")
    return result


def check_plain(value: Any, where: str, max_values: int = MAX_VALUES) -> None:
    """`DocumentError` unless depth, number of values, integers, floats and texts of a plain value are bounded."""
    pending: list[tuple[Any, int]] = [(value, 0)]
    count = 0
    while pending:
        item, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH or count > max_values:
            limit = f"nested more than {MAX_DEPTH} deep" if depth > MAX_DEPTH else f"of more than {max_values:,} values"
            raise DocumentError(f"{where} is {limit}")
        if isinstance(item, Mapping):
            pending += ((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, list):
            pending += ((part, depth + 1) for part in item)
        elif problem := _problem(item):
            raise DocumentError(f"{where}: {problem}")


def _problem(item: Any) -> str | None:
    """What is wrong with a single value."""
    if isinstance(item, int) and abs(item) > MAX_INTEGER:
        return f"an integer lies beyond {MAX_INTEGER}"
    if isinstance(item, float) and not math.isfinite(item):
        return f"{item} is not a number"
    if isinstance(item, str) and not item.isascii():
        try:
            item.encode()
        except UnicodeEncodeError:
            return f"{item[:40]!r} is not Unicode text"
    return None


def _text(body: bytes | str, where: str, max_bytes: int) -> str:
    if len(body) > max_bytes:
        raise DocumentError(f"{where} has {len(body):,} bytes; no more than {max_bytes:,} are read")
    try:
        return body if isinstance(body, str) else body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{where} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _checked(value: Any, where: str, schema: type | None, max_values: int) -> Any:
    check_plain(value, where, max_values)
    return value if schema is None else parse(value, where, schema)


def _decoded(text: str, where: str, decoder: json.JSONDecoder) -> Any:
    try:
        return decoder.decode(text)
    except RecursionError:
        raise DocumentError(f"{where} is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        raise DocumentError(f"{where} is not JSON as it should be: {error}") from error


@contextmanager
def _yaml_errors(where: str) -> Iterator[None]:
    try:
        yield
    except DocumentError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DocumentError(f"{where} is not YAML as it should be: {' '.join(str(error).split())}") from error


def _map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        _refuse_repeated(name for name, _ in pairs)
    return result


def _refuse_repeated(names: Iterable[str]) -> None:
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(f"the key {name[:80]!r} stands {times} times in one map")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS + 1:
        raise ValueError(f"an integer has {len(digits):,} digits")
    return int(digits)


def _number(text: str) -> float:
    value = float(text) if len(text) < 400 else math.inf
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a number")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_map, parse_int=_integer, parse_float=_number, parse_constant=_number)


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a single value")


class _DocumentReader(Reader):
    """Problems in the words of a file: there is no command line to correct.

    16.0 is no integer: a canonical text, and so a hash, of 16.0 is not that of 16.
    """

    def value(self, hint: Any, value: Any, key: str, metadata: Mapping[str, Any]) -> Any:
        return super().value(hint, value, key, {**metadata, "exact": True})

    def shown(self, key: str, value: Any) -> str:
        shown = show_value(key, value)
        return f'"{value}"' if isinstance(value, str) and shown == value else shown

    def unknown(self, key: str, fields: Sequence[str]) -> str:
        hint = nearest(key.rpartition(".")[2], fields) or "."
        return f"unknown key {key[:80]}{hint} Known: {', '.join(fields)}"

    def needed(self, key: str, meaning: str) -> str:
        return f"{key} is missing" + (f": {meaning}" if meaning else "")


class _PlainLoader(yaml.SafeLoader):
    """Plain values alone: 1e-3 is a number, a date is text, a key stands once, and nesting has an end."""

    depth = count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        self.count += 1
        if self.count > MAX_YAML_VALUES:  # before the rest is parsed, which takes seconds for each 10,000
            raise ValueError(f"it has more than {MAX_YAML_VALUES:,} values")
        if self.depth > MAX_DEPTH + 1:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode) and node.value:
            _refuse_repeated(str(key.value) for key, _ in node.value)
        result: dict[Any, Any] = super().construct_mapping(node, deep)
        return result


def _yaml_integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > 2 * _MAX_DIGITS:
        raise ValueError(f"an integer has {len(node.value):,} digits")
    return loader.construct_yaml_int(node)


# YAML 1.1 reads dates, bases of 60 and merges of maps, which surprise; and 1e-3 as text.
_INTEGER, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_LEFT_OUT = {_INTEGER, _FLOAT, *(f"tag:yaml.org,2002:{name}" for name in ("timestamp", "merge", "value"))}
_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in _LEFT_OUT]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver(_INTEGER, re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"), [*"-+0123456789"])
_PlainLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    [*"-+.0123456789"],
)
_PlainLoader.add_constructor(_INTEGER, _yaml_integer)
