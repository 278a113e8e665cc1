"""The rows of published lists: lines of CSV files, of space-separated lists, and rows of Parquet files.

A row is one line: no published list has line breaks inside a cell, so that a stray quote spoils only its own line.
A wrong line does not stop the import; it becomes a failed row that names file and line.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import IO, Any, AnyStr, NamedTuple, TypeVar

from synthfer.files import open_regular
from synthfer.sources.entry import Entry, SourceError
from synthfer.sources.layouts import abbreviated
from synthfer.sources.parquet_files import ERRORS, LIST_ROWS, MAX_LIST_BYTES, open_parquet, read_schema

MAX_LINE = 2**20
"""Characters of one line. A picture of 48 x 48 pixels in words has 10,000, the landmarks of AffectNet 2,000."""
MAX_LINES = 20_000_000
_SHOWN = 300
"""Characters of what is wrong with a line: it may quote the line."""
_PIXEL_COLUMNS = ("emotion", "pixels", "Usage")
_CELL = re.compile(rb'[ \t]*"([^"]*)"[ \t]*(?=,|$)|([^",]*)(?=,|$)')
_WHOLE = re.compile(r"[+-]?[0-9]{1,15}")
T = TypeVar("T")
Lines = Iterator[tuple[int, T | ValueError]]
"""Line number (from 1) and content, or the error of a line that cannot be read."""


class PixelRow(NamedTuple):
    """A line of a CSV with images: its label and Usage, and the byte range of its pixels cell in the file."""

    emotion: str
    usage: str
    start: int
    length: int


class ParquetRow(NamedTuple):
    """A row of a Parquet file: its row group, its row in it, and its values by column."""

    group: int
    row: int
    values: dict[str, Any]


def split_lines(path: Path, separator: str | None = None) -> Lines[list[str]]:
    """Number (from 1) and words (between spaces, or `separator`) of every line of a list; blank lines are no rows."""
    with _open_text(path) as file:
        for number, line in _lines(file, path):
            if isinstance(line, ValueError):
                yield number, line
            elif line.strip():
                yield number, line.rstrip("\n").split(separator)


def csv_lines(path: Path) -> Lines[list[str]]:
    """Number (from 1) and cells of every line of a CSV file, or what is wrong with it; blank lines are no rows."""
    with _open_text(path, newline="") as file:
        for number, line in _lines(file, path):
            if isinstance(line, ValueError):
                yield number, line
            elif line.strip():
                try:
                    yield number, next(csv.reader([line], strict=True))
                except csv.Error as error:
                    yield number, ValueError(f"is no CSV: {error}")


def _open_text(path: Path, newline: str | None = None) -> io.TextIOWrapper:
    return io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", errors="replace", newline=newline)


def _lines(file: IO[AnyStr], path: Path) -> Iterator[tuple[int, AnyStr | ValueError]]:
    """Number (from 1) and text of every line; one that is too long is an error. `SourceError`: too many lines."""
    ends = ("\n", "\r", b"\n", b"")
    for number in count(1):
        line = file.readline(MAX_LINE + 1)
        if not line:
            return
        if number > MAX_LINES:
            raise SourceError(
                f"{path} has more than {MAX_LINES:,} lines: divide it, or give the path of the right file"
            )
        if len(line) <= MAX_LINE:
            yield number, line
            continue
        while line and line[-1:] not in ends:
            line = file.readline(MAX_LINE)
        yield number, ValueError(f"is longer than {MAX_LINE:,} characters")


def csv_table(path: Path, columns: Sequence[str], order: Sequence[str] = ()) -> Lines[dict[str, str]]:
    """Number and cells by column of every line after the header, whose names may have spaces around them.

    `order` names the columns of a file that has no header. `SourceError`, at once: a column is missing.
    """
    _, first = next(csv_lines(path), (1, list[str]()))
    names = [] if isinstance(first, ValueError) else [name.strip() for name in first]
    if order and not set(columns) & set(names):
        _check_encoding(path, names)
        return _named(csv_lines(path), order)
    _check_columns(path, names, columns)
    lines = csv_lines(path)
    next(lines)
    return _named(lines, names)


def _named(lines: Lines[list[str]], names: Sequence[str]) -> Lines[dict[str, str]]:
    for number, cells in lines:
        if isinstance(cells, ValueError):
            yield number, cells
        elif len(cells) != len(names):
            yield number, ValueError(f"has {len(cells)} cells, not {len(names)}")
        else:
            yield number, dict(zip(names, cells, strict=True))


def pixel_rows(path: Path) -> Lines[PixelRow]:
    """Number (the header is 1) and content of every line of a CSV with the columns emotion, pixels and Usage.

    One pass over bytes: pixels are located and not parsed. `SourceError`, at once: a column is missing.
    """
    with open_regular(path) as file:
        header = file.readline(MAX_LINE)
    text = header.removeprefix(b"\xef\xbb\xbf")
    names = [text[a:b].decode("utf-8", "replace").strip() for a, b in _spans(text) or []]
    _check_columns(path, names, _PIXEL_COLUMNS)
    return _pixel_rows(path, [names.index(name) for name in _PIXEL_COLUMNS], len(names))


def _pixel_rows(path: Path, columns: Sequence[int], cells: int) -> Lines[PixelRow]:
    emotion, pixels, usage = columns
    with open_regular(path) as file:
        for number, line in _lines(file, path):
            if isinstance(line, ValueError):
                yield number, line
            elif number > 1 and not line.isspace():
                spans = _spans(line)
                if spans is None:
                    yield number, ValueError("is no CSV: a quote is not closed")
                elif len(spans) != cells:
                    yield number, ValueError(f"has {len(spans)} cells, not {cells}")
                else:
                    a, b = spans[pixels]
                    label, use = (line[slice(*spans[at])].decode("utf-8", "replace").strip() for at in (emotion, usage))
                    offset = file.tell() - len(line)
                    yield number, PixelRow(label, use, offset + a, b - a)


def _spans(line: bytes) -> list[tuple[int, int]] | None:
    """Start and end of each cell, without its quotes; None for a line with a stray quote."""
    line = line.rstrip(b"\r\n")
    spans, start = [], 0
    if b'"' not in line:
        for cell in line.split(b","):
            spans.append((start, start + len(cell)))
            start += len(cell) + 1
        return spans
    while start <= len(line):
        match = _CELL.match(line, start)
        if match is None:
            return None
        spans.append(match.span(match.lastindex or 0))
        start = match.end() + 1
    return spans


def _check_columns(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in names]:
        _check_encoding(path, names)
        raise SourceError(
            f"{path} has no column {', '.join(missing)}; it needs {', '.join(columns)}. It has: {abbreviated(names)}"
        )


def _check_encoding(path: Path, cells: Sequence[str]) -> None:
    """`SourceError` for the first line of a file in UTF-16, where every second byte of Latin letters is NUL."""
    text = "".join(cells)
    if text.count("\0") > len(text) // 4:
        raise SourceError(f"{path} looks like UTF-16, its first line is full of NUL bytes: save it as UTF-8")


def read_entries(name: str, lines: Lines[T], read: Callable[[int, T], Entry]) -> Iterator[Entry]:
    """One entry per line of list `name`; a line that is wrong, or that `read` refuses by `ValueError`, fails."""
    for number, line in lines:
        if isinstance(line, ValueError):
            yield failed_entry(name, number, line)
            continue
        try:
            entry = read(number, line)
        except ValueError as error:
            entry = failed_entry(name, number, error)
        yield entry


def failed_entry(name: str, number: int, problem: object, **fields: Any) -> Entry:
    """The entry of line `number` of list `name`, which cannot be read."""
    return Entry(key=f"{name}:{number}", reason=f"{name} line {number}: {str(problem)[:_SHOWN]}", **fields)


def parse_int(text: str, what: str) -> int:
    """A whole number; `ValueError` says what the number is for."""
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(f"{what} {text!r} is not a whole number")
    return int(text)


def parse_float(text: str, what: str) -> float:
    """A finite number; `ValueError` says what the number is for."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{what} {text!r} is not a number")
    return value


