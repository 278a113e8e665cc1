"""FER2013 in its four layouts: rows by the published codes, pixels from their bytes, and lines that are wrong."""

import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthfer.expressions import EXPRESSIONS
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import SourceError
from synthfer.sources.fer2013 import OFFICIAL, Config, find
from tests.sources.images import GREY, cell, png, read, save, shows

# The columns of fer2013.csv and their order; the label words stand in the challenge's own description.
HEADER = "emotion,pixels,Usage"
WORDS = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def rows_of(path):
    collection = find(path, Config())
    return collection, list(collection.entries)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_every_code_usage_and_picture_of_the_csv_is_read(tmp_path, end, quote, bom):
    usages = ["Training", "PublicTest", "PrivateTest"]
    lines = [f"{code},{quote}{cell(code)}{quote},{usages[code % 3]}" for code in range(7)]
    (tmp_path / "fer2013.csv").write_bytes((bom + end.join([HEADER, *lines])).encode())  # no newline at the end
    collection, rows = rows_of(tmp_path)
    assert [EXPRESSIONS[row.label] for row in rows] == list(WORDS)
    assert [row.split for row in rows] == [["train", "val", "test"][code % 3] for code in range(7)]
    assert [row.source_id for row in rows] == [f"fer2013:000000{code}" for code in range(7)]
    assert all(row.reason is None for row in rows)
    assert all(shows(tmp_path, row, code, GREY) for code, row in enumerate(rows))
    assert collection.kind == "real"


def test_the_kaggle_csv_with_spaces_in_its_header_and_another_order_is_read(tmp_path):
    # icml_face_data.csv: emotion, Usage, pixels
    body = f"emotion, Usage, pixels\n3,PrivateTest,{cell(1)}\n6,Training,{cell(2)}\n"
    (tmp_path / "icml_face_data.csv").write_text(body)
    _, rows = rows_of(tmp_path)
    assert [(EXPRESSIONS[row.label], row.split, row.key) for row in rows] == [
        ("happy", "test", "0000000"),
        ("neutral", "train", "0000001"),
    ]
    assert shows(tmp_path, rows[0], 1, GREY)
    assert shows(tmp_path, rows[1], 2, GREY)


def test_a_csv_may_be_given_by_its_own_path(tmp_path):
    file = tmp_path / "fer2013.csv"
    file.write_text(f"{HEADER}\n0,{cell(4)},Training\n")
    _, rows = rows_of(file)
    assert shows(file, rows[0], 4, GREY)


def test_every_wrong_line_becomes_a_row_and_the_next_one_is_right(tmp_path):
    lines = [
        f"0,{cell(0)},Training,extra",
        f'0,"{cell(0)},Training',
        f"7,{cell(0)},Training",
        f"happy,{cell(0)},Training",
        f"1,{cell(0)},Testing",
        f"1,{cell(0)[:-30]},Training",
        f"1,{cell(0).replace(' ', ';', 1)},Training",
        f"1,999 {cell(0).partition(' ')[2]},Training",
        "1,,Training",
        "ÿþ",  # bytes that are no UTF-8
        f"5,{cell(9)},Training",
        "4,12 14 200",  # the file ends inside a row
    ]
    (tmp_path / "fer2013.csv").write_text("\n".join([HEADER, *lines]), encoding="latin-1")
    _, rows = rows_of(tmp_path)
    assert len(rows) == len(lines)
    failed = {0: "has 4 cells, not 3", 1: "quote", 9: "has 1 cells", 11: "has 2 cells"}
    for at, reason in failed.items():
        assert rows[at].image is None
        assert rows[at].key == f"fer2013.csv:{at + 2}"
        assert f"line {at + 2}" in rows[at].reason
        assert reason in rows[at].reason
    for at, value in {2: "'7'", 3: "'happy'", 4: "'Testing'"}.items():
        assert value in rows[at].reason
        assert shows(tmp_path, rows[at], 0, GREY)
    assert rows[2].label is rows[3].label is None
    for at in (5, 6, 7, 8):
        with pytest.raises(ValueError, match="pixels"):
            read(tmp_path, rows[at])
    assert EXPRESSIONS[rows[10].label] == "surprise"
    assert shows(tmp_path, rows[10], 9, GREY)
    assert rows[10].key == "0000010"


def test_a_missing_column_is_told_with_those_that_are_there(tmp_path):
    (tmp_path / "fer2013.csv").write_text("label,pixels,Usage\n0,1 2 3 4,Training\n")
    with pytest.raises(SourceError, match=r"no column emotion.*It has: label, pixels, Usage"):
        find(tmp_path, Config())


def test_a_folder_with_something_else_is_refused_with_what_is_there(tmp_path):
    (tmp_path / "readme.txt").touch()
    with pytest.raises(SourceError, match=r"fer2013\.csv.*There is: readme\.txt"):
        find(tmp_path, Config())
    with pytest.raises(SourceError, match="absent does not exist"):
        find(tmp_path / "absent", Config())


def folders(root, names):
    for seed, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        save(file.with_suffix(".png"), seed, GREY)


def test_class_folders_merge_both_test_sets_and_say_so(tmp_path):
    folders(tmp_path, ["train/angry/im1", "train/happy/im0", "test/fear/im0", "test/surprise/im2"])
    (tmp_path / "train" / "happy" / "Thumbs.db").touch()
    collection, rows = rows_of(tmp_path)
    assert [(row.split, EXPRESSIONS[row.label], row.key) for row in rows] == [
        ("train", "anger", "train/angry/im1.png"),
        ("train", "happy", "train/happy/im0.png"),
        ("test", "fear", "test/fear/im0.png"),
        ("test", "surprise", "test/surprise/im2.png"),
    ]
    assert all(shows(tmp_path, row, seed, GREY) for seed, row in enumerate(rows))
    assert any("PublicTest and PrivateTest together" in note for note in collection.notes)
    assert any("Thumbs.db" in note for note in collection.notes)
    assert sum(collection.official["test"].values()) == 7178
    assert "val" not in collection.official


