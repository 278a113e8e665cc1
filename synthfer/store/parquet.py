"""Parquet from outside: its footer is bounded and checked before anything is unpacked, and its columns are ours.

A file of a megabyte may claim 10**12 rows, or hold one long text that a dictionary repeats for every row. What a table
unpacks to is therefore added up from the footer, exactly where a dictionary may repeat long values, and compared with
`Limits` first. Thrift lists have a limit, too: each byte of a footer may become a structure of a kilobyte.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from synthfer.store.objects import StoreUnavailable
from synthfer.store.thrift import CompactReader

MAX_FOOTER_BYTES = 16 * 2**20
"""A shard's footer has some ten kilobytes."""
MAX_LIST = 1024
"""Columns, row groups and notes of a file; those that synthfer writes have at most some dozens."""
MAX_FOOTER_TEXT = MAX_FOOTER_BYTES
_VALUE_BYTES = 8
_SMALL_BYTES = 2**27
_BATCH_ROWS = 8192

ERRORS = (pa.ArrowException, OSError, ValueError, KeyError)
"""What pyarrow raises on files that are not as they should be."""


class TableError(ValueError):
    """A Parquet file is not what it should be; the message names it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a file may hold: rows, row groups, and bytes once unpacked.

    `apart` are top-level columns with a limit in bytes of their own, which the others do not share.
    """

    rows: int
    unpacked: int
    groups: int = MAX_LIST
    footer: int = MAX_FOOTER_BYTES
    apart: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OpenTable:
    """A file whose sizes are checked, and the rows of each row group."""

    file: pq.ParquetFile
    groups: list[int]


def open_table(source: pa.NativeFile, where: str, limits: Limits) -> OpenTable:
    """The file with its sizes checked; `TableError` names the object at `where`."""
    try:
        footer = _read_footer(source, limits)
        groups = _check_sizes(footer, source, limits)
        return OpenTable(pq.ParquetFile(source, page_checksum_verification=True, **thrift_limits(limits)), groups)
    except StoreUnavailable:
        raise
    except (KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{where} cannot be read: its footer lacks what the footer of a Parquet file has") from error
    except ERRORS as error:
        raise TableError(f"{where} cannot be read: {one_line(error)}") from error


def read_table(body: bytes, where: str, schema: pa.Schema, limits: Limits) -> pa.Table:
    """A whole table of flat columns, with exactly the columns of `schema`; metadata of the file's own is kept."""
    opened = open_table(pa.BufferReader(body), where, limits)
    try:
        check_columns(opened.file.schema_arrow, schema)
        table = opened.file.read()
        table.validate(full=True)
        if len(table) != sum(opened.groups):
            raise ValueError(f"it has {len(table):,} rows, and its footer states {sum(opened.groups):,}")
    except ERRORS as error:
        raise TableError(f"{where} cannot be read: {one_line(error)}") from error
    return table


def check_columns(stored: pa.Schema, expected: pa.Schema) -> None:
    """`ValueError` unless the columns have these names and types, in this order."""
    if not stored.equals(expected):
        ours, theirs = (set(zip(schema.names, schema.types, strict=True)) for schema in (expected, stored))
        odd = sorted({name for name, _ in ours ^ theirs})
        words = ", ".join(name[:40] for name in odd[:8]) or "their order"
        raise ValueError(f"its columns are others than {', '.join(expected.names)}; what differs: {words}")


def fragment_options(limits: Limits) -> pads.ParquetFragmentScanOptions:
    """How pyarrow's scanner is to read a file that `open_table` has checked."""
    return pads.ParquetFragmentScanOptions(page_checksum_verification=True, **thrift_limits(limits))


def one_line(error: BaseException) -> str:
    """The message of a library without its line breaks, at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def thrift_limits(limits: Limits) -> dict[str, int]:
    """Arguments of `ParquetFile`: how long texts and lists in a footer may be."""
    return {
        "thrift_string_size_limit": MAX_FOOTER_TEXT,
        "thrift_container_size_limit": max(MAX_LIST, limits.groups),
    }


def _read_footer(source: pa.NativeFile, limits: Limits) -> dict[int, Any]:
    """The wanted fields of the footer (`_FOOTER`)."""
    size = source.size()
    tail = source.read_at(min(size, 8), max(0, size - 8))
    if size < 12 or tail[4:] != b"PAR1":
        raise ValueError("it is not a complete Parquet file: it was truncated or overwritten")
    length = int.from_bytes(tail[:4], "little")
    if length > min(limits.footer, size - 8):
        raise ValueError(f"it states a footer of {length:,} bytes; no more than {limits.footer:,} are read")
    return CompactReader(source.read_at(length, size - 8 - length)).struct(_FOOTER)


def _check_sizes(footer: dict[int, Any], source: pa.NativeFile, limits: Limits) -> list[int]:
    """The rows of each row group; `ValueError` where counts disagree or the file unpacks to more than the limits."""
    rows, groups = footer[_ROWS], footer[_GROUPS]
    if len(groups) > limits.groups:
        raise ValueError(f"it has {len(groups):,} row groups, more than {limits.groups:,}")
    of_groups = [group[_GROUP_ROWS] for group in groups]
    if min(of_groups, default=0) < 0 or sum(of_groups) != rows:
        raise ValueError(f"its footer states {rows:,} rows, and its row groups {sum(of_groups):,}")
    if rows > limits.rows:
        raise ValueError(f"it has {rows:,} rows, more than {limits.rows:,}")
    unpacked = dict.fromkeys(("", *limits.apart), 0)
    chunks = ((number, chunk[_CHUNK_FACTS]) for number, group in enumerate(groups) for chunk in group[_COLUMNS])
    for number, chunk in chunks:
        names = [name.decode() for name in chunk[_PATH]]
        path = ".".join(names)
        key = names[0] if names and names[0] in limits.apart else ""
        unpacked[key] += _unpacked(chunk, path, number, source, limits)
        limit = limits.apart.get(key, limits.unpacked)
        if unpacked[key] > limit:
            raise ValueError(f"column {path[:80]} unpacks to more than the {limit:,} bytes that are read")
    return of_groups


def _unpacked(chunk: dict[int, Any], path: str, group: int, source: pa.NativeFile, limits: Limits) -> int:
    """Bytes of a chunk's values in memory, at most; exact where a dictionary may repeat long ones."""
    values, stated = chunk[_VALUES], chunk[_UNPACKED]
    if min(values, stated, chunk[_STORED]) < 0 or chunk[_STORED] > source.size():
        raise ValueError(f"column {path[:80]} states sizes that the file cannot have")
    if odd := set(chunk[_ENCODINGS]) - _KNOWN_ENCODINGS:
        raise ValueError(f"column {path[:80]} has encodings that synthfer does not write: {sorted(odd)}")
    dictionary = _check_pages(chunk, path, source)
    if chunk[_TYPE] != _BYTE_ARRAY or not dictionary or stated * values <= min(limits.unpacked, _SMALL_BYTES):
        return int(stated + _VALUE_BYTES * values)
    if stated > limits.unpacked:
        return int(stated)
    return _measured(pq.ParquetFile(source, read_dictionary=[path], **thrift_limits(limits)), path, group)


def _check_pages(chunk: dict[int, Any], path: str, source: pa.NativeFile) -> bool:
    """Whether a chunk has a dictionary; `ValueError` where its pages unpack to more than its footer states.

    On S3, where every page would be a request, the footer is believed.
    """
    data, dictionary = chunk[_DATA_AT], chunk.get(_DICTIONARY_AT) or chunk[_DATA_AT]
    if isinstance(source, pa.PythonFile):
        return dictionary != data or any(code in _DICTIONARY_ENCODINGS for code in chunk[_ENCODINGS])
    at = min(data, dictionary) if dictionary > 0 else data
    end, unpacked, values, has_dictionary = at + chunk[_STORED], 0, 0, False
    while at < end and values < chunk[_VALUES]:
        header = CompactReader(source.read_at(min(_PAGE_HEADER_BYTES, end - at), at))
        page = header.struct(_PAGE)
        facts = page.get(_DATA_PAGE) or page.get(_DATA_PAGE_2) or {}
        has_dictionary |= page[_PAGE_TYPE] == _DICTIONARY_PAGE
        unpacked += page[_PAGE_UNPACKED] + header.at
        values += max(0, facts.get(_PAGE_VALUES, 0))
        at += header.at + max(0, page[_PAGE_STORED])
        encoding = facts.get(2 if _DATA_PAGE in page else 4, 0)
        if page[_PAGE_UNPACKED] < 0 or unpacked > chunk[_UNPACKED] or encoding not in _KNOWN_ENCODINGS:
            raise ValueError(f"the pages of column {path[:80]} are not what its footer states")
    if values != chunk[_VALUES]:
        raise ValueError(f"column {path[:80]} has {values:,} values, and its footer states {chunk[_VALUES]:,}")
    return has_dictionary


def _measured(file: pq.ParquetFile, path: str, group: int) -> int:
    total = 0
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[path]):
        values: Any = batch.column(0)
        while not pa.types.is_dictionary(values.type):
            values = values.flatten()[0] if pa.types.is_struct(values.type) else values.flatten()
        lengths = pc.binary_length(values.dictionary).cast(pa.int64()).take(values.indices)
        total += (pc.sum(lengths).as_py() or 0) + _VALUE_BYTES * len(values)
    return total


