"""Parquet from outside: its footer is bounded and checked before anything is unpacked, and its columns are ours.

A file of a megabyte may claim 10**12 rows, or hold one long text that a dictionary repeats for every row. What a table
unpacks to is therefore added up from the footer, exactly where a dictionary may repeat long values, and compared with
`Limits` first. Thrift lists have a limit, too: each byte of a footer may become a structure of a kilobyte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from synthfer.parquet_headers import BYTE_ARRAY, DICTIONARY_PAGE, Chunk, RowGroup, read_footer, read_page
from synthfer.store.objects import StoreUnavailable

MAX_FOOTER_BYTES = 16 * 2**20
"""A shard's footer has some ten kilobytes."""
MAX_LIST = 1024
"""Columns, row groups and notes of a file; those that synthfer writes have at most some dozens."""
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
        groups = read_footer(source.read_at, source.size(), limits.footer)
        _check_sizes(groups, source, limits)
        file = pq.ParquetFile(source, page_checksum_verification=True, **thrift_limits(limits))
        return OpenTable(file, [group.rows for group in groups])
    except StoreUnavailable:
        raise
    except ERRORS as error:
        raise TableError(f"{where} cannot be read: {one_line(error)}") from error


def read_table(body: bytes, where: str, schema: pa.Schema, limits: Limits) -> pa.Table:
    """A whole table of flat columns, with exactly the columns of `schema`; metadata of the file's own is kept."""
    return read_opened(open_table(pa.BufferReader(body), where, limits), where, schema)


def read_opened(opened: OpenTable, where: str, schema: pa.Schema) -> pa.Table:
    """The same of a file that is open already."""
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
        "thrift_string_size_limit": MAX_FOOTER_BYTES,
        "thrift_container_size_limit": max(MAX_LIST, limits.groups),
    }


def _check_sizes(groups: Sequence[RowGroup], source: pa.NativeFile, limits: Limits) -> None:
    """`ValueError` where the file unpacks to more than the limits."""
    if len(groups) > limits.groups:
        raise ValueError(f"it has {len(groups):,} row groups, more than {limits.groups:,}")
    rows = sum(group.rows for group in groups)
    if rows > limits.rows:
        raise ValueError(f"it has {rows:,} rows, more than {limits.rows:,}")
    unpacked = dict.fromkeys(("", *limits.apart), 0)
    for number, chunk in ((number, chunk) for number, group in enumerate(groups) for chunk in group.chunks):
        key = chunk.names[0] if chunk.names and chunk.names[0] in limits.apart else ""
        unpacked[key] += _unpacked(chunk, number, source, limits)
        limit = limits.apart.get(key, limits.unpacked)
        if unpacked[key] > limit:
            raise ValueError(f"column {chunk.path} unpacks to more than the {limit:,} bytes that are read")


def _unpacked(chunk: Chunk, group: int, source: pa.NativeFile, limits: Limits) -> int:
    """Bytes of a chunk's values in memory, at most; exact where a dictionary may repeat long ones."""
    if chunk.stored > source.size():
        raise ValueError(f"column {chunk.path} states sizes that the file cannot have")
    if odd := set(chunk.encodings) - _KNOWN_ENCODINGS:
        raise ValueError(f"column {chunk.path} has encodings that synthfer does not write: {sorted(odd)}")
    dictionary = _check_pages(chunk, source)
    short = chunk.unpacked * chunk.values <= min(limits.unpacked, _SMALL_BYTES)
    if chunk.type != BYTE_ARRAY or not dictionary or short:
        return chunk.unpacked + _VALUE_BYTES * chunk.values
    if chunk.unpacked > limits.unpacked:
        return chunk.unpacked
    path = ".".join(chunk.names)
    return _measured(pq.ParquetFile(source, read_dictionary=[path], **thrift_limits(limits)), path, group)


def _check_pages(chunk: Chunk, source: pa.NativeFile) -> bool:
    """Whether a chunk has a dictionary; `ValueError` where its pages unpack to more than its footer states.

    On S3, where every page would be a request, the footer is believed.
    """
    if isinstance(source, pa.PythonFile):
        return chunk.dictionary_at > 0 or any(code in _DICTIONARY_ENCODINGS for code in chunk.encodings)
    at, unpacked, values, has_dictionary = chunk.start, 0, 0, False
    while at < chunk.start + chunk.stored and values < chunk.values:
        page = read_page(source.read_at, at)
        has_dictionary |= page.kind == DICTIONARY_PAGE
        unpacked, values, at = (
            unpacked + page.unpacked + page.length,
            values + page.values,
            at + page.length + page.stored,
        )
        if unpacked > chunk.unpacked or page.encoding not in _KNOWN_ENCODINGS:
            raise ValueError(f"the pages of column {chunk.path} are not what its footer states")
    if values != chunk.values:
        raise ValueError(f"column {chunk.path} has {values:,} values, and its footer states {chunk.values:,}")
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


_DICTIONARY_ENCODINGS = {2, 8}
_KNOWN_ENCODINGS = {0, 3, 4, *_DICTIONARY_ENCODINGS}
"""PLAIN, RLE, BIT_PACKED and the two of dictionaries; others may repeat long values out of a few bytes."""
