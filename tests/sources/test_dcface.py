"""DCFace's records, written here byte by byte from the published format, and not with what reads them.

dmlc-core's recordio: <magic><flag << 29 | length><payload><zeros to a multiple of 4>, and a payload that holds the
magic at a multiple of 4 is cut there. MXNet's recordio.py: struct "IfQQ" before the picture, then `flag` labels.
"""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from synthfer.images import decode
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.dcface import Config, find
from synthfer.sources.entry import SourceError

MAGIC = b"\x0a\x23\xd7\xce"


def jpeg(seed, size=8):
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", quality=100)
    return out.getvalue()


def packed(picture, label=0.0, index=0, labels=()):
    return struct.pack("<IfQQ", len(labels), label, index, 0) + struct.pack(f"<{len(labels)}f", *labels) + picture


def part(flag, body):
    return MAGIC + struct.pack("<I", flag << 29 | len(body)) + body


def record(payload):
    """A whole record of a payload without the magic word."""
    return part(0, payload) + bytes(-len(payload) % 4)


def write(folder, records, paths=None, offsets=None):
    """file.rec of finished records, file.idx as MXNet writes it, and the list of DCFace."""
    folder.mkdir(parents=True, exist_ok=True)
    starts = np.cumsum([0, *map(len, records)]).tolist()
    (folder / "file.rec").write_bytes(b"".join(records))
    (folder / "file.idx").write_text("".join(f"{i}\t{at}\n" for i, at in enumerate(offsets or starts[:-1])))
    if paths is not None:
        (folder / "list.txt").write_text("".join(f"{i}\t{path}\n" for i, path in enumerate(paths)))


def read(root):
    found = find(root, Config())
    return found, list(found.entries)


def test_records_become_faces_whose_identity_is_the_folder(tmp_path):
    faces = [jpeg(i, 8 + i) for i in range(4)]
    assert {len(packed(face)) % 4 for face in faces} != {0}  # some are padded
    write(
        tmp_path / "record", [record(packed(face)) for face in faces], ["0/a.jpg", "0/b.jpg", "7/a.jpg", "12/x/y.jpg"]
    )
    found, entries = read(tmp_path)
    assert [e.key for e in entries] == ["0", "1", "2", "3"]
    assert [e.source_id for e in entries] == ["dcface:0", "dcface:0", "dcface:7", "dcface:12"]
    assert {(e.label, e.reason, e.split) for e in entries} == {(None, None, "train")}
    reader = CollectionReader(tmp_path)
    assert [reader.read(e.image) for e in entries] == faces
    assert decode(reader.read(entries[3].image)).shape == (11, 11, 3)
    assert (found.kind, found.notes) == ("synthetic", [])


def test_the_record_folder_itself_can_be_given(tmp_path):
    write(tmp_path, [record(packed(jpeg(0)))], ["0/a.jpg"])
    _, (entry,) = read(tmp_path)
    assert CollectionReader(tmp_path).read(entry.image) == jpeg(0)


@pytest.mark.parametrize("holes", [1, 2, 3])
def test_a_payload_that_holds_the_magic_word_is_put_together_again(tmp_path, holes):
    # The header has 24 bytes, so that these pieces put the magic at multiples of 4 of the payload.
    pieces = [b"\xff\xd8 first", b"second..", b"", b"last piece, 21 bytes."][-holes - 1 :]
    picture = MAGIC.join(pieces)
    head = packed(b"")
    stored = part(1, head + pieces[0])
    stored += b"".join(part(2, piece) for piece in pieces[1:-1])
    stored += part(3, pieces[-1]) + bytes(-len(pieces[-1]) % 4)
    before, after = jpeg(1), jpeg(2)
    write(tmp_path, [record(packed(before)), stored, record(packed(after))], ["0/a", "0/b", "0/c"])
    _, entries = read(tmp_path)
    reader = CollectionReader(tmp_path)
    assert [e.reason for e in entries] == [None] * 3
    assert [reader.read(e.image) for e in entries] == [before, picture, after]


def test_a_magic_word_in_the_labels_or_at_the_first_byte_is_not_lost(tmp_path):
    number = struct.unpack("<f", MAGIC)[0]
    # The second of two labels is the magic word, and the picture begins with it.
    stored = part(1, struct.pack("<IfQQ", 2, 0, 0, 0) + struct.pack("<f", 5)) + part(2, b"") + part(3, b"rest")
    assert struct.pack("<2f", 5, number)[4:] == MAGIC
    write(tmp_path, [stored])
    _, (entry,) = read(tmp_path)
    assert entry.source_id == "dcface:5"
    assert CollectionReader(tmp_path).read(entry.image) == MAGIC + b"rest"


def test_labels_after_the_header_are_passed_over(tmp_path):
    write(tmp_path, [record(packed(jpeg(3), labels=(1234567.0, 1.0)))])
    found, (entry,) = read(tmp_path)
    assert entry.source_id == "dcface:1234567"
    assert CollectionReader(tmp_path).read(entry.image) == jpeg(3)
    assert found.notes == ["there is no list.txt: the records' labels are the identities"]


def test_ranges_of_identities_as_insightface_writes_them_are_no_faces(tmp_path):
    ranges = [record(packed(b"", labels=(3.0, 4.0))), record(packed(b"", labels=(1.0, 3.0)))]
    write(tmp_path, [ranges[0], record(packed(jpeg(1), 8.0)), record(packed(jpeg(2), 8.0)), ranges[1]])
    found, entries = read(tmp_path)
    assert [(e.key, e.source_id) for e in entries] == [("1", "dcface:8"), ("2", "dcface:8")]
    assert "2 records hold ranges of identities" in found.notes[-1]


