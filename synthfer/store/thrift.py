"""The compact protocol of Thrift, as far as footers and page headers of Parquet need it.

pyarrow's own view of a footer ends the process where a column's statistics do not fit its type (the exception of the
C++ library has no handler there), so that a footer from outside is read here before pyarrow looks at it.
"""

from collections.abc import Mapping
from typing import Any

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
_MAX_DEPTH = 16
_MAX_VARINT = 10

Fields = Mapping[int, Any]
"""The ids of the fields that are wanted; those of a structure, or of a list of structures, have a mapping of their own,
all others None."""


class CompactReader:
    """Reads structures from a buffer. `ValueError` where it is none or ends too early."""

    def __init__(self, body: bytes, at: int = 0) -> None:
        self._body, self.at = body, at

    def struct(self, wanted: Fields, depth: int = 0) -> dict[int, Any]:
        """The wanted fields of a structure that are there, by id; texts as bytes."""
        if depth > _MAX_DEPTH:
            raise ValueError(f"its footer is nested more than {_MAX_DEPTH} deep")
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

    def _value(self, kind: int, wanted: Fields, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            length = self._varint()
            self._move(length)
            return self._body[self.at - length : self.at]
        if kind == _LIST:
            count, kind = self._list_header()
            return [self._value(kind, wanted, depth) for _ in range(count)]
        if kind == _STRUCT:
            return self.struct(wanted, depth)
        raise ValueError(f"its footer has a value of kind {kind}")

    def _skip(self, kind: int, depth: int) -> None:
        if kind in _INTEGERS:
            self._varint()
        elif kind in (_BYTE, _DOUBLE):
            self._move(1 if kind == _BYTE else 8)
        elif kind == _BINARY:
            self._move(self._varint())
        elif kind in (_LIST, _SET):
            count, kind = self._list_header()
            for _ in range(count):
                self._skip(_BYTE if kind in (_TRUE, _FALSE) else kind, depth + 1)
        elif kind == _STRUCT:
            self.struct({}, depth)
        elif kind not in (_TRUE, _FALSE):
            raise ValueError(f"its footer has a value of kind {kind}")

    def _list_header(self) -> tuple[int, int]:
        header = self._byte()
        count = header >> 4 if header >> 4 < 15 else self._varint()
        if count > len(self._body) - self.at:  # every item has a byte at least
            raise ValueError("its footer has a list that is longer than the footer")
        return count, header & 15

    def _byte(self) -> int:
        if self.at >= len(self._body):
            raise ValueError("its footer ends too early")
        self.at += 1
        return self._body[self.at - 1]

    def _move(self, length: int) -> None:
        if length > len(self._body) - self.at:
            raise ValueError("its footer ends too early")
        self.at += length

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 7 * _MAX_VARINT, 7):
            part = self._byte()
            value |= (part & 127) << shift
            if part < 128:
                return value
        raise ValueError("its footer has a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
