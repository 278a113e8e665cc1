"""Parquet from outside: its footer is bounded and checked before anything is unpacked, and its columns are ours.

A file of a megabyte may claim 10**12 rows, or hold one long text that a dictionary repeats for every row. What a table
unpacks to is therefore added up from the footer, exactly where a dictionary may repeat long values, and compared with
`Limits` first. Thrift lists have a limit, too: each byte of a footer may become a structure of a kilobyte.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from synthfer.store.objects import StoreUnavailable

MAX_FOOTER_BYTES = 16 * 2**20
"""A shard's footer has some ten kilobytes."""
MAX_LIST = 1024
"""Columns, row groups and notes of a file; those that synthfer writes have at most some dozens."""
MAX_FOOTER_TEXT = MAX_FOOTER_BYTES
_ENCODINGS = {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY", "BIT_PACKED"}
_VALUE_BYTES = 8
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


def open_table(source: pa.NativeFile, where: str, limits: Limits) -> pq.ParquetFile:
    """The file with its sizes checked; `TableError` names the object at `where`."""
    try:
        _check_footer_size(source, limits)
        file = pq.ParquetFile(source, page_checksum_verification=True, **thrift_limits(limits))
        _check_sizes(file.metadata, source, limits)
    except StoreUnavailable:
        raise
    except ERRORS as error:
        raise TableError(f"{where} cannot be read: {one_line(error)}") from error
    return file


def read_table(body: bytes, where: str, schema: pa.Schema, limits: Limits) -> pa.Table:
    """A whole table of flat columns, with exactly the columns of `schema`; metadata of the file's own is kept."""
    file = open_table(pa.BufferReader(body), where, limits)
    try:
        check_columns(file.schema_arrow, schema)
        table = file.read()
        table.validate(full=True)
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


def _check_footer_size(source: pa.NativeFile, limits: Limits) -> None:
    size = source.size()
    source.seek(max(0, size - 8))
    tail = source.read(8)
    source.seek(0)
    if size < 12 or tail[4:] != b"PAR1":
        raise ValueError("it is not a complete Parquet file: it was truncated or overwritten")
    length = int.from_bytes(tail[:4], "little")
    if length > limits.footer:
        raise ValueError(f"its footer has {length:,} bytes; no more than {limits.footer:,} are read")


def _check_sizes(metadata: pq.FileMetaData, source: pa.NativeFile, limits: Limits) -> None:
    """`ValueError` where row counts disagree or what the file unpacks to is more than the limits."""
    if metadata.num_row_groups > limits.groups:
        raise ValueError(f"it has {metadata.num_row_groups:,} row groups, more than {limits.groups:,}")
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    rows = [group.num_rows for group in groups]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        raise ValueError(f"its footer states {metadata.num_rows:,} rows, and its row groups {sum(rows):,}")
    if metadata.num_rows > limits.rows:
        raise ValueError(f"it has {metadata.num_rows:,} rows, more than {limits.rows:,}")
    size, unpacked = source.size(), dict.fromkeys(("", *limits.apart), 0)
    for number, path, column in _chunks(groups):
        _check_chunk(column, path, size)
        name = path.partition(".")[0]
        key = name if name in limits.apart else ""
        unpacked[key] += _unpacked(column, path, number, source, limits)
        limit = limits.apart.get(key, limits.unpacked)
        if unpacked[key] > limit:
            raise ValueError(f"column {path[:80]} unpacks to more than the {limit:,} bytes that are read")


def _chunks(groups: list[Any]) -> Iterator[tuple[int, str, Any]]:
    for number, group in enumerate(groups):
        for index in range(group.num_columns):
            column = group.column(index)
            yield number, column.path_in_schema, column


def _check_chunk(column: Any, path: str, size: int) -> None:
    stored, unpacked, values = column.total_compressed_size, column.total_uncompressed_size, column.num_values
    if min(stored, unpacked, values) < 0 or stored > size:
        raise ValueError(
            f"column {path[:80]} states {stored:,} bytes and {values:,} values in a file of {size:,} bytes"
        )
    if odd := set(column.encodings) - _ENCODINGS:
        raise ValueError(f"column {path[:80]} is encoded as {', '.join(sorted(odd))}, which synthfer does not write")


def _unpacked(column: Any, path: str, group: int, source: pa.NativeFile, limits: Limits) -> int:
    """Bytes of a chunk's values in memory, at most; exact where a dictionary may repeat long ones."""
    values, stored = column.num_values, column.total_uncompressed_size
    if column.physical_type != "BYTE_ARRAY" or not column.has_dictionary_page:
        return int(stored + _VALUE_BYTES * values)
    if stored * values <= min(limits.unpacked, 2**27):
        return int(stored + _VALUE_BYTES * values)
    if stored > limits.unpacked:
        return int(stored)
    return _measured(pq.ParquetFile(source, read_dictionary=[path], **thrift_limits(limits)), path, group)


def _measured(file: pq.ParquetFile, path: str, group: int) -> int:
    total = 0
    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[path]):
        values: Any = batch.column(0)
        while not pa.types.is_dictionary(values.type):
            values = values.flatten()[0] if pa.types.is_struct(values.type) else values.flatten()
        lengths = pc.binary_length(values.dictionary).cast(pa.int64()).take(values.indices)
        total += (pc.sum(lengths).as_py() or 0) + _VALUE_BYTES * len(values)
    return total
