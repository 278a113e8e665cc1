"""Parquet files of strangers, read in batches whose memory follows neither the file nor what it says of itself.

A few KB of Parquet may stand for terabytes: one value of a dictionary for every row, a page of zeros, a list of 10^9
numbers. So the headers of all pages are read before a column chunk is: what a page unpacks to is bounded, and so many
rows are decoded at once as fit if every one of them were as large as the largest page. Footers are bounded in bytes,
rows and (by Arrow) nesting.

Footer and headers are `FileMetaData` and `PageHeader` of parquet.thrift in Thrift's compact protocol. They are parsed
here, since Arrow's own objects for row groups and columns end the process where a footer is damaged.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from synthfer.files import check_regular, open_regular

MAX_FOOTER_BYTES = 8 * 2**20
"""Seconds of parsing and, at worst, 400 MB; a million pictures in groups of 100 rows fit."""
MAX_ROWS = 20_000_000
"""Rows of one file; a file with pictures has no more rows than bytes, either."""
MAX_PAGE_BYTES = 512 * 2**20
"""What one page may unpack to. Writers fill pages with 1 MiB, or with 1,024 pictures."""
MAX_VALUES_PER_ROW = 64
"""Numbers in one row of a column of lists, as votes."""
MAX_LIST_BYTES = 64 * 2**20
"""Labels, splits and names of one batch, which become objects."""
LIST_ROWS = 8192
"""Rows of labels, splits and names that are read at once, if they are not large."""
_PICTURE_ROWS = 16
ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, TypeError)
"""What Arrow raises for a damaged file; ArrowException has not all of it."""
_BATCH_BYTES = 256 * 2**20
_HEADER_BYTES = (2**14, 2**24)
"""Of a page: usual, and with statistics that quote whole pictures."""
_BUFFER = 2**20
_MAX_DEPTH = 16
_I32, _I64, _TEXT, _LIST, _STRUCT = 5, 6, 8, 9, 12
"""Kinds of fields in Thrift's compact protocol."""
_Fields = dict[tuple[int, int], Any]


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A column of a row group: its path, how many values it has, and where its pages are."""

    path: str
    values: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class _Group:
    rows: int
    chunks: list[_Chunk]


class ParquetTable:
    """A Parquet file open for reading; `groups` are its row groups, `schema` its columns. Not safe for threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        footer, size = _footer(path)
        self.groups = _groups(footer, min(size, MAX_ROWS))
        self._file = pq.ParquetFile(
            path,
            buffer_size=_BUFFER,
            pre_buffer=False,
            thrift_string_size_limit=MAX_FOOTER_BYTES,
            thrift_container_size_limit=MAX_FOOTER_BYTES // 8,
        )
        self.schema: pa.Schema = self._file.schema_arrow

    def __enter__(self) -> "ParquetTable":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def batches(self, group: int, columns: list[str], most: int) -> Iterator[pa.RecordBatch]:
        """Batches of at most `most` rows of a row group; errors as of `open_parquet`.

        `columns` are names, or paths as "image.bytes".
        """
        wanted = tuple(f"{column}." for column in columns)
        rows, largest = self.groups[group].rows, 1
        with open_regular(self.path) as file:
            for chunk in self.groups[group].chunks:
                if f"{chunk.path}.".startswith(wanted):
                    if chunk.values > min(MAX_VALUES_PER_ROW * rows, MAX_ROWS):
                        raise ValueError(f"column {chunk.path} claims {chunk.values:,} values")
                    largest = max(largest, _largest_page(file, chunk))
        yield from self._file.iter_batches(max(1, min(most, _BATCH_BYTES // largest)), [group], columns)


def open_parquet(path: Path) -> ParquetTable:
    """The file, its footer read within bounds. One of `ERRORS` says what is wrong, mostly without the path."""
    return ParquetTable(path)


def read_schema(path: Path) -> pa.Schema:
    """The schema of a file; errors as of `open_parquet`."""
    with open_parquet(path) as parquet:
        return parquet.schema


def _footer(path: Path) -> tuple[bytes, int]:
    """The footer of a file, and the size of the file."""
    size = check_regular(path).st_size
    with open_regular(path) as file:
        file.seek(max(0, size - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != b"PAR1" or length > size - 8:
            raise ValueError("it is no Parquet file, or is cut off")
        if length > MAX_FOOTER_BYTES:
            raise ValueError(f"its footer has {length:,} bytes; no more than {MAX_FOOTER_BYTES:,} are read")
        file.seek(size - 8 - length)
        return file.read(length), size


def _groups(footer: bytes, most: int) -> list[_Group]:
    """The row groups as the footer lists them: Arrow ends the process where one of them is damaged."""
    fields, _ = _struct(footer, 0)
    claimed = fields.get((3, _I64))
    groups = [_group(group) for group in _list(fields.get((4, _LIST)))]
    if not isinstance(claimed, int) or sum(group.rows for group in groups) != claimed or claimed > most:
        shown = f"{claimed:,}" if isinstance(claimed, int) else "no"
        raise ValueError(f"its footer claims {shown} rows; at most {most:,} can be in it, all of them in groups")
    return groups


def _group(fields: Any) -> _Group:
    if not isinstance(fields, dict):
        raise ValueError("its footer is damaged")
    chunks = []
    for column in _list(fields.get((1, _LIST))):
        data = column.get((3, _STRUCT)) if isinstance(column, dict) else None
        if not isinstance(data, dict):
            raise ValueError("its footer is damaged: a column has no pages")
        names = [name for name in _list(data.get((3, _LIST))) if isinstance(name, bytes)]
        values, size, first = (_whole(data.get((number, _I64))) for number in (5, 7, 9))
        dictionary = data.get((11, _I64))
        start = dictionary if isinstance(dictionary, int) and 0 < dictionary < first else first
        chunks.append(_Chunk(b".".join(names).decode("utf-8", "replace"), values, start, size))
    return _Group(_whole(fields.get((3, _I64))), chunks)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("its footer is damaged")
    return value


class Column:
    """One column of pictures in one row group, a few rows of it in memory; rows are cheap in ascending order."""

    def __init__(self, table: ParquetTable, group: int, name: str) -> None:
        if group >= len(table.groups):
            raise ValueError(f"it has no row group {group}")
        self._start = lambda: table.batches(group, [name], _PICTURE_ROWS)
        self._rewind()

    def _rewind(self) -> None:
        self._batches, self._column, self._first = self._start(), pa.array([]), 0
        self._error: Exception | None = None

    def __getitem__(self, row: int) -> Any:
        """The value of a row; one of `ERRORS`, the same for every row that cannot be reached."""
        if row < self._first:
            self._rewind()
        while row >= self._first + len(self._column):
            if self._error is not None:
                raise self._error
            try:
                batch = next(self._batches, None)
                if batch is None:
                    raise ValueError(f"it has no row {row}")
            except ERRORS as error:
                self._error = error
                raise
            self._first, self._column = self._first + len(self._column), batch.column(0)
        return self._column[row - self._first].as_py()


def _largest_page(file: BinaryIO, chunk: _Chunk) -> int:
    """Bytes that the largest page of a column chunk unpacks to; `ValueError` for too many, or for other headers."""
    at, largest, values = chunk.start, 0, 0
    while values < chunk.values and at < chunk.start + chunk.size:
        header, length = _page_header(file, at)
        unpacked, packed = (_whole(header.get((field, _I32))) for field in (2, 3))
        if unpacked > MAX_PAGE_BYTES:
            raise ValueError(
                f"a page of column {chunk.path} unpacks to {unpacked:,} bytes, over "
                f"{MAX_PAGE_BYTES >> 20} MiB: write it with smaller row groups"
            )
        data = header.get((5, _STRUCT), header.get((8, _STRUCT)))
        values += _whole(data.get((1, _I32))) if isinstance(data, dict) else 0
        largest, at = max(largest, unpacked), at + length + packed
    if values != chunk.values:
        raise ValueError(f"column {chunk.path} claims {chunk.values:,} values, its pages {values:,}")
    return largest


def _page_header(file: BinaryIO, at: int) -> tuple[_Fields, int]:
    """The fields of the header at an offset of the file, and its length."""
    usual, most = _HEADER_BYTES
    file.seek(at)
    data = file.read(usual)
    try:
        return _struct(data, 0)
    except ValueError:
        if len(data) < usual:
            raise
    return _struct(data + file.read(most - usual), 0)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**62:
        raise ValueError("the header of a page or the footer is damaged")
    return value


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[_Fields, int]:
    """The fields of a Thrift struct by id and kind, and where it ends."""
    fields: _Fields = {}
    number = 0
    try:
        while head := data[at]:
            at += 1
            step, kind = head >> 4, head & 15
            if step:
                number += step
            else:
                number, at = _varint(data, at)
            if kind in (1, 2):
                fields[number, kind] = kind == 1
            else:
                fields[number, kind], at = _value(data, at, kind, depth)
    except IndexError:
        raise ValueError("the header of a page or the footer is damaged or cut off") from None
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (4, _I32, _I64):
        value, at = _varint(data, at)
        return value >> 1 ^ -(value & 1), at
    if kind == _TEXT:
        length, at = _varint(data, at)
        data[at + max(0, length - 1)]  # an IndexError if it is cut off
        return data[at : at + length], at + length
    if kind in (1, 2, 3):  # truths in lists, and bytes
        return data[at], at + 1
    if kind == 7:
        return None, at + 8
    if kind == _STRUCT and depth < _MAX_DEPTH:
        return _struct(data, at, depth + 1)
    if kind in (_LIST, 10) and depth < _MAX_DEPTH:
        count, inner, at = data[at] >> 4, data[at] & 15, at + 1
        if count == 15:
            count, at = _varint(data, at)
        values = []
        for _ in range(min(count, len(data) + 1)):  # each takes a byte: what claims more runs into the end
            value, at = _value(data, at, inner, depth + 1)
            values.append(value)
        return values, at
    raise ValueError("the header of a page or the footer is damaged")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("the header of a page or the footer is damaged")
