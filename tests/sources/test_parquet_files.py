"""Parquet of strangers: footers, pages and values that lie, explode or are damaged fail in bounded memory."""

import json
import os
import struct
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.sources import parquet_files
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import ImageRef, SourceError
from synthfer.sources.parquet import Config, find
from synthfer.sources.parquet_files import ERRORS, LIST_ROWS, Column, open_parquet
from tests.sources.images import png
from tests.special_files import SPECIAL_FILES

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
WORDS = ["sad", "happy", "fear", "anger"]


def write(path, table, **options):
    pq.write_table(table, path, **options)
    return path


def faces(count=4, **columns):
    return pa.table({"image": [png(i) for i in range(count)], "label": (WORDS * count)[:count], **columns})


def pages(monkeypatch, limit):
    monkeypatch.setattr(parquet_files, "MAX_PAGE_BYTES", limit)


def varint(number):
    out = b""
    while number >= 128:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def i32(step, value):
    return bytes([step << 4 | 5]) + varint(value << 1)


def footer(schema, rows):
    """A file of a footer alone: version, schema elements, rows, no row groups."""
    head = bytes([len(schema) << 4 | 12]) if len(schema) < 15 else b"\xfc" + varint(len(schema))
    body = i32(1, 2) + b"\x19" + head + b"".join(schema) + b"\x16" + varint(rows << 1) + b"\x19\x0c\x00"
    return b"PAR1" + body + struct.pack("<I", len(body)) + b"PAR1"


GROUP = b"\x35\x02\x18\x01a\x15\x02\x00"
LEAF = b"\x15\x02\x25\x02\x18\x01a\x00"

