"""CK+: class folders split by subject, and the CSV that knows no subject."""

import pytest

from synthfer.expressions import EXPRESSIONS
from synthfer.sources.ckplus import CSV_COUNTS, FOLDER_COUNTS, Config, find
from synthfer.sources.entry import SourceError
from tests.sources.images import GREY, cell, save, shows

# The folders of the copy known as CK+48; the names within are subject, sequence, frame.
FOLDERS = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")


def folders(root, files):
    for seed, name in enumerate(files):
        save(root / name, seed, GREY)


def rows_of(path, **options):
    collection = find(path, Config(**options))
    return collection, list(collection.entries)


@pytest.mark.parametrize("above", [False, True])
def test_class_folders_give_label_subject_and_picture(tmp_path, above):
    folders(tmp_path / "CK+48", [f"{word}/S01{n}_00{n}_0000001{n}.png" for n, word in enumerate(FOLDERS)])
    path = tmp_path if above else tmp_path / "CK+48"
    collection, rows = rows_of(path)
    words = [None if row.label is None else EXPRESSIONS[row.label] for row in rows]
    assert words == ["anger", None, "disgust", "fear", "happy", "sad", "surprise"]
    assert rows[1].attributes == {"emotion": "contempt"}
    assert "contempt" in rows[1].reason
    assert [row.source_id for row in rows] == [f"ckplus:S01{n}" for n in range(7)]
    assert rows[4].key == "happy/S014_004_00000014.png"
    assert all(shows(path, row, n, GREY) for n, row in enumerate(rows))
    assert collection.official == FOLDER_COUNTS


def test_a_subject_is_in_one_split(tmp_path):
    names = [f"{word}/S{n:03}_00{k}_0000001{k}.png" for n in range(60) for k, word in enumerate(("happy", "fear"))]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    _, rows = rows_of(tmp_path, val=0.25, test=0.25)
    splits = {}
    for row in rows:
        splits.setdefault(row.source_id, set()).add(row.split)
    assert len(splits) == 60
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "val", "test"}
    assert rows_of(tmp_path, val=0.25, test=0.25)[1] == rows


def test_a_name_without_a_subject_is_rejected_and_other_files_are_told(tmp_path):
    folders(tmp_path, ["fear/S005_001_00000011.png", "happy/copy of S005.png", "odd/S006_001_00000011.png"])
    (tmp_path / "fear" / "notes.txt").touch()
    (tmp_path / "README").touch()
    collection, rows = rows_of(tmp_path)
    assert rows[0].reason is None
    assert "names no subject" in rows[1].reason
    assert rows[1].source_id is None
    assert rows[1].image
    assert rows[2].label is None
    assert "'odd'" in rows[2].reason
    assert any("left out: 2 (README, fear/notes.txt)" in note for note in collection.notes)


def test_the_csv_is_read_with_its_codes_and_usage(tmp_path):
    # emotion,pixels,Usage with the codes of FER2013 and 7 for contempt
    usages = ["Training", "PublicTest", "PrivateTest"]
    lines = [f"{code},{cell(code)},{usages[code % 3]}" for code in range(8)]
    (tmp_path / "ckextended.csv").write_bytes("\r\n".join(["emotion,pixels,Usage", *lines, "8,1 2", ""]).encode())
    collection, rows = rows_of(tmp_path)
    words = ["anger", "disgust", "fear", "happy", "sad", "surprise", "neutral", None, None]
    assert [None if row.label is None else EXPRESSIONS[row.label] for row in rows] == words
    assert [row.split for row in rows[:8]] == [("train", "val", "test")[code % 3] for code in range(8)]
    assert rows[7].attributes == {"emotion": "contempt"}
    assert rows[8].image is None
    assert "ckextended.csv line 10: has 2 cells" in rows[8].reason
    assert {row.source_id for row in rows} == {None}
    assert all(shows(tmp_path, row, code, GREY) for code, row in enumerate(rows[:8]))
    assert "no subjects" in collection.notes[0]
    assert "same person" in collection.notes[0]


def test_something_else_is_refused(tmp_path):
    (tmp_path / "happy").mkdir()
    with pytest.raises(SourceError, match=r"ckextended\.csv.*There is: happy"):
        find(tmp_path, Config())


def test_the_published_counts_are_whole():
    # 327 labelled sequences, 18 of them contempt; three frames of each in CK+48, 593 neutral faces in the CSV.
    assert sum(FOLDER_COUNTS["all"].values()) == 981 - 3 * 18
    assert sum(CSV_COUNTS["all"].values()) == 920 - 18
