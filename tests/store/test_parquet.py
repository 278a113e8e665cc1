"""Parquet from outside: the footer says what a file unpacks to, and the file is held to it before it is unpacked."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.store.parquet import Limits, TableError, open_table, read_table
from tests.store.hostile import repeated

LIMITS = Limits(10_000, 10_000_000)
TEXTS = pa.schema([("text", pa.string())])


def written(table: pa.Table, **options) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, store_schema=False, **options)
    return sink.getvalue().to_pybytes()


def varint(value: int) -> bytes:
    """A number as the compact protocol of Thrift writes it."""
    value, parts = value << 1, []
    while value > 127:
        value, part = value >> 7, value & 127
        parts.append(part | 128)
    return bytes([*parts, value])


def stating(body: bytes, old: int, new: int) -> bytes:
    """The file with another number of as many bytes in its footer."""
    start = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    assert len(varint(old)) == len(varint(new))
    footer = body[start:].replace(varint(old), varint(new))
    assert footer != body[start:]
    return body[:start] + footer


def test_a_sound_table_is_read_as_it_is():
    table = pa.table({"text": [str(number) for number in range(1000)]}, TEXTS)
    for options in ({}, {"use_dictionary": False}, {"row_group_size": 10}, {"data_page_version": "2.0"}):
        assert read_table(written(table, **options), "x", TEXTS, LIMITS).equals(table)
    assert open_table(pa.BufferReader(written(table, row_group_size=300)), "x", LIMITS).groups == [300, 300, 300, 100]


def test_a_long_text_that_a_dictionary_repeats_is_counted_as_often():
    few, many = (pa.table({"text": repeated(rows, 10_000)}) for rows in (500, 5000))
    assert len(written(many)) < 20_000
    assert read_table(written(few), "x", TEXTS, Limits(10_000, 6_000_000)).num_rows == 500
    with pytest.raises(TableError, match="x cannot be read: column text unpacks to more than the 6,000,000 bytes"):
        read_table(written(many), "x", TEXTS, Limits(10_000, 6_000_000))


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_dictionary_of_many_texts_is_measured_and_read(dictionary):
    table = pa.table({"text": [f"{number % 100:0>2000}" for number in range(4000)]}, TEXTS)
    body = written(table, use_dictionary=dictionary)
    assert read_table(body, "x", TEXTS, Limits(10_000, 9_000_000)).equals(table)
    with pytest.raises(TableError, match="unpacks to more"):
        read_table(body, "x", TEXTS, Limits(10_000, 7_000_000))


def test_pages_that_unpack_to_more_than_the_footer_states_are_refused():
    table = pa.table({"text": ["x" * 3000 for _ in range(3000)]}, TEXTS)
    body = written(table, use_dictionary=False, compression="zstd")
    stated = pq.read_metadata(pa.BufferReader(body)).row_group(0).column(0).total_uncompressed_size
    assert read_table(body, "x", TEXTS, LIMITS).num_rows == 3000
    with pytest.raises(TableError, match="the pages of column text are not what its footer states"):
        read_table(stating(body, stated, 2**20), "x", TEXTS, LIMITS)


@pytest.mark.parametrize("rows", [999, 1001, 8000])
def test_rows_that_the_file_does_not_have_are_refused(rows):
    body = written(pa.table({"text": ["x"] * 1000}, TEXTS))
    with pytest.raises(TableError, match=r"x cannot be read: .*states"):
        read_table(stating(body, 1000, rows), "x", TEXTS, LIMITS)


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_encodings_that_repeat_long_texts_are_refused(encoding):
    body = written(pa.table({"text": ["x" * 1000] * 10}, TEXTS), use_dictionary=False, column_encoding=encoding)
    with pytest.raises(TableError, match="encodings that synthfer does not write"):
        read_table(body, "x", TEXTS, LIMITS)


def test_more_row_groups_columns_and_rows_than_allowed_are_refused():
    table = pa.table({"text": ["x"] * 2000}, TEXTS)
    with pytest.raises(TableError, match="2,000 row groups, more than 1,024"):
        read_table(written(table, row_group_size=1), "x", TEXTS, LIMITS)
    with pytest.raises(TableError, match="2,000 rows, more than 1,000"):
        read_table(written(table), "x", TEXTS, Limits(1000, 10**6))
    wide = pa.table({str(number): [1] for number in range(3000)})
    with pytest.raises(TableError, match="x cannot be read"):
        read_table(written(wide), "x", TEXTS, LIMITS)


@settings(max_examples=300, deadline=None)
@given(at=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_bit_flipped_in_a_footer_is_an_error_of_ours_or_none(at, bit):
    body = bytearray(SMALL)
    body[int(at * (len(body) - 1))] ^= 1 << bit
    try:
        read_table(bytes(body), "the table", SMALL_TABLE.schema, LIMITS)
    except TableError as error:
        assert str(error).startswith("the table cannot be read: ")


SMALL_TABLE = pa.table({"text": ["a", "b", None], "number": [1, 2, 3], "share": [0.5, None, 1.5]})
SMALL = written(SMALL_TABLE, write_page_index=True, write_page_checksum=True)