FILES = {
    "nothing": b"",
    "magic alone": b"PAR1PAR1",
    "a footer longer than the file": b"PAR1" + struct.pack("<I", 10**6) + b"PAR1",
    "a footer of 4 GB": b"PAR1" + b"\xff" * 4 + b"PAR1",
    "a footer of zeros": b"PAR1" + bytes(100) + struct.pack("<I", 100) + b"PAR1",
    "a footer of ones": b"PAR1" + b"\xff" * 100 + struct.pack("<I", 100) + b"PAR1",
    "a list of 2^31 elements": b"PAR1\x15\x04\x19\xfc\xff\xff\xff\xff\x07" + struct.pack("<I", 9) + b"PAR1",
    "a text of 2^31 bytes": b"PAR1\x15\x04\x19\x1c\x48\xff\xff\xff\xff\x07" + struct.pack("<I", 10) + b"PAR1",
    "columns 500 deep": footer([GROUP] * 500 + [LEAF], 0),
    "columns 10,000 deep": footer([GROUP] * 10_000 + [LEAF], 0),
    "10^9 rows and no group": footer([GROUP, LEAF], 10**9),
    "10^15 rows and no group": footer([GROUP, LEAF], 10**15),
    "Arrow's other format": b"ARROW1\0\0" + bytes(100),
    "a table of text": b"image,label\n",
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.timeout(20)
def test_a_hostile_footer_is_one_failed_row_and_the_other_files_are_read(tmp_path, case):
    write(tmp_path / "a.parquet", faces(2))
    (tmp_path / "b.parquet").write_bytes(FILES[case])
    tracemalloc.start()
    entries = list(find(tmp_path, Config()).entries)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 2**20
    assert [entry.key for entry in entries] == ["a.parquet#0", "a.parquet#1", "b.parquet"]
    assert entries[2].reason.startswith("b.parquet cannot be read: ") and str(tmp_path) not in entries[2].reason
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(SourceError, match="1 are there, and none can be read"):
        find(tmp_path, Config())


def test_a_footer_that_is_too_large_is_not_read(tmp_path):
    size = 100 * 2**20
    with (tmp_path / "x.parquet").open("wb") as file:  # a sparse file
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<I", size) + b"PAR1")
    with pytest.raises(ValueError, match="its footer has 104,857,600 bytes; no more than 8,388,608 are read"):
        open_parquet(tmp_path / "x.parquet")


def read_all(path):
    """All pictures of a file, or the reasons why they cannot be read."""
    results, reader = [], CollectionReader(path.parent)
    for entry in find(path, Config()).entries:
        try:
            results.append(reader.read(entry.image) if entry.image else entry.reason)
        except (ValueError, OSError) as error:
            results.append(str(error))
    return results


IMAGES = {
    "nulls": pa.array([None, png(1)], pa.binary()),
    "null structs": pa.array([None, {"bytes": png(1), "path": "a"}], STRUCT),
    "structs of nulls": pa.array([{"bytes": None, "path": "a"}, {"bytes": png(1), "path": None}], STRUCT),
    "empty pictures": pa.array([b"", png(1)], pa.binary()),
    "large binary": pa.array([b"x", png(1)], pa.large_binary()),
    "views": pa.array([b"x", png(1)], pa.binary_view()),
    "fixed width": pa.array([png(1)[:50]] * 2, pa.binary(50)),
    "text": pa.array(["a", "b"]),
    "numbers": pa.array([1, 2]),
    "lists of pictures": pa.array([[png(1)], []], pa.list_(pa.binary())),
    "maps": pa.array([[("bytes", png(1))], []], pa.map_(pa.string(), pa.binary())),
    "structs of other fields": pa.array([{"a": 1}, {"a": 2}]),
    "structs of structs": pa.array([{"bytes": {"bytes": png(1)}}] * 2),
    "structs whose bytes are numbers": pa.array([{"bytes": 1}, {"bytes": 2}]),
    "dictionary": pa.array([png(1), png(1)]).dictionary_encode(),
    "dates": pa.array([0, 1], pa.date32()),
}


@pytest.mark.parametrize("case", IMAGES)
def test_columns_of_other_types_are_refused_or_fail_by_row(tmp_path, case):
    path = write(tmp_path / "x.parquet", pa.table({"image": IMAGES[case], "label": ["sad", "happy"]}))
    try:
        results = read_all(path)
    except SourceError as error:
        assert "which column holds the images" in str(error)
        return
    assert len(results) == 2
    for result in results:
        assert isinstance(result, bytes) or "x.parquet" in result


LABELS = {
    "text of 1 MB": pa.array(["x" * 2**20] * 2),
    "text of 1 MB, the same in 10,000 rows": pa.array(["x" * 2**20]).dictionary_encode().take(pa.array([0] * 2)),
    "numbers": pa.array([1, 2]),
    "numbers beyond 64 bits": pa.array([2**64 - 1, 0], pa.uint64()),
    "floats": pa.array([1.5, float("nan")]),
    "lists": pa.array([["sad"], []]),
    "booleans": pa.array([True, False]),
    "dates beyond the calendar": pa.array([10**17, 0], pa.timestamp("us")),
    "nothing": pa.nulls(2),
    "nothing but nulls": pa.array([None, None], pa.string()),
    "control characters": pa.array(["\0\x1b[31m", "\u202esad"]),
}


@pytest.mark.parametrize("case", LABELS)
@pytest.mark.parametrize("column", ["label", "split", "source_id"])
def test_values_of_other_kinds_are_refused_or_fail_by_row(tmp_path, column, case):
    columns = {"image": [png(0), png(1)], column: LABELS[case]}
    path = write(tmp_path / "x.parquet", pa.table(columns))
    try:
        entries = list(find(path, Config()).entries)
    except SourceError as error:
        assert f"column {column!r}" in str(error) and len(str(error)) < 1000
        return
    assert len(entries) == 2
    assert all(len(entry.reason or "") < 1000 for entry in entries)


METADATA = {
    "no JSON": "{oops",
    "a list": "[]",
    "a text": '"info"',
    "null": "null",
    "deep": '{"info": ' * 100_000,
    "deep features": '{"info": {"features": ' + "[" * 5000 + "]" * 5000 + "}}",
    "features as a list": '{"info": {"features": [1]}}',
    "a feature that is no map": '{"info": {"features": {"image": 7, "label": []}}}',
    "names that are a text": '{"info": {"features": {"label": {"_type": "ClassLabel", "names": "sad"}}}}',
    "names that are a map": '{"info": {"features": {"label": {"_type": "ClassLabel", "names": {"sad": 1}}}}}',
    "names of other types": '{"info": {"features": {"label": {"_type": "ClassLabel", "names": [null, {}, [1]]}}}}',
    "a type that is a list": '{"info": {"features": {"label": {"_type": ["ClassLabel"], "names": ["sad"]}}}}',
    "half a surrogate": '{"info": {"features": {"label": {"_type": "ClassLabel", "names": ["\\ud800"]}}}}',
    "digits": '{"info": {"features": {"label": {"num": ' + "9" * 5000 + "}}}}",
    "keys twice": '{"info": {"features": {}, "features": {}}}',
}


@pytest.mark.parametrize("case", METADATA)
def test_metadata_of_other_shapes_is_passed_over(tmp_path, case):
    table = faces(2).replace_schema_metadata({"huggingface": METADATA[case]})
    path = write(tmp_path / "x.parquet", table)
    assert [entry.label for entry in find(path, Config()).entries] == [5, 3]


def test_names_of_classes_that_are_no_words_are_refused(tmp_path):
    names = {"info": {"features": {"label": {"_type": "ClassLabel", "names": [None, {"a": 1}, [1]]}}}}
    table = pa.table({"image": [png(0), png(1)], "label": [0, 1]})
    path = write(tmp_path / "x.parquet", table.replace_schema_metadata({"huggingface": json.dumps(names)}))
    with pytest.raises(SourceError, match="no class of column 'label' is an expression"):
        find(path, Config())


# -- pages


def test_a_page_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    pages(monkeypatch, 2**20)
    bomb = pa.table({"image": [bytes(2**22), png(1)], "label": ["sad", "happy"]})
    path = write(tmp_path / "x.parquet", bomb, compression="zstd", use_dictionary=False, row_group_size=1)
    assert path.stat().st_size < 2**16
    results = read_all(path)
    assert "row group 0 cannot be read: a page of column image unpacks to 4,194,314 bytes, over 1 MiB" in results[0]
    assert results[1] == png(1)


def test_a_dictionary_that_stands_for_gigabytes_is_read_in_few_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_files, "_BATCH_BYTES", 2**22)
    value = pa.array([bytes(2**20)]).dictionary_encode().take(pa.array([0] * 1000))
    table = pa.table({"image": value})
    path = write(tmp_path / "y.parquet", table, store_schema=False, dictionary_pagesize_limit=2**22)
    with open_parquet(path) as parquet:
        sizes = {batch.num_rows for batch in parquet.batches(0, ["image"], LIST_ROWS)}
    assert sizes <= {1, 2, 3, 4}


