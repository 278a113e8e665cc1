"""The rows of published lists: lines of CSV files, of space-separated lists, and rows of Parquet files.

A row is one line: no published list has line breaks inside a cell, so that a stray quote spoils only its own line.
A wrong line does not stop the import; it becomes a failed row that names file and line.
"""

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from synthfer.sources.entry import Entry, SourceError

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


def split_lines(path: Path, separator: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Number (from 1) and words (between spaces, or `separator`) of every line of a list; blank lines are no rows."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.rstrip("\n").split(separator)


def csv_lines(path: Path) -> Lines[list[str]]:
    """Number (from 1) and cells of every line of a CSV file, or what is wrong with it; blank lines are no rows."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, next(csv.reader([line], strict=True))
                except csv.Error as error:
                    yield number, ValueError(f"is no CSV: {error}")


def csv_table(path: Path, columns: Sequence[str], order: Sequence[str] = ()) -> Lines[dict[str, str]]:
    """Number and cells by column of every line after the header, whose names may have spaces around them.

    `order` names the columns of a file that has no header. `SourceError`, at once: a column is missing.
    """
    _, first = next(csv_lines(path), (1, list[str]()))
    names = [] if isinstance(first, ValueError) else [name.strip() for name in first]
    if order and not set(columns) & set(names):
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
    with path.open("rb") as file:
        header = file.readline(2**20)
    text = header.removeprefix(b"\xef\xbb\xbf")
    names = [text[a:b].decode("utf-8", "replace").strip() for a, b in _spans(text) or []]
    _check_columns(path, names, _PIXEL_COLUMNS)
    return _pixel_rows(path, [names.index(name) for name in _PIXEL_COLUMNS], len(names))


def _pixel_rows(path: Path, columns: Sequence[int], count: int) -> Lines[PixelRow]:
    emotion, pixels, usage = columns
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number > 1 and not line.isspace():
                spans = _spans(line)
                if spans is None:
                    yield number, ValueError("is no CSV: a quote is not closed")
                elif len(spans) != count:
                    yield number, ValueError(f"has {len(spans)} cells, not {count}")
                else:
                    a, b = spans[pixels]
                    label, use = (line[slice(*spans[at])].decode("utf-8", "replace").strip() for at in (emotion, usage))
                    yield number, PixelRow(label, use, offset + a, b - a)
            offset += len(line)


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
        present = ", ".join(names) or "none"
        raise SourceError(
            f"{path} has no column {', '.join(missing)}; it needs {', '.join(columns)}. It has: {present}"
        )


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
    return Entry(key=f"{name}:{number}", reason=f"{name} line {number}: {problem}", **fields)


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
                names = pq.read_schema(file).names
            except (pa.ArrowException, OSError, ValueError) as error:
                raise SourceError(f"{file} cannot be read, restore it or move it away: {error}") from error
            tables += [file] if set(columns) <= set(names) else []
    return tables


def parquet_rows(file: Path, columns: Sequence[str]) -> Lines[ParquetRow]:
    """Number (from 1) and content of every row of a Parquet file; all rows of a damaged row group are errors."""
    number = 0
    with pq.ParquetFile(file) as parquet:
        for group in range(parquet.num_row_groups):
            rows: list[Any]
            try:
                values = parquet.read_row_group(group, columns=list(columns)).to_pylist()
                rows = [ParquetRow(group, row, value) for row, value in enumerate(values)]
            except (pa.ArrowException, OSError, ValueError) as error:
                problem = ValueError(f"row group {group} cannot be read: {error}")
                rows = [problem] * parquet.metadata.row_group(group).num_rows
            yield from enumerate(rows, number + 1)
            number += len(rows)
