"""RAF-DB: the authors' list and the Kaggle copy name the same faces, with labels that count from 1."""

import pytest

from synthfer.expressions import EXPRESSIONS
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import SourceError
from synthfer.sources.rafdb import OFFICIAL, Config, find
from tests.sources.images import save, shows

# The published order: 1 surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger, 7 neutral.
WORDS = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")


def authors(root, lines):
    """basic/ as the authors give it; every well-named picture of the list, aligned and original."""
    (root / "EmoLabel").mkdir(parents=True)
    (root / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines))
    for n, line in enumerate(lines):
        stem = line.partition(".jpg")[0]
        if stem.startswith(("train", "test")):
            save(root / "Image" / "aligned" / f"{stem}_aligned.jpg", n)
            save(root / "Image" / "original" / f"{stem}.jpg", 100 + n)


def rows_of(path, **options):
    collection = find(path, Config(**options))
    return collection, list(collection.entries)


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize(("image", "offset"), [("aligned", 0), ("original", 100)])
def test_the_authors_list_gives_label_split_and_picture(tmp_path, above, image, offset):
    lines = [f"{'test' if n > 4 else 'train'}_{n:05}.jpg {n}" for n in range(1, 8)]
    authors(tmp_path / "basic", lines)
    path = tmp_path if above else tmp_path / "basic"
    collection, rows = rows_of(path, image=image)
    assert [EXPRESSIONS[row.label] for row in rows] == list(WORDS)
    assert [row.split for row in rows] == ["train"] * 4 + ["test"] * 3
    assert rows[0].source_id == "rafdb:train_00001"
    assert all(shows(path, row, offset + n) for n, row in enumerate(rows))
    assert collection.official == OFFICIAL
    assert len(collection.notes) == 1


def test_wrong_lines_fail_alone_and_files_beside_the_list_are_counted(tmp_path):
    lines = [
        "train_00001.jpg 5",
        "train_00002.jpg",
        "train_00003.jpg 5 5",
        "train_00004.jpg 8",
        "train_00005.jpg 0",
        "valid_00001.jpg 1",
        "../../train_00006.jpg 1",
        "/etc/train_00007.jpg 1",
        "",
        "test_0001.jpg 7",
    ]
    authors(tmp_path, lines)
    (tmp_path / "Image" / "aligned" / "test_0001_aligned.jpg").unlink()
    collection, rows = rows_of(tmp_path)
    assert len(rows) == 9  # the blank line is none
    assert [row.image is None for row in rows] == [False, True, True, False, False, True, True, True, False]
    for at in (1, 2, 5, 6, 7):
        assert f"list_patition_label.txt line {at + 1}: " in rows[at].reason
        assert rows[at].key.endswith(f":{at + 1}")
    for at, code in ((3, "'8'"), (4, "'0'")):
        assert rows[at].label is None
        assert code in rows[at].reason
        assert shows(tmp_path, rows[at], at)
    with pytest.raises(OSError, match="test_0001_aligned"):
        CollectionReader(tmp_path).read(rows[-1].image)
    assert "left out: 2 (train_00002_aligned.jpg, train_00003_aligned.jpg)" in collection.notes[-1]


def kaggle(root, files, lists=True):
    for n, (split, code, stem) in enumerate(files):
        save(root / "DATASET" / split / code / f"{stem}_aligned.jpg", n)
    for split in ("train", "test") if lists else ():
        # The copy's lists: image,label
        lines = [f"{stem}_aligned.jpg,{code}" for part, code, stem in files if part == split]
        (root / f"{split}_labels.csv").write_text("\n".join(["image,label", *lines]) + "\n")


FILES = [("train", "1", "train_00010"), ("train", "6", "train_00002"), ("test", "4", "test_0001")]


@pytest.mark.parametrize("lists", [True, False])
def test_the_kaggle_copy_has_the_same_labels_and_ids(tmp_path, lists):
    kaggle(tmp_path, FILES, lists)
    collection, rows = rows_of(tmp_path)
    assert [(row.source_id, EXPRESSIONS[row.label], row.split) for row in rows] == [
        ("rafdb:train_00010", "surprise", "train"),
        ("rafdb:train_00002", "anger", "train"),
        ("rafdb:test_0001", "happy", "test"),
    ]
    assert [row.key for row in rows] == ["train_00010", "train_00002", "test_0001"]
    assert all(shows(tmp_path, row, n) for n, row in enumerate(rows))
    assert any("class folders alone" in note for note in collection.notes) != lists


def test_the_kaggle_copys_lists_are_believed_and_checked(tmp_path):
    kaggle(tmp_path, FILES)
    lines = ["train_00010_aligned.jpg,1", "test_0001_aligned.jpg,1", "train_00002_aligned.jpg,5", ",1", "a,b,c"]
    lines.append('train_00003_aligned.jpg,"5')
    (tmp_path / "train_labels.csv").write_text("\n".join(["image, label", *lines]))
    collection, rows = rows_of(tmp_path)
    assert [row.image is None for row in rows] == [False, True, False, True, True, True, False]
    assert "other's list" in rows[1].reason
    assert "line 7: is no CSV" in rows[5].reason
    assert EXPRESSIONS[rows[2].label] == "sad"
    with pytest.raises(OSError, match="5/train_00002"):
        CollectionReader(tmp_path).read(rows[2].image)
    assert any("6/train_00002_aligned.jpg" in note for note in collection.notes)


def test_a_list_without_its_columns_is_refused(tmp_path):
    kaggle(tmp_path, FILES)
    (tmp_path / "train_labels.csv").write_text("file,label\n")
    with pytest.raises(SourceError, match=r"no column image.*It has: file, label"):
        find(tmp_path, Config())


def test_a_badly_named_picture_in_a_class_folder_fails_alone(tmp_path):
    kaggle(tmp_path, [*FILES, ("train", "2", "cat")], lists=False)
    _, rows = rows_of(tmp_path)
    assert [row.reason is None for row in rows] == [True, False, True, True]
    assert "'cat'" in rows[1].reason


def test_originals_are_not_in_the_kaggle_copy(tmp_path):
    kaggle(tmp_path, FILES)
    with pytest.raises(SourceError, match="image=aligned"):
        find(tmp_path, Config(image="original"))


def test_something_else_is_refused(tmp_path):
    (tmp_path / "compound").mkdir()
    with pytest.raises(SourceError, match=r"list_patition_label.*There is: compound"):
        find(tmp_path, Config())


def test_the_published_counts_are_whole():
    assert {split: sum(counts.values()) for split, counts in OFFICIAL.items()} == {"train": 12271, "test": 3068}
    assert OFFICIAL["train"]["fear"] == 281
