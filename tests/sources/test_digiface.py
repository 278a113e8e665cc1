"""DigiFace-1M as published: archives subjects_<first>-<last>_<n>_imgs.zip of <subject>/<k>.png."""

import struct
import zipfile

import numpy as np
import pytest

from synthfer.images import decode
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.digiface import PARTS, Config, find
from synthfer.sources.entry import SourceError
from tests.sources.images import pack, pixels, png

FIRST, SECOND = "subjects_0-1999_72_imgs.zip", "subjects_2000-3999_72_imgs.zip"


def test_archives_are_read_without_unpacking(tmp_path):
    pack(tmp_path / SECOND, {"2000/0.png": png(3)})
    pack(tmp_path / FIRST, {"10/0.png": png(2), "9/10.png": png(1), "9/9.png": png(0)})
    found = find(tmp_path, Config())
    entries, reader = list(found.entries), CollectionReader(tmp_path)
    assert [e.key for e in entries] == ["9/9.png", "9/10.png", "10/0.png", "2000/0.png"]  # by number, not by letter
    assert [e.source_id for e in entries] == ["digiface:9", "digiface:9", "digiface:10", "digiface:2000"]
    assert {(e.label, e.reason, e.split) for e in entries} == {(None, None, "train")}
    assert found.kind == "synthetic"
    for i, entry in enumerate(entries):
        assert np.array_equal(decode(reader.read(entry.image)), pixels(i))
    assert sorted(p.name for p in tmp_path.iterdir()) == [FIRST, SECOND]


def test_one_archive_can_be_given_by_itself(tmp_path):
    file = pack(tmp_path / FIRST, {"1/0.png": png(0)})
    pack(tmp_path / SECOND, {"2000/0.png": png(3)})
    (entry,) = find(file, Config()).entries
    assert np.array_equal(decode(CollectionReader(tmp_path).read(entry.image)), pixels(0))


@pytest.mark.parametrize("folder", ["", "subjects_0-1999_72_imgs/"])
def test_unpacked_folders_give_the_same_rows_as_archives(tmp_path, folder):
    pack(tmp_path / FIRST, {"0/1.png": png(1), "0/0.png": png(0), "7/0.png": png(2)})
    packed = [(e.key, e.source_id, e.split) for e in find(tmp_path, Config()).entries]
    root = tmp_path / "unpacked"
    with zipfile.ZipFile(tmp_path / FIRST) as archive:
        archive.extractall(root / folder)
    (root / folder / "0" / "Thumbs.db").write_text("x")
    found = find(root, Config())
    entries = list(found.entries)
    assert [(e.key, e.source_id, e.split) for e in entries] == packed
    reader = CollectionReader(root)
    for i, entry in enumerate(entries):
        assert np.array_equal(decode(reader.read(entry.image)), pixels(i))
    assert "Thumbs.db" in found.notes[-1]


def test_the_official_count_holds_when_all_parts_of_a_set_are_there(tmp_path):
    for part in PARTS[720_000]:
        pack(tmp_path / f"subjects_{part}_imgs.zip", {f"{part.partition('-')[0]}/0.png": png(0)})
    found = find(tmp_path, Config())
    assert (found.official, found.notes) == ({"train": {"all": 720_000}}, [])
    assert len(list(found.entries)) == 5
    pack(tmp_path / "subjects_100000-133332_5_imgs.zip", {"100000/0.png": png(0)})
    found = find(tmp_path, Config())
    assert found.official is None
    assert found.notes == ["not here: subjects_133333-166665_5_imgs, subjects_166666-199998_5_imgs"]


def test_a_path_that_leaves_the_archive_refuses_it(tmp_path):
    for name in ("../x.png", "/etc/0/0.png", "0/../../1.png", "..\\0\\0.png"):
        pack(tmp_path / FIRST, {"0/0.png": png(0), name: png(1)})
        with pytest.raises(SourceError, match=r"is refused: the path .* leaves the collection"):
            find(tmp_path, Config())


def test_a_truncated_archive_is_one_failed_row_and_the_others_go_on(tmp_path):
    body = pack(tmp_path / FIRST, {"0/0.png": png(0), "0/1.png": png(1)}).read_bytes()
    (tmp_path / FIRST).write_bytes(body[: len(body) // 2])  # the directory stands at the end
    pack(tmp_path / SECOND, {"2000/0.png": png(3)})
    entries = list(find(tmp_path, Config()).entries)
    assert [(e.key, e.image is None) for e in entries] == [(FIRST, True), ("2000/0.png", False)]
    assert FIRST in entries[0].reason
    assert "download it again" in entries[0].reason


def test_members_that_would_unpack_to_absurd_sizes_are_not_read(tmp_path):
    pack(tmp_path / FIRST, {"0/0.png": png(0), "0/1.png": bytes(2**20)})
    entries = list(find(tmp_path, Config()).entries)
    assert [(e.reason is None, e.image is None) for e in entries] == [(True, False), (False, True)]
    assert "times its size" in entries[1].reason


def test_a_declared_size_beyond_any_picture_is_not_read(tmp_path):
    body = bytearray(pack(tmp_path / FIRST, {"0/0.png": png(0)}, zipfile.ZIP_STORED).read_bytes())
    directory = body.rindex(b"PK\x01\x02")
    body[directory + 20 : directory + 28] = struct.pack("<II", 2**31, 2**31)  # packed and unpacked size
    (tmp_path / FIRST).write_bytes(body)
    (entry,) = find(tmp_path, Config()).entries
    assert entry.image is None
    assert "2,147,483,648 bytes" in entry.reason


def test_a_member_out_of_place_or_repeated_fails_alone(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / FIRST, "w") as archive:
        for name, seed in (
            ("0/0.png", 0),
            ("0/0.png", 1),
            ("2000/0.png", 2),
            ("__MACOSX/._0.png", 3),
            ("1/0.png", 4),
            ("copy/1/0.png", 5),
        ):
            archive.writestr(name, png(seed))
    found = find(tmp_path, Config())
    entries = list(found.entries)
    assert [e.image is None for e in entries] == [True, True, False, True, True]
    # Of two members of one name, nothing says which is meant, and only the last could be read.
    assert all("0/0.png is in the archive twice" in entry.reason for entry in entries[:2])
    assert "copy/1/0.png is in the archive twice" in entries[3].reason
    assert "subject 2000 does not belong" in entries[4].reason
    assert len({e.key for e in entries}) == 5
    assert "__MACOSX/._0.png" in found.notes[-1]


def test_other_things_beside_the_archives_are_noted(tmp_path):
    pack(tmp_path / FIRST, {"0/0.png": png(0)})
    pack(tmp_path / "subjects_0-1999_72_imgs (1).zip", {"0/0.png": png(0)})
    (tmp_path / "0").mkdir()
    assert "not among the published archives, left out: 2 (0, subj" in find(tmp_path, Config()).notes[0]


def test_two_copies_of_a_subject_are_refused(tmp_path):
    for folder in ("subjects_0-1999_72_imgs", "subjects_2000-3999_72_imgs"):
        (tmp_path / folder / "5").mkdir(parents=True)
    with pytest.raises(SourceError, match="several folders of one subject"):
        find(tmp_path, Config())


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "faces").mkdir()
    with pytest.raises(SourceError, match=r"source digiface, which expects .* There is: faces"):
        find(tmp_path, Config())
