"""Lists of strangers: lines without an end, fields that are none, names that lead elsewhere are failed rows."""

import csv
import json
import os
import re
import struct
import subprocess
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.sources import affectnet, ckplus, dcface, emonet, expw, fer2013, ferplus, ffhq, folder, rafdb, tables
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import Entry, SourceError
from synthfer.sources.index import Index
from synthfer.sources.tables import MAX_LINE, csv_lines, pixel_rows, split_lines
from tests.sources.images import cell, png, save
from tests.special_files import SPECIAL_FILES

READERS = {"words": split_lines, "CSV": csv_lines, "pixels": pixel_rows}
HEADER = "emotion,pixels,Usage\n"


def entries_of(source, path, **options):
    """All entries, which must be fit for an index."""
    entries = list(source.find(path, source.Config(**options)).entries)
    Index.from_entries(entries)
    return entries


def sparse(path, size, start=b"", end=b""):
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
        file.seek(size)
        file.write(end)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.timeout(30)
def test_a_line_without_an_end_is_one_error_and_the_next_line_is_read(tmp_path, reader):
    # 100 MB without a line break, of which the disk holds nothing
    sparse(tmp_path / "x", 100 * 2**20, HEADER.encode(), b"\n" + f"0,{cell(1)},Training\n".encode())
    tracemalloc.start()
    lines = list(READERS[reader](tmp_path / "x"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * 2**20
    number, error = lines[-2]
    assert number == 2 and str(error) == f"is longer than {MAX_LINE:,} characters"
    assert lines[-1][0] == 3 and not isinstance(lines[-1][1], ValueError)


@pytest.mark.parametrize("reader", READERS)
def test_more_lines_than_any_list_has_are_refused(tmp_path, monkeypatch, reader):
    monkeypatch.setattr(tables, "MAX_LINES", 100)
    (tmp_path / "x").write_text(HEADER + "\n" * 200)
    with pytest.raises(SourceError, match=f"{tmp_path}/x has more than 100 lines"):
        list(READERS[reader](tmp_path / "x"))


HEADERS = {
    "a header of 900,000 characters": (
        b",".join(b"c%d" % i for i in range(130_000)),
        r"It has: c0, c1, c2, c3, c4, \.\.\.$",
    ),
    "a name of 100,000 characters": (b"c" * 100_000, r"It has: c{200}\.\.\.$"),
    "nothing": (b"", "It has: nothing$"),
    "UTF-16": (HEADER.encode("utf-16"), "looks like UTF-16, .*: save it as UTF-8$"),
    "UTF-16 without a mark": (HEADER.encode("utf-16-be"), "looks like UTF-16, .*: save it as UTF-8$"),
    "one NUL": (b"emo\0tion,pixels,Usage", r"It has: 'emo\\x00tion', pixels, Usage$"),
}


@pytest.mark.parametrize("source", ["fer2013", "ferplus"])
@pytest.mark.parametrize("case", HEADERS)
def test_a_header_without_the_columns_is_told_in_short(tmp_path, source, case):
    header, says = HEADERS[case]
    (tmp_path / "fer2013.csv").write_bytes(HEADER.encode() if source == "ferplus" else header + b"\n")
    (tmp_path / "fer2013new.csv").write_bytes(header + b"\n")
    with pytest.raises(SourceError, match=says) as caught:
        entries_of({"fer2013": fer2013, "ferplus": ferplus}[source], tmp_path)
    assert len(str(caught.value)) < 800


def test_a_list_without_a_header_is_not_read_as_utf_16(tmp_path):
    (tmp_path / "training.csv").write_bytes((",".join(GOOD["affectnet"]) + "\n").encode("utf-16"))
    with pytest.raises(SourceError, match="looks like UTF-16"):
        entries_of(affectnet, tmp_path)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_end_as_they_always_did(tmp_path, ending):
    (tmp_path / "x").write_bytes(f"a b{ending}c d{ending}".encode())
    assert list(split_lines(tmp_path / "x")) == [(1, ["a", "b"]), (2, ["c", "d"])]


@pytest.mark.parametrize("reader", READERS)
@settings(derandomize=False, deadline=None, max_examples=80)
@given(body=st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_lines_or_errors(tmp_path_factory, reader, body):
    path = tmp_path_factory.mktemp("list") / "x"
    path.write_bytes(HEADER.encode() + body)
    numbers = [number for number, _ in READERS[reader](path)]
    assert numbers == sorted(numbers)


FIELDS = {
    "nothing": "",
    "no number": "x",
    "negative": "-1",
    "a fraction": "0.5",
    "NaN": "nan",
    "infinity": "inf",
    "10^30": "1e30",
    "30 digits": "9" * 30,
    "5,000 digits": "9" * 5000,
    "100,000 letters": "x" * 100_000,
    "NUL": "\0",
    "control characters": "\x1b[31m\x07",
    "right to left": "\u202e0",
    "half of UTF-8": "\udcff",
    "other digits": "١",
    "a quote": '"',
    "markup": "<script>alert(1)</script>",
    "a formula": "=cmd|'/c calc'!A1",
    "a path": "../../etc/passwd",
    "an interpolation": "${oc.env:HOME}",
}
GOOD = {
    "fer2013": ["0", cell(0), "Training"],
    "ckplus": ["0", cell(0), "Training"],
    "expw": ["a.jpg", "0", "1", "1", "9", "9", "80.5", "3"],
    "rafdb": ["train_00001.jpg", "5"],
    "affectnet": ["1/a.jpg", "0", "0", "9", "9", "1;2", "3", "0.5", "0.5"],
    "ferplus": ["Training", "fer0000000.png", *"3200000000", *"5"][:12],
    "dcface": ["0", "0/a.jpg"],
}


def lay_out(root, name, rows):
    """A collection whose list has these rows, and its source."""
    if name in ("fer2013", "ckplus"):
        file = root / ("fer2013.csv" if name == "fer2013" else "ckextended.csv")
        body, source = (
            HEADER + "".join(",".join(row) + "\n" for row in rows),
            {"fer2013": fer2013, "ckplus": ckplus}[name],
        )
    elif name == "expw":
        (root / "image" / "origin").mkdir(parents=True)
        file, source, body = root / "label.lst", expw, "".join(" ".join(row) + "\n" for row in rows)
    elif name == "rafdb":
        (root / "Image" / "aligned").mkdir(parents=True)
        (root / "EmoLabel").mkdir()
        file, source = root / rafdb.LIST, rafdb
        body = "".join(" ".join(row) + "\n" for row in rows)
    elif name == "affectnet":
        file, source = root / "training.csv", affectnet
        body = ",".join(affectnet.COLUMNS) + "\n" + "".join(",".join(row) + "\n" for row in rows)
    elif name == "ferplus":
        (root / "fer2013.csv").write_text(HEADER + ",".join(GOOD["fer2013"]) + "\n" + ",".join(GOOD["fer2013"]) + "\n")
        file, source = root / "fer2013new.csv", ferplus
        body = ",".join(["Usage", "Image name", *ferplus.VOTES]) + "\n" + "".join(",".join(row) + "\n" for row in rows)
    else:
        record = struct.pack("<IfQQ", 0, 0, 0, 0) + png(0)
        stored = dcface.MAGIC + struct.pack("<I", len(record)) + record + bytes(-len(record) % 4)
        (root / "file.rec").write_bytes(stored * 2)
        (root / "file.idx").write_text(f"0\t0\n1\t{len(stored)}\n")
        file, source, body = root / "list.txt", dcface, "".join("\t".join(row) + "\n" for row in rows)
    file.write_bytes(body.encode(errors="surrogateescape"))
    return source


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.timeout(120)
def test_fields_of_every_list_may_hold_anything(tmp_path, name):
    """Each field of each list with each hostile value (1,000 files in all): a row, or a failed one, never an error."""
    for at in range(len(GOOD[name])):
        for case, text in FIELDS.items():
            bad = [text if i == at else word for i, word in enumerate(GOOD[name])]
            root = tmp_path / f"{at}-{case.replace(' ', '')[:9]}"
            root.mkdir()
            source = lay_out(root, name, [bad, GOOD[name]])
            entries = entries_of(source, root)
            assert entries, (at, case)
            reader = CollectionReader(root)
            for entry in entries:
                assert len(entry.reason or "") < 1000 and str(root) not in (entry.reason or ""), (at, case)
                if entry.box is not None:
                    assert all(abs(edge) <= 1e6 for edge in entry.box)
                if entry.image is not None:
                    try:
                        reader.read(entry.image)
                    except (ValueError, OSError) as error:
                        assert len(str(error)) < 5000, (at, case)


@pytest.mark.parametrize(
    "votes", [["x"] * 10, ["-1"] * 10, ["0"] * 10, ["1e3"] * 10, ["9" * 30] * 10, [""] * 10, ["1"] * 9]
)
def test_votes_that_are_none_fail_their_row(tmp_path, votes):
    good = ["Training", "fer0000001.png", *"3200000005"]
    source = lay_out(tmp_path, "ferplus", [["Training", "fer0000000.png", *votes], good])
    entries = entries_of(source, tmp_path)
    assert [entry.image is None for entry in entries] == [True, False]
    assert entries[0].reason.startswith("fer2013new.csv line 2: ")


VALUES = {
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
    "an object array": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "10^9 numbers": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000,), }",
    "10^18 numbers": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (10**18,), }",
    "a text of 4 GB": b"\x93NUMPY\x01\x00v\x00{'descr': '<U1000000000', 'fortran_order': False, 'shape': (), }",
    "a header that is code": b"\x93NUMPY\x01\x00v\x00__import__('os').system('true')",
    "a deep header": b"\x93NUMPY\x01\x00\x00\x0f" + b"[" * 3840,
    "nothing": b"",
    "another version": b"\x93NUMPY\x09\x00v\x00{}",
}


