"""Footers and page headers of Parquet files, parsed before Arrow is given a file from outside.

Arrow's own objects for row groups and columns end the process where a footer is damaged: an exception of its C++
library has no handler there. Here it is a `ValueError`. What is read are `FileMetaData` and `PageHeader` of
parquet.thrift, the definition of the Parquet format, in the compact protocol of Thrift; other fields are passed over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ReadAt = Callable[[int, int], bytes]
"""Number of bytes and offset -> the bytes, fewer at the end of the file."""

BYTE_ARRAY = 6
"""The physical type of texts and files."""
DICTIONARY_PAGE = 2
_TAIL_BYTES = 8
_MAGIC = b"PAR1"
_PAGE_HEADER_BYTES = (2**14, 2**24)
"""Usual, and with statistics that quote whole pictures."""
_DAMAGED = "the header of a page or the footer is damaged"
_MOST = 2**62
_Fields = Mapping[int, Any]
"""The ids of the fields that are wanted; those of a structure, or of a list of structures, have a mapping of their own,
all others None."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column of a row group; sizes are in bytes, `dictionary_at` is 0 where the footer names no dictionary."""

    names: tuple[str, ...]
    type: int
    encodings: tuple[int, ...]
    values: int
    unpacked: int
    stored: int
    data_at: int
    dictionary_at: int

    @property
    def path(self) -> str:
        """The names of the column and what it is nested in, with dots, as far as an error shows them."""
        return ".".join(self.names)[:200]

    @property
    def start(self) -> int:
        """Where its first page is."""
        return min(self.data_at, self.dictionary_at) if self.dictionary_at else self.data_at


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that are stored together, column by column."""

    rows: int
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The header of a page; sizes are in bytes, `values` is 0 for a dictionary, `length` is the header's own."""

    kind: int
    unpacked: int
    stored: int
    values: int
    encoding: int
    length: int


def read_footer(read_at: ReadAt, size: int, max_bytes: int) -> tuple[RowGroup, ...]:
    """The row groups of a file of `size` bytes, whose rows are all that it states; `ValueError` says what is wrong."""
    tail = read_at(min(size, _TAIL_BYTES), max(0, size - _TAIL_BYTES))
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length > size - _TAIL_BYTES:
        raise ValueError("it is not a complete Parquet file: it was truncated or overwritten")
    if length > max_bytes:
        raise ValueError(f"its footer has {length:,} bytes; no more than {max_bytes:,} are read")
    footer = _CompactReader(read_at(length, size - _TAIL_BYTES - length)).struct(_FOOTER)
    groups = tuple(map(_row_group, _list(footer.get(4), dict)))
    stated, rows = _whole(footer.get(3)), sum(group.rows for group in groups)
    if rows != stated:
        raise ValueError(f"its footer states {stated:,} rows, and its row groups {rows:,}")
    return groups


def read_page(read_at: ReadAt, at: int) -> Page:
    """The header of the page at an offset; `ValueError` where there is none."""
    usual, most = _PAGE_HEADER_BYTES
    body = read_at(usual, at)
    try:
        return _page(body)
    except ValueError:
        if len(body) < usual:
            raise
    return _page(read_at(most, at))


def _page(body: bytes) -> Page:
    reader = _CompactReader(body)
    header = reader.struct(_PAGE)
    data = _struct(header.get(5, header.get(8, {1: 0, 2: 0, 4: 0})))
    return Page(
        kind=_whole(header.get(1)),
        unpacked=_whole(header.get(2)),
        stored=_whole(header.get(3)),
        values=_whole(data.get(1)),
        encoding=_whole(data.get(2 if 5 in header else 4)),
        length=reader.at,
    )


def _row_group(group: dict[int, Any]) -> RowGroup:
    return RowGroup(_whole(group.get(3)), tuple(_chunk(_struct(column.get(3))) for column in _list(group.get(1), dict)))


