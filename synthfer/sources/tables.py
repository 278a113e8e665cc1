"""What the readers of published lists share: lines of CSV files, grey values by their bytes, labels, splits, notes.

A row is one line: no published list has line breaks inside a cell, and so a stray quote spoils its own line only.
A line that is wrong never stops a list; it becomes a failed row that names file and line.
"""

import csv
import math
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from synthfer.config import option
from synthfer.expressions import index_of
from synthfer.sample import seed_of
from synthfer.sources.entry import Entry, SourceError, without_expression

USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
"""The column Usage of FER2013, FERPlus and the CK+ CSV, as splits."""
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_PIXEL_COLUMNS = ("emotion", "pixels", "Usage")
_CELL = re.compile(rb'[ \t]*"([^"]*)"[ \t]*(?=,|$)|([^",]*)(?=,|$)')
_CODE = re.compile(r"[0-9]{1,9}")
_WHOLE = re.compile(r"[+-]?[0-9]{1,15}")
_SHOWN = 5
T = TypeVar("T")


class PixelRow(NamedTuple):
    """A line of a CSV with pictures: its label and Usage, and the bytes of the file that are its pixels cell."""

    emotion: str
    usage: str
    start: int
    length: int


class ParquetRow(NamedTuple):
    """A row of a Parquet file: where it is, and its values by column."""

    group: int
    row: int
    values: dict[str, Any]


def words(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number (from 1) and words of every line of a space-separated list; blank lines are no rows."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if fields := line.split():
                yield number, fields


def cells(path: Path) -> Iterator[tuple[int, list[str] | ValueError]]:
    """Number (from 1) and cells of every line of a CSV file, or what is wrong with it; blank lines are no rows."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, next(csv.reader([line], strict=True))
                except csv.Error as error:
                    yield number, ValueError(f"is no CSV: {error}")


def table(
    path: Path, columns: Sequence[str], order: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str] | ValueError]]:
    """Number and cells by column of every line after the header, whose names may have spaces around them.

    `order` names the columns of a file that has no header. `SourceError`, at once: a column is missing.
    """
    _, first = next(cells(path), (1, list[str]()))
    names = [] if isinstance(first, ValueError) else [name.strip() for name in first]
    if order and not set(columns) & set(names):
        return _named(cells(path), order)
    _check_columns(path, names, columns)
    lines = cells(path)
    next(lines)
    return _named(lines, names)


def _named(
    lines: Iterator[tuple[int, list[str] | ValueError]], names: Sequence[str]
) -> Iterator[tuple[int, dict[str, str] | ValueError]]:
    for number, found in lines:
        if isinstance(found, ValueError):
            yield number, found
        elif len(found) != len(names):
            yield number, ValueError(f"has {len(found)} cells, not {len(names)}")
        else:
            yield number, dict(zip(names, found, strict=True))


def pixel_rows(path: Path) -> Iterator[tuple[int, PixelRow | ValueError]]:
    """Number (the header is 1) and content of every line of a CSV with the columns emotion, pixels and Usage.

    One pass in bytes: pixels are not parsed, only found. `SourceError`, at once: a column is missing.
    """
    with path.open("rb") as file:
        header = file.readline(2**20)
    text = header.removeprefix(b"\xef\xbb\xbf")
    names = [text[a:b].decode("utf-8", "replace").strip() for a, b in _spans(text) or []]
    _check_columns(path, names, _PIXEL_COLUMNS)
    return _pixel_rows(path, [names.index(name) for name in _PIXEL_COLUMNS], len(names))


def _pixel_rows(path: Path, places: Sequence[int], count: int) -> Iterator[tuple[int, PixelRow | ValueError]]:
    emotion, pixels, usage = places
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
    """Where each cell begins and ends, quotes left out; None for a line with a stray quote."""
    line = line.rstrip(b"\r\n")
    spans, start = [], 0
    if b'"' not in line:
        for cell in line.split(b","):
            spans.append((start, start + len(cell)))
            start += len(cell) + 1
        return spans
    while start <= len(line):
        found = _CELL.match(line, start)
        if found is None:
            return None
        spans.append(found.span(found.lastindex or 0))
        start = found.end() + 1
    return spans


def _check_columns(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in names]:
        found = ", ".join(names) or "none"
        raise SourceError(f"{path} has no column {', '.join(missing)}; it needs {', '.join(columns)}. Found: {found}")


def entries_of(
    name: str, lines: Iterable[tuple[int, T | ValueError]], read: Callable[[int, T], Entry]
) -> Iterator[Entry]:
    """One entry per line of list `name`; a line that is wrong, or that `read` refuses by `ValueError`, fails."""
    for number, found in lines:
        if isinstance(found, ValueError):
            yield broken(name, number, found)
            continue
        try:
            entry = read(number, found)
        except ValueError as error:
            entry = broken(name, number, error)
        yield entry


def broken(name: str, number: int, problem: object, **fields: Any) -> Entry:
    """The failed row of line `number` of list `name`."""
    return Entry(key=f"{name}:{number}", reason=f"{name} line {number}: {problem}", **fields)


def by_word(word: str) -> dict[str, Any]:
    """The fields of an entry that is labelled by a word: label, or the word as attribute and a reason."""
    label = _label_of(word)
    if label is None:
        return {"attributes": {"emotion": word}, "reason": without_expression(word)}
    return {"label": label}


@lru_cache(256)
def _label_of(word: str) -> int | None:
    """Kept, since looking for the nearest word of each of a million faces would take minutes."""
    try:
        return index_of(word)
    except ValueError:
        return None


def by_code(order: Sequence[str], code: str, first: int = 0) -> dict[str, Any]:
    """The fields of an entry that is labelled by its place in a published class order, counted from `first`."""
    code = code.strip()
    if _CODE.fullmatch(code) and 0 <= int(code) - first < len(order):
        return by_word(order[int(code) - first])
    last = first + len(order) - 1
    return {
        "attributes": {"emotion": code},
        "reason": f"label {code!r} is none of the published codes {first} to {last}",
    }


def by_usage(usage: str) -> dict[str, Any]:
    """The split of a Usage word, or a reason."""
    if usage in USAGES:
        return {"split": USAGES[usage]}
    return {"reason": f"Usage {usage!r} is none of {', '.join(USAGES)}"}


def whole(text: str, what: str) -> int:
    """A whole number; `ValueError` names what it should be."""
    if not _WHOLE.fullmatch(text.strip()):
        raise ValueError(f"{what} {text!r} is not a whole number")
    return int(text)


def finite(text: str, what: str) -> float:
    """A finite number; `ValueError` names what it should be."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{what} {text!r} is not a number")
    return value


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How a collection without official splits is divided: a group (a person, a photo) is in one split as a whole."""

    val: float = option(0.1, "share of the groups for validation", low=0, high=1)
    test: float = option(0.2, "share of the groups for testing", low=0, high=1)
    seed: int = option(0, "other splits for another seed", low=0)

    def __post_init__(self) -> None:
        if self.val + self.test > 1:
            raise ValueError(f"val {self.val} and test {self.test} are more than 1 together: lower one of them")

    def split(self, group: str) -> str:
        """The split of a group, a function of its name and the seed alone."""
        at = seed_of(self.seed, "split", group) / 2**63
        return "test" if at < self.test else "val" if at < self.test + self.val else "train"


def file_at(path: Path, *names: str) -> Path | None:
    """The first of these files that is in folder `path`; or `path` itself, a file of that kind."""
    if path.is_file():
        return path if path.suffix in {Path(name).suffix for name in names} else None
    return next((path / name for name in names if (path / name).is_file()), None)


def folder_of(path: Path) -> Path:
    """The folder that places are relative to, also where `path` is a file."""
    return path.parent if path.is_file() else path


def unknown_layout(path: Path, source: str, wants: str) -> SourceError:
    """The error that says what was looked for and what is there."""
    there = sorted(p.name for p in path.iterdir()) if path.is_dir() else [f"a file {path.name}"]
    return SourceError(f"path: {path} is no layout of source {source}, which wants {wants}. There is: {_some(there)}")


def parquet_tables(path: Path, columns: Sequence[str]) -> list[Path]:
    """The Parquet files in folder `path` (or `path` itself) that have all these columns, sorted by name.

    `SourceError`: one of them is damaged.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    found = []
    for file in files:
        if file.suffix == ".parquet":
            try:
                names = pq.read_schema(file).names
            except (pa.ArrowException, OSError) as error:
                raise SourceError(f"{file} cannot be read, restore it or move it away: {error}") from error
            found += [file] if set(columns) <= set(names) else []
    return found


