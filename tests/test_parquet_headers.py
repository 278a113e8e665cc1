"""Footers and page headers of Parquet: what Arrow writes is read as Arrow reads it, any other bytes are an error."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.parquet_headers import DICTIONARY_PAGE, read_footer, read_page

DAMAGED = "the header of a page or the footer is damaged"
TABLE = pa.table({"text": ["a", "b", None, "a"], "votes": [[1], [], [2, 3], None], "share": [0.5, None, 1.5, 2.5]})


def written(**options) -> bytes:
    out = io.BytesIO()
    pq.write_table(TABLE, out, row_group_size=3, **options)
    return out.getvalue()


def at(body: bytes):
    return lambda length, start: body[start : start + length]


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        value, out = value >> 7, out + bytes([value & 127 | 128])
    return out + bytes([value])


def i32(step: int, value: int) -> bytes:
    """A field of a Thrift structure, `step` ids after the one before."""
    return bytes([step << 4 | 5]) + varint(value << 1)


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}], ids=str)
def test_footers_and_pages_say_what_arrow_says(options):
    body = written(**options)
    metadata = pq.read_metadata(io.BytesIO(body))
    groups = read_footer(at(body), len(body), len(body))
    assert [group.rows for group in groups] == [3, 1]
    for number, group in enumerate(groups):
        for column, chunk in enumerate(group.chunks):
            arrow = metadata.row_group(number).column(column)
            assert (chunk.path, chunk.values, chunk.unpacked, chunk.stored) == (
                arrow.path_in_schema, arrow.num_values, arrow.total_uncompressed_size, arrow.total_compressed_size,
            )  # fmt: skip
            offsets = arrow.data_page_offset, arrow.dictionary_page_offset
            assert (chunk.data_at, chunk.dictionary_at or None) == offsets
            start, pages = chunk.start, []
            while start < chunk.start + chunk.stored:
                pages.append(read_page(at(body), start))
                start += pages[-1].length + pages[-1].stored
            assert sum(page.values for page in pages) == chunk.values
            assert sum(page.unpacked + page.length for page in pages) == chunk.unpacked
            assert any(page.kind == DICTIONARY_PAGE for page in pages) == (chunk.dictionary_at > 0)


def test_a_header_that_quotes_a_large_text_is_read():
    body = i32(1, 0) + i32(1, 9) + i32(1, 5) + b"\x18" + varint(2**20) + bytes(2**20) + b"\0"
    page = read_page(at(body), 0)
    assert (page.kind, page.unpacked, page.stored, page.values, page.length) == (0, 9, 5, 0, len(body))


HEADERS = {
    "nothing": b"",
    "no end": i32(1, 0) + i32(1, 10),
    "no sizes": i32(1, 0) + b"\0",
    "a negative size": i32(1, 0) + b"\x15\x03" + i32(1, 5) + b"\0",
    "a number without an end": b"\x15" + b"\xff" * 20,
    "a text without an end": b"\x18\xff\xff\xff\xff\x07",
    "a text in place of a size": i32(1, 0) + b"\x18\x01a" + i32(1, 5) + b"\0",
    "a number in place of a structure": i32(1, 0) + i32(1, 5) + i32(1, 5) + i32(2, 1) + b"\0",
    "structures in structures": b"\x1c" * 100,
    "lists without an end": b"\x19\xf5\xff\xff\xff\x7f",
    "lists in lists": b"\x19" * 100_000,
    "lists in lists that are passed over": b"\xf9" + b"\x19" * 100_000,
    "unknown kinds": b"\x1f\x00",
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_of_pages_that_are_damaged_are_errors(case):
    with pytest.raises(ValueError, match=DAMAGED):
        read_page(at(HEADERS[case]), 0)


def footer_alone(footer: bytes) -> bytes:
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


FOOTERS = {
    "nothing": (b"", "truncated"),
    "too short": (b"PAR1", "truncated"),
    "longer than the file": (b"PAR1" + b"\xff\xff\0\0PAR1", "truncated"),
    "no fields": (footer_alone(b"\0"), DAMAGED),
    "groups are numbers": (footer_alone(b"\x36\x02" + b"\x19\x35\x02\x02\x02" + b"\0"), DAMAGED),
    "rows without a group": (footer_alone(b"\x36\x14" + b"\x19\x0c" + b"\0"), "states 10 rows, and its row groups 0"),
    "larger than the limit": (footer_alone(bytes(2000)), "its footer has 2,000 bytes; no more than 1,000 are read"),
}


@pytest.mark.parametrize("case", FOOTERS)
def test_footers_that_are_damaged_are_errors(case):
    body, message = FOOTERS[case]
    with pytest.raises(ValueError, match=message):
        read_footer(at(body), len(body), 1000)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_an_error(body):
    try:
        page = read_page(at(body), 0)
    except ValueError:
        return
    assert 0 < page.length <= len(body)


@settings(max_examples=300, deadline=None)
@given(position=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_bit_flipped_in_a_footer_is_an_error_or_another_footer(position, bit):
    body = bytearray(written())
    body[int(position * (len(body) - 1))] ^= 1 << bit
    try:
        groups = read_footer(at(bytes(body)), len(body), len(body))
    except ValueError:
        return
    assert all(chunk.values >= 0 for group in groups for chunk in group.chunks)
