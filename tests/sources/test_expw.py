"""ExpW: the list's order of a box, several faces in a photo, and splits that keep a photo whole."""

from collections import Counter

import pytest

from synthfer.expressions import EXPRESSIONS
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import Entry, SourceError
from synthfer.sources.expw import OFFICIAL, Config, find
from synthfer.sources.index import Index, differences
from tests.sources.images import save, shows

# A line as it stands in the published list: name, face, top, left, right, bottom, confidence, label.
PUBLISHED = "angry_actor_104.jpg 0 28 113 226 141 22.9362 0"
WORDS = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def write(root, lines, table="label.lst", photos="image/origin"):
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_text("\n".join(lines) + "\n")
    (root / photos).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(sorted({line.split(" ")[0] for line in lines if line.startswith(("a", "b"))})):
        save(root / photos / name, seed)


def rows_of(path, **options):
    collection = find(path, Config(**options))
    return collection, list(collection.entries)


@pytest.mark.parametrize(
    ("table", "photos"),
    [
        ("label.lst", "image/origin"),
        ("label.lst", "origin"),
        ("label.lst", "image"),
        ("label/label.lst", "image/origin"),
        ("data/label/label.lst", "data/image/origin"),
    ],
)
def test_a_published_line_gives_box_label_and_picture(tmp_path, table, photos):
    write(tmp_path, [PUBLISHED, "b.jpg 3 1 2 30 40 9 6"], table, photos)
    collection, rows = rows_of(tmp_path)
    assert rows[0].key == "angry_actor_104.jpg#0"
    assert rows[0].box == (113, 28, 226, 141)  # left, top, right, bottom: a square
    assert rows[0].scores == {"box_confidence": 22.9362}
    assert [EXPRESSIONS[row.label] for row in rows] == ["anger", "neutral"]
    assert rows[0].image.path == f"{photos}/angry_actor_104.jpg"
    assert all(shows(tmp_path, row, n) for n, row in enumerate(rows))
    assert len(collection.notes) == 1


def test_every_code_has_its_published_word(tmp_path):
    write(tmp_path, [f"a{code}.jpg 0 1 2 3 4 5 {code}" for code in range(7)])
    _, rows = rows_of(tmp_path)
    assert [EXPRESSIONS[row.label] for row in rows] == list(WORDS)


def test_the_faces_of_a_photo_are_in_one_split_and_the_shares_are_kept(tmp_path):
    lines = [f"a{n}.jpg {face} 1 2 3 4 5 0" for n in range(600) for face in range(1 + n % 3)]
    write(tmp_path, lines[:3])
    (tmp_path / "label.lst").write_text("\n".join(lines))
    _, rows = rows_of(tmp_path, val=0.2, test=0.3)
    splits = {}
    for row in rows:
        splits.setdefault(row.source_id, set()).add(row.split)
    assert len(rows) == 1200
    assert len(splits) == 600
    assert all(len(found) == 1 for found in splits.values())
    counts = Counter(next(iter(found)) for found in splits.values())
    assert abs(counts["test"] - 180) < 50
    assert abs(counts["val"] - 120) < 45
    assert rows_of(tmp_path, val=0.2, test=0.3)[1] == rows
    assert [r.split for r in rows_of(tmp_path, val=0.2, test=0.3, seed=1)[1]] != [r.split for r in rows]
    assert {row.split for row in rows_of(tmp_path, val=0, test=0)[1]} == {"train"}
    assert {row.split for row in rows_of(tmp_path, val=0, test=1)[1]} == {"test"}


def test_shares_beyond_the_whole_are_refused():
    with pytest.raises(ValueError, match=r"val 0\.5 and test 0\.6"):
        Config(val=0.5, test=0.6)


def test_wrong_lines_fail_alone_and_photos_beside_the_list_are_counted(tmp_path):
    lines = [
        PUBLISHED,
        "b.jpg 0 1 2 3 4 5",
        "b.jpg 0 1 2 3 4 5 6 7",
        "b c.jpg 0 1 2 3 4 5 6",
        "b.jpg 0 one 2 3 4 5 6",
        "b.jpg 0 9 2 3 4 5 6",
        "../b.jpg 0 1 2 3 4 5 6",
        "b.jpg 0 1 2 3 4 inf 6",
        "",
        "b.jpg 1 1 2 3 4 5 7",
        "gone.jpg 1 1 2 3 4 5 1",
    ]
    write(tmp_path, lines)
    for name in ("x.jpg", "y.jpg"):
        (tmp_path / "image/origin" / name).touch()
    collection, rows = rows_of(tmp_path)
    assert len(rows) == 10
    assert [row.image is None for row in rows] == [False, *[True] * 7, False, False]
    for at, reason in enumerate(["7 words", "9 words", "9 words", "'one'", "empty", "leaves", "'inf'"], 1):
        assert rows[at].key == f"label.lst:{at + 1}"
        assert f"line {at + 1}: " in rows[at].reason
        assert reason in rows[at].reason
    assert rows[8].label is None
    assert "'7'" in rows[8].reason
    with pytest.raises(OSError, match="gone"):
        CollectionReader(tmp_path).read(rows[9].image)
    assert collection.notes[-1] == "origin: images that are not in label.lst, left out: 2 (x.jpg, y.jpg)"


def test_a_folder_without_list_or_photos_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"label\.lst"):
        find(tmp_path, Config())
    (tmp_path / "label.lst").write_text(PUBLISHED)
    with pytest.raises(SourceError, match=r"image/origin.*There is: label\.lst"):
        find(tmp_path, Config())


def test_the_published_total_is_compared_over_all_splits():
    assert sum(OFFICIAL["all"].values()) == 91793
    entries = [Entry(key=str(n), label=1, split=s, reason="x") for n, s in enumerate(("train", "test"))]
    counts = Index.from_entries(entries).counts
    assert differences({"all": {"disgust": 2, "all": 2}}, {"train": {"disgust": 1}, "test": {"disgust": 1}}) == []
    assert differences({"all": {"all": 3}}, counts) == ["all all: 2 here, 3 published (-1)"]
