"""Parquet files of strangers, read in batches whose memory follows neither the file nor what it says of itself.

A few KB of Parquet may stand for terabytes: one value of a dictionary for every row, a page of zeros, a list of 10^9
numbers. So the headers of all pages are read before a column chunk is: what a page unpacks to is bounded, and so many
rows are decoded at once as fit if every one of them were as large as the largest page. Footers are bounded in bytes,
rows and (by Arrow) nesting.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from synthfer.files import check_regular, open_regular
from synthfer.parquet_headers import Chunk, ReadAt, read_footer, read_page

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
_BUFFER = 2**20


class ParquetTable:
    """A Parquet file open for reading; `groups` are its row groups, `schema` its columns. Not safe for threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        size = check_regular(path).st_size
        with open_regular(path) as file:
            self.groups = read_footer(_read_at(file), size, MAX_FOOTER_BYTES)
        if sum(group.rows for group in self.groups) > min(size, MAX_ROWS):
            raise ValueError(f"its footer states more rows than can be in it: at most {min(size, MAX_ROWS):,}")
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
                    largest = max(largest, _largest_page(_read_at(file), chunk))
        yield from self._file.iter_batches(max(1, min(most, _BATCH_BYTES // largest)), [group], columns)


def open_parquet(path: Path) -> ParquetTable:
    """The file, its footer read within bounds. One of `ERRORS` says what is wrong, mostly without the path."""
    return ParquetTable(path)


def read_schema(path: Path) -> pa.Schema:
    """The schema of a file; errors as of `open_parquet`."""
    with open_parquet(path) as parquet:
        return parquet.schema


class Column:
    """One column of pictures in one row group, a few rows of it in memory; rows are cheap in ascending order."""

    def __init__(self, table: ParquetTable, group: int, name: str) -> None:
        if group >= len(table.groups):
            raise ValueError(f"it has no row group {group}")
        self._name, self._start = name, lambda: table.batches(group, [name], _PICTURE_ROWS)
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
            self._first, self._column = self._first + len(self._column), batch.column(self._name)
        return self._column[row - self._first].as_py()


def _largest_page(read_at: ReadAt, chunk: Chunk) -> int:
    """Bytes that the largest page of a column chunk unpacks to; `ValueError` for too many, or for other headers."""
    at, largest, values = chunk.start, 0, 0
    while values < chunk.values and at < chunk.start + chunk.stored:
        page = read_page(read_at, at)
        if page.unpacked > MAX_PAGE_BYTES:
            raise ValueError(
                f"a page of column {chunk.path} unpacks to {page.unpacked:,} bytes, over "
                f"{MAX_PAGE_BYTES >> 20} MiB: write it with smaller row groups"
            )
        largest, values, at = max(largest, page.unpacked), values + page.values, at + page.length + page.stored
    if values != chunk.values:
        raise ValueError(f"column {chunk.path} claims {chunk.values:,} values, its pages {values:,}")
    return largest


def _read_at(file: BinaryIO) -> ReadAt:
    def read(length: int, at: int) -> bytes:
        file.seek(at)
        return file.read(length)

    return read