def test_a_record_without_a_picture_fails(tmp_path):
    write(tmp_path, [record(packed(b""))], ["0/a.jpg"])
    _, (entry,) = read(tmp_path)
    assert (entry.image, entry.reason) == (None, "record 0 holds no picture")


def test_repeated_faces_are_rejected_and_keep_their_pictures(tmp_path):
    faces = [jpeg(0), jpeg(1), jpeg(0), jpeg(0)]
    write(tmp_path, [record(packed(f, index=i)) for i, f in enumerate(faces)], [f"4/{i}.jpg" for i in range(4)])
    _, entries = read(tmp_path)
    assert [e.reason for e in entries] == [None, None, "exact duplicate of 0", "exact duplicate of 0"]
    assert CollectionReader(tmp_path).read(entries[3].image) == jpeg(0)


def test_a_truncated_file_keeps_what_is_before_the_cut(tmp_path):
    records = [record(packed(jpeg(i))) for i in range(4)]
    write(tmp_path, records, [f"0/{i}.jpg" for i in range(4)])
    body = (tmp_path / "file.rec").read_bytes()
    for cut in (len(records[0] + records[1]) + 100, len(records[0] + records[1]) + 5, len(records[0] + records[1])):
        (tmp_path / "file.rec").write_bytes(body[:cut])
        _, entries = read(tmp_path)
        assert [(e.key, e.image is None) for e in entries] == [("0", False), ("1", False), ("2", True), ("3", True)]
        assert all("the file ends before byte" in e.reason for e in entries[2:])
        assert CollectionReader(tmp_path).read(entries[1].image) == jpeg(1)


def test_an_index_that_disagrees_fails_row_by_row(tmp_path):
    records = [record(packed(jpeg(i))) for i in range(3)]
    write(tmp_path, records, ["0/a", "0/b", "0/c"], offsets=[0, len(records[0]) + 4, len(records[0] + records[1])])
    _, entries = read(tmp_path)
    assert [e.image is None for e in entries] == [False, True, False]
    assert "file.idx and file.rec do not fit" in entries[1].reason


def test_a_wrong_magic_word_is_no_record(tmp_path):
    body = record(packed(jpeg(0)))
    write(tmp_path, [b"\x0a\x23\xd7\x3e" + body[4:], record(packed(jpeg(1)))], ["0/a", "0/b"])
    _, entries = read(tmp_path)
    assert "no record is at byte 0" in entries[0].reason
    assert entries[1].image is not None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (part(2, bytes(8)), "flag 2"),
        (part(5, bytes(8)), "flag 5"),
        (part(1, bytes(24)) + part(0, bytes(4)), "flag 0"),
        (part(1, bytes(26)) + bytes(2) + part(3, bytes(4)), "flag 1, 26 bytes"),
        (part(1, bytes(24)), "ends before"),
        (MAGIC + struct.pack("<I", (1 << 29) - 1), "more than 64 MiB"),
        (record(bytes(10)), "10 bytes are no MXNet header"),
        (record(struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0)), "too few for the 4294967295 labels"),
    ],
)
def test_records_that_are_no_records_fail_alone(tmp_path, body, says):
    write(tmp_path, [record(packed(jpeg(0))), body], ["0/a", "0/b"])
    _, entries = read(tmp_path)
    assert entries[0].image is not None
    assert entries[1].image is None
    assert says in entries[1].reason


def test_lines_that_are_not_as_published_fail_with_their_number(tmp_path):
    write(tmp_path, [record(packed(jpeg(i))) for i in range(4)])
    (tmp_path / "list.txt").write_text("0\t1/a.jpg\nx\t1/b.jpg\n\n1\t../../b.jpg\n9\t1/c.jpg\n0\t1/a.jpg\n2\t1/d.jpg\n")
    with (tmp_path / "file.idx").open("a") as index:
        index.write(f"1\t0\n7\n8\t{'9' * 5000}\n10\t{10**18 - 1}\n")
    found, entries = read(tmp_path)
    failed = {e.key: e.reason for e in entries if e.image is None}
    assert list(failed) == ["file.idx:5", "file.idx:6", "file.idx:7", *(f"list.txt:{n}" for n in (2, 4, 5, 6)), "10"]
    assert "was there before" in failed["file.idx:5"]
    assert "leaves the collection" in failed["list.txt:4"]
    assert "not in file.idx" in failed["list.txt:5"]
    # Records 3 and 10 are in the index and not in the list: they are rows, and noted.
    assert [e.key for e in entries if e.image] == ["0", "2", "3"]
    assert found.notes == ["records of file.idx that are not in list.txt, read all the same: 2 (3, 10)"]


def test_the_official_count_is_that_of_the_release(tmp_path):
    write(tmp_path / "dcface_0.5m_oversample_xid" / "record", [record(packed(jpeg(0)))], ["0/a"])
    assert find(tmp_path / "dcface_0.5m_oversample_xid", Config()).official == {"train": {"all": 500_000}}


def test_a_folder_without_records_is_refused(tmp_path):
    (tmp_path / "dcface_0.5m_oversample_xid.zip").write_bytes(b"PK")
    with pytest.raises(SourceError, match=r"unpacked from .*There is: dcface_0.5m_oversample_xid.zip"):
        find(tmp_path, Config())
    write(tmp_path, [record(packed(jpeg(0)))])
    (tmp_path / "file.idx").unlink()
    with pytest.raises(SourceError, match=r"file\.idx"):
        find(tmp_path, Config())


def test_a_blank_line_at_the_end_of_a_list_is_no_row(tmp_path):
    write(tmp_path, [record(packed(jpeg(0)))], ["0/a.jpg"])
    for name in ("file.idx", "list.txt"):
        with (tmp_path / name).open("a") as file:
            file.write("\n\n")
    _, entries = read(tmp_path)
    assert [e.reason for e in entries] == [None]