def parquet_tables(path: Path, columns: Sequence[str]) -> list[Path]:
    """The Parquet files in folder `path` (or `path` itself) that have all these columns, sorted by name.

    `SourceError`: one of them is damaged.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    tables = []
    for file in files:
        if file.suffix == ".parquet":
            try:
                names = read_schema(file).names
            except ERRORS as error:
                raise SourceError(f"{file} cannot be read, restore it or move it away: {error}") from error
            tables += [file] if set(columns) <= set(names) else []
    return tables


def parquet_rows(file: Path, columns: Sequence[str]) -> Lines[ParquetRow]:
    """Number (from 1) and content of every row of a Parquet file; from damage on, all rows of a group are errors."""
    number = 0
    with open_parquet(file) as parquet:
        for group, rows in enumerate(group.rows for group in parquet.groups):
            row = 0
            try:
                for batch in parquet.batches(group, list(columns), LIST_ROWS):
                    for values in _values(batch):
                        number, row = number + 1, row + 1
                        yield number, ParquetRow(group, row - 1, values)
                if row != rows:
                    raise ValueError(f"it has {row:,} rows and not {rows:,}")
            except ERRORS as error:
                problem = ValueError(f"row group {group} cannot be read: {str(error)[:_SHOWN]}")
                for _ in range(rows - row):
                    number += 1
                    yield number, problem


def _values(batch: Any) -> list[dict[str, Any]]:
    if batch.nbytes > MAX_LIST_BYTES:
        raise ValueError(f"{len(batch)} rows have {batch.nbytes:,} bytes beside their pictures")
    rows: list[dict[str, Any]] = batch.to_pylist()
    return rows
