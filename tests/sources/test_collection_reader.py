"""Reading pictures from files and archives that nobody vouches for."""

import os
import struct
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthfer.images import decode
from synthfer.sources import collection_reader, parquet_files
from synthfer.sources.collection_reader import FORMS, CollectionReader
from synthfer.sources.entry import ImageRef, SourceError
from tests.sources.images import pack, png


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret", "C:/x", "a\0b", "", "..\\secret"])
def test_no_place_leaves_the_folder(tmp_path, form, path):
    (tmp_path / "secret").write_bytes(b"0 0 0 0")
    (tmp_path / "in").mkdir()
    with pytest.raises(SourceError, match="leaves the collection"):
        CollectionReader(tmp_path / "in").read(ImageRef(form, path, 0, 7, "0"))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_missing_is_an_error_of_its_own_row(tmp_path, form):
    with pytest.raises(OSError, match="none"):
        CollectionReader(tmp_path).read(ImageRef(form, "none", 0, 4, "0"))


def test_a_file_is_read_up_to_the_limit_and_no_further(tmp_path, monkeypatch):
    monkeypatch.setattr(collection_reader, "MAX_BYTES", 1000)
    (tmp_path / "a").write_bytes(bytes(1000))
    (tmp_path / "b").write_bytes(bytes(1001))
    assert CollectionReader(tmp_path).read(ImageRef("file", "a")) == bytes(1000)
    with pytest.raises(ValueError, match="b is larger than"):
        CollectionReader(tmp_path).read(ImageRef("file", "b"))


def test_a_member_is_unpacked_up_to_the_limit_and_no_further(tmp_path, monkeypatch):
    pack(tmp_path / "x.zip", {"good": png(0), "bomb": bytes(64 * 2**20)})
    asked = []
    unpack = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: asked.append(n) or unpack(self, n))
    monkeypatch.setattr(collection_reader, "MAX_BYTES", 2**20)
    reader = CollectionReader(tmp_path)
    with pytest.raises(ValueError, match="bomb unpacks to more than 1 MiB"):
        reader.read(ImageRef("zip", "x.zip", name="bomb"))
    assert asked == [2**20 + 1]
    assert reader.read(ImageRef("zip", "x.zip", name="good")) == png(0)


def test_a_member_that_unpacks_to_more_than_it_declares_is_refused(tmp_path):
    body = bytearray(pack(tmp_path / "x.zip", {"bomb": bytes(2**20)}).read_bytes())
    for start, field in ((body.index(b"PK\x03\x04"), 22), (body.rindex(b"PK\x01\x02"), 24)):
        body[start + field : start + field + 4] = struct.pack("<I", 100)  # the unpacked size, in both headers
    (tmp_path / "x.zip").write_bytes(body)
    with pytest.raises(ValueError, match="bomb cannot be unpacked"):
        CollectionReader(tmp_path).read(ImageRef("zip", "x.zip", name="bomb"))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_python_unpacks_at_one_go_are_refused(tmp_path, compression):
    # What comes out of them cannot be limited: some kB may hold GB.
    pack(tmp_path / "x.zip", {"a.png": png(0)}, compression)
    with pytest.raises(ValueError, match="neither stored nor deflated"):
        CollectionReader(tmp_path).read(ImageRef("zip", "x.zip", name="a.png"))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damage_anywhere_in_an_archive_is_an_error_of_the_row(tmp_path, compression):
    whole = bytes(pack(tmp_path / "x.zip", {"a.png": png(0)}, compression).read_bytes())
    assert CollectionReader(tmp_path).read(ImageRef("zip", "x.zip", name="a.png")) == png(0)
    for at in range(0, len(whole), 3):
        (tmp_path / "x.zip").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            read = CollectionReader(tmp_path).read(ImageRef("zip", "x.zip", name="a.png"))
        except (ValueError, OSError):
            continue
        assert read == png(0), at  # dates and the like may be damaged without harm


def test_a_truncated_archive_is_an_error_of_the_row(tmp_path):
    whole = pack(tmp_path / "x.zip", {"a.png": png(0)}).read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "x.zip").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"x\.zip: a\.png cannot be unpacked"):
            CollectionReader(tmp_path).read(ImageRef("zip", "x.zip", name="a.png"))


def test_a_member_that_is_not_there_is_named(tmp_path):
    pack(tmp_path / "x.zip", {"a.png": png(0)})
    with pytest.raises(ValueError, match=r"x\.zip: b\.png cannot be unpacked"):
        CollectionReader(tmp_path).read(ImageRef("zip", "x.zip", name="b.png"))


def test_slices_end_inside_the_file_and_within_the_limit(tmp_path, monkeypatch):
    (tmp_path / "x.bin").write_bytes(b"0123456789")
    reader = CollectionReader(tmp_path)
    assert reader.read(ImageRef("slice", "x.bin", 2, 5)) == b"23456"
    with pytest.raises(ValueError, match="ends at byte 10, inside"):
        reader.read(ImageRef("slice", "x.bin", 8, 5))
    with pytest.raises(ValueError, match="ends at byte"):
        reader.read(ImageRef("slice", "x.bin", 80, 5))
    monkeypatch.setattr(collection_reader, "MAX_BYTES", 4)
    with pytest.raises(ValueError, match="more than 0 MiB"):
        reader.read(ImageRef("slice", "x.bin", 0, 5))