def _chunk(facts: dict[int, Any]) -> Chunk:
    values, unpacked, stored, data_at = (_whole(facts.get(number)) for number in (5, 6, 7, 9))
    names = tuple(name.decode("utf-8", "replace") for name in _list(facts.get(3), bytes))
    encodings = tuple(map(_whole, _list(facts.get(2), int)))
    dictionary_at = _whole(facts.get(11, 0))
    return Chunk(names, _whole(facts.get(1)), encodings, values, unpacked, stored, data_at, dictionary_at)


def _list(value: Any, of: type) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(item, of) for item in value):
        raise ValueError(f"{_DAMAGED}: a list is missing")
    return value


def _struct(value: Any) -> dict[int, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{_DAMAGED}: a structure is missing")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < _MOST:
        raise ValueError(f"{_DAMAGED}: a number is missing or out of range")
    return value


# Wanted fields. Chunk: type, encodings, path, values, unpacked, stored, offsets of data and dictionary.
_FOOTER: _Fields = {3: None, 4: {3: None, 1: {3: dict.fromkeys((1, 2, 3, 5, 6, 7, 9, 11))}}}
# Type, unpacked, stored; and of data pages of both versions the number of values and the encoding.
_PAGE: _Fields = {1: None, 2: None, 3: None, 5: {1: None, 2: None}, 8: {1: None, 4: None}}

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)
_MAX_DEPTH = 16
_MAX_VARINT = 10


class _CompactReader:
    """Reads structures from a buffer. `ValueError` where it is none or ends too early."""

    def __init__(self, body: bytes, at: int = 0) -> None:
        self._body, self.at = body, at

    def struct(self, wanted: _Fields, depth: int = 0) -> dict[int, Any]:
        """The wanted fields of a structure that are there, by id; texts as bytes."""
        self._check_depth(depth)
        values: dict[int, Any] = {}
        last = 0
        while header := self._byte():
            kind, step = header & 15, header >> 4
            last = last + step if step else self._integer()
            if last in wanted:
                values[last] = self._value(kind, wanted[last] or {}, depth + 1)
            else:
                self._skip(kind, depth + 1)
        return values

    def _value(self, kind: int, wanted: _Fields, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            length = self._varint()
            self._move(length)
            return self._body[self.at - length : self.at]
        if kind == _LIST:
            count, kind = self._list_header(depth)
            return [self._value(kind, wanted, depth + 1) for _ in range(count)]
        if kind == _STRUCT:
            return self.struct(wanted, depth)
        raise ValueError(f"{_DAMAGED}: a value is of kind {kind}")

    def _skip(self, kind: int, depth: int) -> None:
        if kind in _INTEGERS:
            self._varint()
        elif kind in (_BYTE, _DOUBLE):
            self._move(1 if kind == _BYTE else 8)
        elif kind == _BINARY:
            self._move(self._varint())
        elif kind in (_LIST, _SET):
            count, kind = self._list_header(depth)
            for _ in range(count):
                self._skip(_BYTE if kind in (_TRUE, _FALSE) else kind, depth + 1)
        elif kind == _STRUCT:
            self.struct({}, depth)
        elif kind not in (_TRUE, _FALSE):
            raise ValueError(f"{_DAMAGED}: a value is of kind {kind}")

    def _check_depth(self, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise ValueError(f"{_DAMAGED}: it is nested more than {_MAX_DEPTH} deep")

    def _list_header(self, depth: int) -> tuple[int, int]:
        self._check_depth(depth)
        header = self._byte()
        count = header >> 4 if header >> 4 < 15 else self._varint()
        if count > len(self._body) - self.at:  # every item has a byte at least
            raise ValueError(f"{_DAMAGED}: a list is longer than all of it")
        return count, header & 15

    def _byte(self) -> int:
        if self.at >= len(self._body):
            raise ValueError(f"{_DAMAGED}: it ends too early")
        self.at += 1
        return self._body[self.at - 1]

    def _move(self, length: int) -> None:
        if length > len(self._body) - self.at:
            raise ValueError(f"{_DAMAGED}: it ends too early")
        self.at += length

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 7 * _MAX_VARINT, 7):
            part = self._byte()
            value |= (part & 127) << shift
            if part < 128:
                return value
        raise ValueError(f"{_DAMAGED}: a number has more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