@pytest.mark.parametrize("case", VALUES)
def test_values_of_affectnet_that_are_no_values_fail_their_face(tmp_path, case):
    folder_ = tmp_path / "train_set" / "annotations"
    folder_.mkdir(parents=True)
    body = VALUES[case]
    (folder_ / "1_exp.npy").write_bytes(
        body + b" " * max(0, 127 - len(body)) + b"\n" if body[:6] == b"\x93NUMPY" else body
    )
    np.save(folder_ / "2_exp.npy", "3")
    tracemalloc.start()
    entries = entries_of(affectnet, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20
    assert [(entry.key, entry.image is None) for entry in entries] == [("1", True), ("2", False)]
    assert entries[0].reason.startswith("train_set/annotations/1_exp.npy cannot be read")


# -- RecordIO


def records(root, index, body=b""):
    record = struct.pack("<IfQQ", 0, 0, 0, 0) + png(0)
    stored = dcface.MAGIC + struct.pack("<I", len(record)) + record + bytes(-len(record) % 4)
    (root / "file.rec").write_bytes(stored + body)
    (root / "file.idx").write_bytes(index.replace(b"END", str(len(stored)).encode()))
    return entries_of(dcface, root)


INDEXES = {
    "no numbers": (b"a\tb\n", "is not as published"),
    "negative": (b"1\t-5\n", "is not as published"),
    "10^18": (b"1\t999999999999999999\n", "the file ends before byte"),
    "10^30": (b"1\t" + b"9" * 30 + b"\n", "is not as published"),
    "5,000 digits": (b"1\t" + b"9" * 5000 + b"\n", "is not as published"),
    "bytes": (bytes(range(1, 255)) + b"\n", "is not as published"),
    "a line of 2 MiB": (b"1" * 2**21 + b"\n", "is not as published"),
    "the same offset": (b"1\t0\n", "its offset was there before"),
    "inside a record": (b"1\t8\n", "do not fit together"),
    "the end": (b"1\tEND\n", "the file ends before byte"),
    "commas": (b"1,0\n", "is not as published"),
    "three words": (b"1\t0\t0\n", "is not as published"),
}


@pytest.mark.parametrize("case", INDEXES)
def test_a_hostile_index_of_records_fails_line_by_line(tmp_path, case):
    line, says = INDEXES[case]
    entries = records(tmp_path, b"0\t0\n" + line)
    assert [entry.image is None for entry in entries if entry.key == "0"] == [False]
    assert any(entry.image is None and re.search(says, entry.reason) for entry in entries)


def test_very_many_entries_at_one_offset_are_read_once(tmp_path):
    entries = records(tmp_path, b"".join(b"%d\t0\n" % i for i in range(20_000)))
    assert sum(entry.image is not None for entry in entries) == 1
    assert len(entries) == 20_000


def test_records_within_one_another_are_not_read_again_and_again(tmp_path):
    inner = b"".join(dcface.MAGIC + struct.pack("<I", 4000) + bytes(24) for _ in range(1000)) + bytes(4000)
    index = b"0\t0\n"
    start = len(struct.pack("<IfQQ", 0, 0, 0, 0) + png(0)) + 8
    start += -start % 4
    index += b"".join(b"%d\t%d\n" % (i + 1, start + 32 * i) for i in range(1000))
    entries = records(tmp_path, index, inner)
    assert entries[0].image is not None
    assert "the records before it overlap" in entries[-1].reason
    assert sum(entry.image is not None for entry in entries) < 40


def test_a_record_of_very_many_parts_is_refused(tmp_path):
    parts = dcface.MAGIC + struct.pack("<I", 1 << 29) + (dcface.MAGIC + struct.pack("<I", 2 << 29)) * 5000
    entries = records(tmp_path, b"0\t0\n1\tEND\n", parts)
    assert "it has more than 1,000 parts" in entries[1].reason


# -- folders


def test_folders_that_are_very_deep_are_named(tmp_path):
    top = tmp_path / "sad"
    top.mkdir()
    save(top / "a.png")
    here = os.open(top, os.O_RDONLY)
    try:
        for _ in range(1500):  # deeper than a path can say
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
    finally:
        os.close(here)
    with pytest.raises(SourceError, match=r"sad has folders more than 100 deep \(d/d/d.*\): move them away"):
        entries_of(folder, tmp_path)
    subprocess.run(["rm", "-rf", str(top)], check=True)  # shutil cannot remove it


def test_things_that_are_no_pictures_are_rows_or_notes_and_never_opened(tmp_path):
    top = tmp_path / "sad"
    save(top / "a.png")
    (top / "empty.png").write_bytes(b"")
    os.mkfifo(top / "pipe.png")
    (top / "zero.png").symlink_to("/dev/zero")
    (top / "loop.png").symlink_to("loop.png")
    (top / "folder.png").mkdir()
    (top / "up").symlink_to(tmp_path)
    (top / os.fsdecode(b"\xff.png")).write_bytes(png(1))
    found = folder.find(tmp_path, folder.Config())
    entries, reader = list(found.entries), CollectionReader(tmp_path)
    Index.from_entries(entries)
    says = {"pipe": "is a named pipe", "zero": "is a device", "loop": "leads back to itself"}
    for entry in entries:
        word = next((word for word in says if word in entry.key), None)
        if word:
            with pytest.raises(ValueError, match=f"^sad/{word}.png .*{says[word]}"):
                reader.read(entry.image)
    assert {entry.key for entry in entries if entry.image} == {
        f"sad/{name}.png" for name in ("a", "empty", "pipe", "zero", "loop")
    }
    assert "sad/up" in found.notes[0]


LISTS = {
    fer2013: "fer2013.csv",
    ckplus: "ckextended.csv",
    ferplus: "fer2013new.csv",
    affectnet: "training.csv",
    expw: "label.lst",
    rafdb: rafdb.LIST,
    dcface: "file.rec",
    ffhq: ffhq.LIST,
    emonet: "x.parquet",
}


@pytest.mark.parametrize("source", LISTS, ids=lambda source: source.__name__.rpartition(".")[2])
@pytest.mark.parametrize("kind", SPECIAL_FILES)
@pytest.mark.timeout(20)
def test_a_list_that_is_no_file_is_never_opened(tmp_path, source, kind):
    file = tmp_path / LISTS[source]
    file.parent.mkdir(parents=True, exist_ok=True)
    SPECIAL_FILES[kind](file)
    with pytest.raises(SourceError, match=str(tmp_path)):
        entries_of(source, tmp_path)


@pytest.mark.parametrize("kind", [kind for kind in SPECIAL_FILES if kind != "a folder"])
@pytest.mark.parametrize("source", LISTS, ids=lambda source: source.__name__.rpartition(".")[2])
@pytest.mark.timeout(20)
def test_a_path_that_is_no_file_is_never_opened(tmp_path, source, kind):
    file = tmp_path / "x.csv"
    SPECIAL_FILES[kind](file)
    with pytest.raises(SourceError, match=f"^path: {file} "):
        entries_of(source, file)


# -- FFHQ

GOOD_RECORD = {"category": "training", "metadata": {"license": "CC0", "author": "x"}, "image": {"file_size": 5}}
RECORDS = {
    "null": None,
    "a list": [],
    "a number": 1e300,
    "no keys": {},
    "a category of another type": {**GOOD_RECORD, "category": {"training": 1}},
    "a size of another type": {**GOOD_RECORD, "image": {"file_size": [5]}},
    "a size as text": {**GOOD_RECORD, "image": {"file_size": "5"}},
    "an image of another type": {**GOOD_RECORD, "image": 7},
    "metadata of another type": {**GOOD_RECORD, "metadata": [7]},
    "an author of 100 KB": {**GOOD_RECORD, "metadata": {"author": "x" * 100_000, "license": {"a": "b" * 1000}}},
    "half a surrogate": {**GOOD_RECORD, "category": "\ud800"},
}


def ffhq_list(root, text):
    save(root / "images1024x1024" / "00000" / "00000.png")
    (root / ffhq.LIST).write_text(text)
    return entries_of(ffhq, root)


@pytest.mark.parametrize("case", RECORDS)
def test_records_of_other_types_fail_alone(tmp_path, case):
    entries = ffhq_list(tmp_path, json.dumps({"1": RECORDS[case], "0": GOOD_RECORD}))
    assert [entry.key for entry in entries if entry.image][-1] == "00000"
    assert len(entries) == 2 and all(len(entry.reason or "") < 600 for entry in entries)


TEXTS = {
    "cut off": '{"0": {"category"',
    "deep": '{"0": ' + "[" * 100_000,
    "a record of 2 MiB": '{"0": "' + "x" * 2**21 + '"}',
    "5,000 digits": '{"0": ' + "9" * 5000 + "}",
    "NaN": '{"0": NaN}',
    "a record twice": '{"0": {}, "0": {}}',
    "a key twice in a record": '{"0": {"a": 1, "a": 2}}',
    "a key that is no text": "{0: {}}",
    "no comma": '{"0": {} "1": {}}',
    "a comma too many": '{"0": {},}',
    "something after it": '{"0": {}} x',
    "a text": '"0"',
    "nothing": "",
}


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.timeout(20)
def test_a_list_of_records_that_is_none_is_refused(tmp_path, case):
    with pytest.raises(SourceError, match=rf"{ffhq.LIST}.* download {ffhq.LIST} again, or move it away"):
        ffhq_list(tmp_path, TEXTS[case])


def test_a_list_of_many_records_is_read_in_little_memory(tmp_path):
    record = {**GOOD_RECORD, "in_the_wild": {"face_landmarks": [[1.5, 2.5]] * 200}}
    text = json.dumps(record)
    (tmp_path / ffhq.LIST).write_text("{" + ",".join(f'"{i}": {text}' for i in range(1000)) + "}")
    save(tmp_path / "images1024x1024" / "00000" / "00000.png")
    assert (tmp_path / ffhq.LIST).stat().st_size > 2 * 10**6
    tracemalloc.start()
    entries = list(ffhq.find(tmp_path, ffhq.Config()).entries)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(entries) == 1000 and peak < 24 * 2**20


def test_texts_and_boxes_of_an_entry_are_bounded():
    with pytest.raises(ValueError, match="a text of more than 4,096 characters"):
        Entry(key="x" * 5000, reason="y")
    for edge in (float("nan"), float("inf"), 1e30):
        with pytest.raises(ValueError, match="a box that no picture has"):
            Entry(key="x", reason="y", box=(0, 0, 1, edge))


def test_the_limit_of_cells_is_that_of_python(tmp_path):
    (tmp_path / "x.csv").write_text("a," + "x" * (csv.field_size_limit() + 1) + "\nb,c\n")
    (_, error), (_, cells) = csv_lines(tmp_path / "x.csv")
    assert "field larger than field limit" in str(error) and cells == ["b", "c"]