def test_a_record_is_a_slice_without_the_words_that_are_left_out(tmp_path):
    (tmp_path / "x.rec").write_bytes(b"..abcdXXXXefghXXXXYYYYij..")
    ref = ImageRef("record", "x.rec", 2, 22, "4,12,16")
    assert CollectionReader(tmp_path).read(ref) == b"abcdefghij"


def test_pixels_in_words_become_a_grey_picture(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"0,0 10 200 255,Training\n")
    pixels = CollectionReader(tmp_path).read(ImageRef("pixels", "x.csv", 2, 12))
    assert pixels.dtype == np.uint8
    assert pixels.tolist() == [[[0] * 3, [10] * 3], [[200] * 3, [255] * 3]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 2 3", "3 pixels are not a square"),
        ("", "0 pixels are not a square"),
        ("1 2 3 256", "outside 0..255: 1 to 256"),
        ("1 2 3 -1", "not whole numbers|outside 0..255"),
        ("1 2 3 x", "not whole numbers"),
        ("1 2 3 4.5", "not whole numbers"),
        ("1 2 3 99999999999999999999", "not whole numbers|outside 0..255"),
    ],
)
def test_pixels_that_are_no_picture_are_refused(tmp_path, text, says):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=says):
        CollectionReader(tmp_path).read(ImageRef("pixels", "x.csv", 0, len(text)))


def test_pictures_in_a_table_are_read_by_group_and_row(tmp_path):
    bodies = [png(i) for i in range(5)]
    pq.write_table(pa.table({"image": bodies}), tmp_path / "x.parquet", row_group_size=2)
    reader = CollectionReader(tmp_path)
    assert [reader.read(ImageRef("parquet", "x.parquet", i // 2, i % 2, "image")) for i in range(5)] == bodies


def test_a_table_that_is_damaged_is_an_error_of_the_row(tmp_path):
    pq.write_table(pa.table({"image": [png(i) for i in range(4)]}), tmp_path / "x.parquet", row_group_size=2)
    body = bytearray((tmp_path / "x.parquet").read_bytes())
    body[10:200] = bytes(190)
    (tmp_path / "x.parquet").write_bytes(body)
    reader = CollectionReader(tmp_path)
    for _ in range(2):  # also when it is asked for again
        with pytest.raises((ValueError, OSError)):
            reader.read(ImageRef("parquet", "x.parquet", 0, 0, "image"))
    (tmp_path / "y.parquet").write_bytes(body[:-20])
    with pytest.raises((ValueError, OSError)):
        reader.read(ImageRef("parquet", "y.parquet", 1, 0, "image"))


def test_the_files_kept_open_are_few_and_their_pictures_stay_right(tmp_path, monkeypatch):
    opened = []
    unpack = collection_reader.open_zip
    for i in range(20):
        pack(tmp_path / f"{i}.zip", {"a": bytes([i])})
    monkeypatch.setattr(collection_reader, "open_zip", lambda path: opened.append(path.name) or unpack(path))
    reader = CollectionReader(tmp_path)
    for i in (*range(20), 19, 18, 0, 0):
        assert reader.read(ImageRef("zip", f"{i}.zip", name="a")) == bytes([i])
    assert len(opened) == 21  # 19, 18 and the second 0 were still there
    assert len(reader._open) <= collection_reader._MAX_OPEN


def test_one_table_in_memory_serves_its_rows(tmp_path, monkeypatch):
    pq.write_table(pa.table({"image": [png(i) for i in range(6)]}), tmp_path / "x.parquet", row_group_size=3)
    reader, groups = CollectionReader(tmp_path), []
    load = reader._read_column
    monkeypatch.setattr(reader, "_read_column", lambda ref: groups.append(ref.start) or load(ref))
    for i in range(6):
        reader.read(ImageRef("parquet", "x.parquet", i // 3, i % 3, "image"))
    assert groups == [0, 1]


def test_a_row_group_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    pq.write_table(pa.table({"image": [png(0)]}), tmp_path / "x.parquet")
    monkeypatch.setattr(parquet_files, "MAX_PAGE_BYTES", 100)
    with pytest.raises(ValueError, match="smaller row groups"):
        CollectionReader(tmp_path).read(ImageRef("parquet", "x.parquet", 0, 0, "image"))


def test_an_unknown_form_names_the_known_sources(tmp_path):
    with pytest.raises(ValueError, match="unknown source 'fiel'"):
        CollectionReader(tmp_path).read(ImageRef("fiel", "x"))


def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_unpacked(tmp_path):
    # A PNG is its signature and chunks <length><kind><data><crc>; IHDR begins with width and height.
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    body = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    (tmp_path / "x.png").write_bytes(body)
    with pytest.raises(ValueError, match=r"png: cannot be read|image: cannot be read"):
        decode(CollectionReader(tmp_path).read(ImageRef("file", "x.png")))
    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)  # below Pillow's own limit
    body = body.replace(body[8:33], chunk(b"IHDR", header))
    with pytest.raises(ValueError, match=r"9000 x 9000 pixels are more than"):
        decode(body)


def test_a_link_inside_the_folder_is_followed(tmp_path):
    (tmp_path / "a.png").write_bytes(png(0))
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    assert CollectionReader(tmp_path).read(ImageRef("file", "b.png")) == png(0)


def test_a_pipe_or_device_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name, kind in (("pipe.png", "named pipe"), ("zero.png", "device")):
        with pytest.raises(ValueError, match=f"^{name} is a {kind}, not a file"):
            CollectionReader(tmp_path).read(ImageRef("file", name))