# Ids of fields in parquet.thrift of the Parquet format.
_ROWS, _GROUPS = 3, 4
_COLUMNS, _GROUP_ROWS = 1, 3
_CHUNK_FACTS = 3
_TYPE, _ENCODINGS, _PATH, _VALUES, _UNPACKED, _STORED, _DATA_AT, _DICTIONARY_AT = 1, 2, 3, 5, 6, 7, 9, 11
_CHUNK = dict.fromkeys((_TYPE, _ENCODINGS, _PATH, _VALUES, _UNPACKED, _STORED, _DATA_AT, _DICTIONARY_AT))
_FOOTER = {_ROWS: None, _GROUPS: {_GROUP_ROWS: None, _COLUMNS: {_CHUNK_FACTS: _CHUNK}}}
_PAGE_TYPE, _PAGE_UNPACKED, _PAGE_STORED, _DATA_PAGE, _DATA_PAGE_2, _PAGE_VALUES = 1, 2, 3, 5, 8, 1
_PAGE_FACTS = {_PAGE_VALUES: None, 2: None, 4: None}
_PAGE = {
    **dict.fromkeys((_PAGE_TYPE, _PAGE_UNPACKED, _PAGE_STORED)),
    **dict.fromkeys((_DATA_PAGE, _DATA_PAGE_2), _PAGE_FACTS),
}
_PAGE_HEADER_BYTES = 1 << 16
_BYTE_ARRAY, _DICTIONARY_PAGE = 6, 2
_DICTIONARY_ENCODINGS = {2, 8}
_KNOWN_ENCODINGS = {0, 3, 4, *_DICTIONARY_ENCODINGS}
"""PLAIN, RLE, BIT_PACKED and the two of dictionaries; others may repeat long values out of a few bytes."""