def test_file_names_that_still_say_publictest_give_the_validation_split_back(tmp_path):
    # The usual Kaggle copy: test/angry/PrivateTest_10131363.jpg beside test/angry/PublicTest_...
    folders(tmp_path, ["train/sad/Training_1", "test/sad/PrivateTest_1", "test/sad/PublicTest_2"])
    collection, rows = rows_of(tmp_path)
    assert [row.split for row in rows] == ["train", "test", "val"]
    assert collection.official == OFFICIAL


def test_a_class_folder_of_another_word_keeps_its_pictures_without_a_label(tmp_path):
    folders(tmp_path, ["train/contempt/a", "train/grumpy/b"])
    collection, rows = rows_of(tmp_path)
    assert [row.attributes["emotion"] for row in rows] == ["contempt", "grumpy"]
    assert all(row.label is None and row.image and row.attributes["emotion"] in row.reason for row in rows)
    assert any("no folder test" in note for note in collection.notes)


def test_a_file_name_that_is_no_text_is_told_and_not_read(tmp_path):
    folders(tmp_path, ["train/fear/a"])
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/train/fear/\xff.png")).touch()
    except OSError:
        pytest.skip("this file system takes text only")
    collection, rows = rows_of(tmp_path)
    assert [row.key for row in rows] == ["train/fear/a.png"]
    assert any("left out: 1 ('train/fear/\\udcff.png')" in note for note in collection.notes)


def parquet(file, names, labels, splits, group=2):
    # The columns that the Parquet copy has: image (PNG bytes), fer_label, split, name.
    image = [png(seed, GREY) for seed in range(len(names))]
    table = pa.table({"image": image, "fer_label": pa.array(labels, pa.int8()), "split": splits, "name": names})
    pq.write_table(table, file, row_group_size=group)


def test_the_parquet_copy_is_read_over_row_groups_with_the_ids_of_the_csv(tmp_path):
    names = ["fer0000009.png", "fer0028709.png", "fer0032298.png", "photo.png", "fer0000010.png"]
    splits = ["train", "public_test", "private_test", "train", "holdout"]
    parquet(tmp_path / "a.parquet", names, [2, 3, None, 0, 0], splits)
    pq.write_table(pa.table({"other": [1]}), tmp_path / "b.parquet")
    _, rows = rows_of(tmp_path)
    assert [row.split for row in rows[:3]] == ["train", "val", "test"]
    assert rows[1].source_id == "fer2013:0028709"
    assert [EXPRESSIONS[row.label] for row in rows[:2]] == ["fear", "happy"]
    assert all(shows(tmp_path, rows[at], at, GREY) for at in (0, 1, 2, 4))
    assert rows[2].label is None
    assert "None" in rows[2].reason
    assert rows[3].image is None
    assert rows[3].key == "a.parquet:4"
    assert "photo.png" in rows[3].reason
    assert "holdout" in rows[4].reason


def test_damage_in_a_parquet_file_is_told(tmp_path):
    file = tmp_path / "a.parquet"
    parquet(file, [f"fer000000{n}.png" for n in range(4)], [0, 1, 2, 3], ["train"] * 4)
    whole = file.read_bytes()
    at = pq.read_metadata(file).row_group(1).column(1).data_page_offset  # fer_label of the second group
    file.write_bytes(whole[:at] + b"\xff" * 40 + whole[at + 40 :])
    _, rows = rows_of(tmp_path)
    assert [row.image is None for row in rows] == [False, False, True, True]
    assert "row group 1 cannot be read" in rows[3].reason
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"a\.parquet cannot be read"):
        find(tmp_path, Config())


def test_the_published_counts_are_whole():
    assert {split: sum(counts.values()) for split, counts in OFFICIAL.items()} == {
        "train": 28709,
        "val": 3589,
        "test": 3589,
    }
    assert OFFICIAL["train"]["disgust"] == 436


def test_the_real_parquet_is_read_as_it_stands(shared_data):
    file = shared_data / "fer2013_small.parquet"
    _, rows = rows_of(file)
    table = pq.read_table(file, columns=["image", "fer_label_name", "split", "name"])
    assert Counter(row.split for row in rows) == {"train": 6000, "val": 1500}
    stood = Counter(zip(table["split"].to_pylist(), table["fer_label_name"].to_pylist(), strict=True))
    words = {"anger": "angry"}
    splits = {"train": "train", "val": "public_test"}
    found = Counter((splits[r.split], words.get(EXPRESSIONS[r.label], EXPRESSIONS[r.label])) for r in rows)
    assert found == stood
    reader = CollectionReader(file)
    for at in range(0, 7500, 499):
        assert rows[at].source_id == f"fer2013:{table['name'][at].as_py()[3:10]}"
        assert reader.read(rows[at].image) == table["image"][at].as_py()


def test_a_split_of_another_type_is_told(tmp_path):
    columns = {"image": [png(0, GREY)], "name": ["fer0000001.png"], "fer_label": [1], "split": [["train"]]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    _, (row,) = rows_of(tmp_path)
    assert "split ['train'] is none of train" in row.reason