def test_columns_are_read_a_few_rows_at_a_time_and_in_any_order(tmp_path):
    bodies = [os.urandom(1000) + bytes([i]) for i in range(200)]
    path = write(tmp_path / "x.parquet", pa.table({"image": bodies}), row_group_size=150)
    with open_parquet(path) as parquet:
        column = Column(parquet, 0, "image")
        for row in (0, 17, 149, 3, 3, 148, 0):
            assert column[row] == bodies[row]
        assert len(column._column) <= 16
        with pytest.raises(ValueError, match="it has no row 150"):
            column[150]
        with pytest.raises(ValueError, match="it has no row 150"):
            column[170]
        assert column[149] == bodies[149]


def test_a_list_of_very_many_numbers_is_not_made_into_objects(tmp_path):
    votes = pa.array([[1] * 100_000, [1]])
    path = write(tmp_path / "x.parquet", pa.table({"image": [png(0), png(1)], "label": ["sad", "sad"], "votes": votes}))
    with open_parquet(path) as parquet, pytest.raises(ValueError, match=r"votes\.list\.element claims 100,001 values"):
        list(parquet.batches(0, ["votes"], LIST_ROWS))


def test_a_group_that_claims_more_rows_than_bytes_is_refused(tmp_path):
    path = write(tmp_path / "x.parquet", pa.table({"label": pa.nulls(100_000, pa.string())}))
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match="its footer states more rows than can be in it: at most"):
        open_parquet(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    rows = [{"bytes": png(i), "path": f"{i}.png"} for i in range(4)]
    table = pa.table({"image": pa.array(rows, STRUCT), "label": WORDS})
    return write(path, table, row_group_size=2, compression="zstd").read_bytes()


@settings(derandomize=False, deadline=None, max_examples=200)
@given(data=st.data())
def test_a_damaged_file_is_read_or_its_rows_fail(tmp_path_factory, whole, data):
    body = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    path.write_bytes(body)
    try:
        results = read_all(path)
    except SourceError:
        return
    assert all(isinstance(result, bytes) or result for result in results)


def test_rows_before_the_damage_are_read_and_the_others_give_one_reason(tmp_path):
    bodies = [os.urandom(3000) for _ in range(64)]
    table = pa.table({"image": bodies})
    options = {
        "compression": "none",
        "use_dictionary": False,
        "data_page_size": 1,
        "write_batch_size": 16,
        "write_statistics": False,
    }
    path = write(tmp_path / "x.parquet", table, **options)
    body = bytearray(path.read_bytes())
    at = body.index(bodies[40]) - 4
    body[at : at + 4] = b"\xff\xff\xff\x7f"  # the length of the value
    path.write_bytes(body)
    results = read_all(path)
    assert results[:32] == bodies[:32]
    reasons = {result for result in results[40:] if not isinstance(result, bytes)}
    assert len(reasons) == 1
    assert CollectionReader(tmp_path).read(ImageRef("parquet", "x.parquet", 0, 3, "image")) == bodies[3]


@pytest.mark.parametrize("case", SPECIAL_FILES)
@pytest.mark.timeout(20)
def test_what_is_no_file_is_not_opened(tmp_path, case):
    SPECIAL_FILES[case](tmp_path / "b.parquet")
    write(tmp_path / "a.parquet", faces(1))
    entries = list(find(tmp_path, Config()).entries)
    assert entries[0].key == "a.parquet#0"
    assert all("b.parquet" in entry.reason and str(tmp_path) not in entry.reason for entry in entries[1:])
    with pytest.raises((ValueError, OSError), match=r"b\.parquet"):
        CollectionReader(tmp_path).read(ImageRef("parquet", "b.parquet", 0, 0, "image"))


def test_errors_are_those_that_are_listed():
    assert all(issubclass(kind, ERRORS) for kind in (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError))