def parquet_rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[int, ParquetRow | ValueError]]:
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


def class_folders(root: Path, folder: str, notes: list[str]) -> Iterator[tuple[str, str]]:
    """Class word and path below `root` of every picture in `folder`/<class>/, sorted; notes name other files.

    A name that is no text (bytes that are no UTF-8) cannot stand in a dataset and is one of those.
    """
    others = []
    for entry in sorted((root / folder).iterdir()):
        if not entry.is_dir() or not entry.name.isprintable():
            others.append(entry.name)
            continue
        for name in sorted(os.listdir(entry)):  # noqa: PTH208 - a path per name takes longer than the rest
            relative = f"{folder}/{entry.name}/{name}".removeprefix("./")
            if name.lower().endswith(PICTURES) and name.isprintable():
                yield entry.name, relative
            else:
                others.append(relative)
    if others:
        where = f"{(root / folder).name}: files that are no pictures or have no readable name"
        notes.append(f"{where}, left out: {len(others):,} ({_some(others)})")


def unlisted(folder: Path, listed: Container[str], name: str) -> list[str]:
    """One note on the pictures below a folder (paths relative to it) that list `name` does not name, or none."""
    extra = []
    for parent, _, files in os.walk(folder):
        below = Path(parent).relative_to(folder).as_posix()
        paths = (file if below == "." else f"{below}/{file}" for file in files if file.lower().endswith(PICTURES))
        extra += [path for path in paths if path not in listed]
    if not extra:
        return []
    return [f"{folder.name}: pictures that are not in {name}, left out: {len(extra):,} ({_some(sorted(extra))})"]


def _some(names: Sequence[str]) -> str:
    text = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return text.encode("utf-8", "replace").decode() or "nothing"
