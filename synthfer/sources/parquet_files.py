"""Parquet files of strangers, read in batches whose memory follows neither the file nor what it says of itself.

A few KB of Parquet may stand for terabytes: one value of a dictionary for every row, a page of zeros, a list of 10^9
numbers. So the headers of all pages are read before a column chunk is: what a page unpacks to is bounded, and so many
rows are decoded at once as fit if every one of them were as large as the largest page. Footers are bounded in bytes,
rows and (by Arrow) nesting.

The format of a page's header is `PageHeader` of parquet.thrift in Thrift's compact protocol.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from synthfer.files import check_regular, open_regular

MAX_FOOTER_BYTES = 32 * 2**20
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
_MAX_DEPTH = 8


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, its footer read within bounds. One of `ERRORS` says what is wrong, without the path."""
    size = check_regular(path).st_size
    with open_regular(path) as file:
        file.seek(max(0, size - 8))
        tail = file.read(8)
    footer = int.from_bytes(tail[:4], "little")
    if tail[4:] not in (b"PAR1", b"PARE") or footer > size - 8:
        raise ValueError("it is no Parquet file, or is cut off")
    if footer > MAX_FOOTER_BYTES:
        raise ValueError(f"its footer has {footer:,} bytes; no more than {MAX_FOOTER_BYTES:,} are read")
    parquet = pq.ParquetFile(
        path,
        buffer_size=_BUFFER,
        pre_buffer=False,
        thrift_string_size_limit=MAX_FOOTER_BYTES,
        thrift_container_size_limit=MAX_FOOTER_BYTES // 8,
    )
    try:
        _check_rows(parquet.metadata, min(size, MAX_ROWS))
    except ValueError:
        parquet.close()
        raise
    return parquet


def read_schema(path: Path) -> pa.Schema:
    """The schema of a file; errors as of `open_parquet`."""
    with open_parquet(path) as parquet:
        return parquet.schema_arrow


def _check_rows(metadata: pq.FileMetaData, most: int) -> None:
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows or metadata.num_rows > most:
        raise ValueError(f"its footer claims {metadata.num_rows:,} rows; at most {most:,} can be in it")


def batches(parquet: pq.ParquetFile, path: Path, group: int, columns: list[str], most: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most `most` rows of a row group; errors as of `open_parquet`.

    `columns` are names, or paths as "image.bytes".
    """
    largest = 1
    with open_regular(path) as file:
        for chunk in _chunks(parquet, group, columns):
            largest = max(largest, _largest_page(file, chunk))
    rows = max(1, min(most, _BATCH_BYTES // largest))
    yield from parquet.iter_batches(rows, row_groups=[group], columns=columns)


class Column:
    """One column of pictures in one row group, a few rows of it in memory; rows are cheap in ascending order."""

    def __init__(self, parquet: pq.ParquetFile, path: Path, group: int, name: str) -> None:
        self._start = lambda: batches(parquet, path, group, [name], _PICTURE_ROWS)
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


def _chunks(parquet: pq.ParquetFile, group: int, columns: list[str]) -> Iterator[pq.ColumnChunkMetaData]:
    metadata = parquet.metadata.row_group(group)
    wanted = tuple(f"{column}." for column in columns)
    chunks = [metadata.column(number) for number in range(metadata.num_columns)]
    for chunk in chunks:
        if f"{chunk.path_in_schema}.".startswith(wanted):
            if not 0 <= chunk.num_values <= min(MAX_VALUES_PER_ROW * metadata.num_rows, MAX_ROWS):
                raise ValueError(f"column {chunk.path_in_schema} claims {chunk.num_values:,} values")
            yield chunk


def _largest_page(file: BinaryIO, chunk: pq.ColumnChunkMetaData) -> int:
    """Bytes that the largest page of a column chunk unpacks to; `ValueError` for too many, or for other headers."""
    first, dictionary = chunk.data_page_offset, chunk.dictionary_page_offset
    at = start = first if dictionary is None or not 0 < dictionary < first else dictionary
    largest = values = 0
    while values < chunk.num_values and 0 <= at < start + chunk.total_compressed_size:
        header, length = _page_header(file, at)
        unpacked, packed = (_whole(header.get(field)) for field in (2, 3))
        if unpacked > MAX_PAGE_BYTES:
            raise ValueError(
                f"a page of column {chunk.path_in_schema} unpacks to {unpacked:,} bytes, over "
                f"{MAX_PAGE_BYTES >> 20} MiB: write it with smaller row groups"
            )
        data = header.get(5, header.get(8))
        values += _whole(data.get(1)) if isinstance(data, dict) else 0
        largest, at = max(largest, unpacked), at + length + packed
    if values != chunk.num_values:
        raise ValueError(f"column {chunk.path_in_schema} claims {chunk.num_values:,} values, its pages {values:,}")
    return largest


def _page_header(file: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
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
    if not isinstance(value, int) or value < 0:
        raise ValueError("the header of a page is damaged")
    return value


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The fields of a Thrift struct by id, and where it ends; texts are passed over."""
    fields: dict[int, Any] = {}
    number = 0
    try:
        while kind := data[at]:
            at += 1
            step, kind = kind >> 4, kind & 15
            if step:
                number += step
            else:
                number, at = _varint(data, at)
            if kind in (1, 2):
                fields[number] = kind == 1
            elif kind in (4, 5, 6):
                value, at = _varint(data, at)
                fields[number] = value >> 1 ^ -(value & 1)
            elif kind == 8:
                length, at = _varint(data, at)
                at += length
            elif kind == 12 and depth < _MAX_DEPTH:
                fields[number], at = _struct(data, at, depth + 1)
            else:
                raise ValueError("the header of a page is damaged")
    except IndexError:
        raise ValueError("the header of a page is damaged or cut off") from None
    return fields, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("the header of a page is damaged")
