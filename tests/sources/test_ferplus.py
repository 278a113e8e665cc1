"""FERPlus: votes joined to their pictures, the authors' majority rule, and the rows that have none of the seven."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthfer.expressions import EXPRESSIONS
from synthfer.sources import fer2013
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import SourceError
from synthfer.sources.ferplus import FOLDER_ROWS, MAJORITY, ROWS, Config, choice, distribution, find
from tests.sources.images import GREY, cell, png, shows

# The header of fer2013new.csv, and three of its rows as they stand in the published file.
HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
FIRST = ["4,0,0,1,3,2,0,0,0,0", "6,0,1,1,0,0,0,0,2,0", "5,0,0,3,1,0,0,0,1,0"]


def both(root, votes, usages=None, pixels=None):
    """fer2013new.csv from lines of votes, and fer2013.csv with a picture for each."""
    usages = usages or ["Training"] * len(votes)
    lines = [
        f"{u},fer{n:07}.png,{v}" if v[0].isdigit() else v for n, (v, u) in enumerate(zip(votes, usages, strict=True))
    ]
    (root / "fer2013new.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    cells = [cell(n) for n in range(len(votes) if pixels is None else pixels)]
    rows = [f"0,{cell},{usage}" for cell, usage in zip(cells, usages, strict=False)]
    (root / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")


def rows_of(path, **options):
    collection = find(path, Config(**options))
    return collection, list(collection.entries)


@pytest.mark.parametrize(
    ("votes", "majority", "argmax"),
    [
        # Worked by hand from the authors' reader: single votes dropped, then more than half of the rest.
        ((4, 0, 0, 1, 3, 2, 0, 0, 0, 0), "unknown", "neutral"),  # 4 of 9
        ((6, 0, 1, 1, 0, 0, 0, 0, 2, 0), "neutral", "neutral"),  # 6 of 8
        ((5, 0, 0, 5, 0, 0, 0, 0, 0, 0), "unknown", "neutral"),  # exactly half is not more than half
        ((0, 0, 0, 2, 1, 1, 1, 0, 0, 0), "sadness", "sadness"),  # 2 of 2, though 2 of 5 before
        ((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), "unknown", "neutral"),  # nothing is left
        ((0, 0, 0, 0, 0, 0, 1, 9, 0, 0), "contempt", "contempt"),
        ((0, 0, 0, 0, 0, 0, 0, 0, 0, 10), "NF", "NF"),
        ((0, 0, 0, 0, 2, 0, 0, 0, 7, 0), "unknown", "unknown"),
        ((0, 0, 0, 0, 0, 0, 5, 0, 4, 0), "fear", "fear"),  # the one published row with nine votes has such a sum
    ],
)
def test_votes_choose_as_the_authors_reader_does(votes, majority, argmax):
    assert choice(votes, "majority") == majority
    assert choice(votes, "argmax") == argmax


def test_the_distribution_is_over_the_seven_in_our_order():
    assert distribution((1, 2, 3, 4, 5, 6, 7, 90, 90, 90)) == pytest.approx(
        np.array([5, 6, 7, 2, 1, 4, 3]) / 28  # anger, disgust, fear, happy, neutral, sad, surprise
    )
    assert distribution((0, 0, 0, 0, 0, 0, 0, 5, 3, 2)) is None


def test_votes_are_joined_to_the_pictures_of_the_same_row(tmp_path):
    votes = [*FIRST, "0,10,0,0,0,0,0,0,0,0", "0,0,0,0,1,0,0,9,0,0", "0,0,0,0,0,0,0,0,0,10"]
    usages = ["Training", "Training", "Training", "PublicTest", "PrivateTest", "PrivateTest"]
    both(tmp_path, votes, usages)
    collection, rows = rows_of(tmp_path)
    assert [row.split for row in rows] == ["train", "train", "train", "val", "test", "test"]
    assert [row.label and EXPRESSIONS[row.label] for row in rows] == [None, "neutral", "neutral", "happy", None, None]
    assert all(shows(tmp_path, row, n, GREY) for n, row in enumerate(rows))
    assert [row.attributes.get("emotion") for row in rows] == ["unknown", None, None, None, "contempt", "NF"]
    assert "contempt" in rows[4].reason
    assert "no face" in rows[5].reason
    assert rows[5].label_probs is None
    assert rows[0].label_probs == pytest.approx((0.3, 0.2, 0, 0, 0.4, 0.1, 0))
    assert rows[0].scores["votes_anger"] == 3
    assert rows[5].scores["votes_no_face"] == 10
    assert collection.official == MAJORITY


def test_the_pictures_have_the_ids_that_fer2013_gives_them(tmp_path):
    both(tmp_path, FIRST)
    _, plus = rows_of(tmp_path)
    plain = list(fer2013.find(tmp_path, fer2013.Config()).entries)
    assert [row.source_id for row in plus] == [row.source_id for row in plain]
    assert [row.image for row in plus] == [row.image for row in plain]


def test_the_argmax_rule_labels_what_has_no_majority(tmp_path):
    both(tmp_path, FIRST[:1])
    collection, rows = rows_of(tmp_path, rule="argmax")
    assert EXPRESSIONS[rows[0].label] == "neutral"
    assert collection.official == ROWS


def test_an_empty_image_name_fails_with_its_line_and_votes(tmp_path):
    # As published: "Training,,0,0,0,0,0,0,0,0,0,10"
    both(tmp_path, [FIRST[0], "PublicTest,,0,0,0,0,0,0,0,0,0,10", FIRST[1]], ["Training", "PublicTest", "Training"])
    _, rows = rows_of(tmp_path)
    assert rows[1].image is None
    assert rows[1].key == "fer2013new.csv:3"
    assert "line 3: names no image" in rows[1].reason
    assert (rows[1].split, rows[1].source_id) == ("val", "fer2013:0000001")
    assert shows(tmp_path, rows[2], 2, GREY)


def test_lines_that_do_not_fit_fail_alone(tmp_path):
    both(
        tmp_path,
        [
            FIRST[0],
            "Training,fer0000007.png,6,0,1,1,0,0,0,0,2,0",  # the name of another row
            "PublicTest,fer0000002.png,6,0,1,1,0,0,0,0,2,0",  # the Usage of another row
            "Training,fer0000003.png,six,0,1,1,0,0,0,0,2,0",
            "Training,fer0000004.png,6,0,1",
            "Training,fer0000005.png,-6,0,1,1,0,0,0,0,2,0",
            "Training,fer0000006.png,0,0,0,0,0,0,0,0,0,0",
            FIRST[1],
            FIRST[2],
        ],
        pixels=8,  # one less than there are votes
    )
    _, rows = rows_of(tmp_path)
    assert len(rows) == 9
    assert [row.image is None for row in rows] == [False, *[True] * 6, False, True]
    reasons = ["fer0000007", "PublicTest", "'six'", "5 cells", "-6", "no votes", "", "no row in fer2013.csv"]
    for at, reason in enumerate(reasons, 1):
        if reason:
            assert f"line {at + 2}" in rows[at].reason
            assert reason in rows[at].reason


def test_pictures_without_votes_and_broken_picture_lines_fail_too(tmp_path):
    both(tmp_path, FIRST)
    lines = (tmp_path / "fer2013.csv").read_text().splitlines()
    lines[2] = "0,1 2 3"
    (tmp_path / "fer2013.csv").write_text("\n".join([*lines, lines[1]]))
    _, rows = rows_of(tmp_path)
    assert [row.image is None for row in rows] == [False, True, False, True]
    assert "fer2013.csv has 2 cells" in rows[1].reason
    assert "fer2013.csv has it" in rows[3].reason


def test_votes_without_pictures_are_refused(tmp_path):
    both(tmp_path, FIRST)
    (tmp_path / "fer2013.csv").unlink()
    with pytest.raises(SourceError, match=r"no fer2013\.csv"):
        find(tmp_path, Config())


def folder(root, name, faces, lines):
    (root / name).mkdir(parents=True)
    for n in faces:
        (root / name / f"fer{n:07}.png").write_bytes(png(n, GREY))
    (root / name / "label.csv").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("base", ["", "data"])
def test_folders_with_label_csv_are_read_with_and_without_the_box(tmp_path, base):
    # With the box as in the published label.csv; without it as the authors' own script writes it.
    folder(tmp_path / base, "FER2013Train", [0, 1, 7], [f'fer0000000.png,"(0, 0, 48, 48)",{FIRST[1]}'])
    folder(tmp_path / base, "FER2013Valid", [28709], [f"fer0028709.png,{FIRST[2]}"])
    lines = [
        'fer0032298.png,"(0, 0, 48, 48)",0,10,0,0,0,0,0,0,0,0',
        f'fer0032299.png,"(0, 0, 48, 48)",{FIRST[1]}',
        f'../fer0032300.png,"(0, 0, 48, 48)",{FIRST[1]}',
        f',"(0, 0, 48, 48)",{FIRST[1]}',
        'fer0032300.png,"(0, 0, 48, 48)",1,2',
        f"cat.png,{FIRST[1]}",
    ]
    folder(tmp_path / base, "FER2013Test", [32298], lines)
    collection, rows = rows_of(tmp_path)
    assert [row.split for row in rows[:4]] == ["train", "val", "test", "test"]
    assert [row.source_id for row in rows[:3]] == ["fer2013:0000000", "fer2013:0028709", "fer2013:0032298"]
    assert all(shows(tmp_path, row, n, GREY) for row, n in zip(rows[:3], (0, 28709, 32298), strict=True))
    with pytest.raises(OSError, match="fer0032299"):
        CollectionReader(tmp_path).read(rows[3].image)
    assert [row.image for row in rows[4:]] == [None] * 4
    assert [f"label.csv line {n}" in row.reason for n, row in enumerate(rows[4:], 3)] == [True] * 4
    assert any("label.csv, left out: 2 (fer0000001.png, fer0000007.png)" in note for note in collection.notes)
    assert list(find(tmp_path, Config(rule="argmax")).official.values()) == list(FOLDER_ROWS.values())


def test_the_parquet_copy_is_read_and_bad_votes_fail(tmp_path):
    votes = [[6, 0, 1, 1, 0, 0, 0, 0, 2, 0], None, [1, None, 0, 0, 0, 0, 0, 0, 0, 0]]
    columns = {
        "image": [png(n, GREY) for n in range(3)],
        "ferplus_votes": pa.array(votes, pa.list_(pa.int8(), 10)),
        "split": ["public_test"] * 3,
        "name": ["fer0028709.png", "fer0028710.png", "fer0028711.png"],
    }
    pq.write_table(pa.table(columns), tmp_path / "fer.parquet")
    _, rows = rows_of(tmp_path)
    assert (EXPRESSIONS[rows[0].label], rows[0].split, rows[0].source_id) == ("neutral", "val", "fer2013:0028709")
    assert shows(tmp_path, rows[0], 0, GREY)
    assert [row.image for row in rows[1:]] == [None, None]
    assert "no votes" in rows[2].reason


def test_something_else_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"fer2013new\.csv.*There is: nothing"):
        find(tmp_path, Config())


def test_the_published_counts_are_whole():
    # 7-class totals of the majority rule; the published label.csv files have 177 rows less than FER2013.
    assert [sum(counts.values()) for counts in MAJORITY.values()] == [24941, 3186, 3137]
    rows, named = ([counts["all"] for counts in table.values()] for table in (ROWS, FOLDER_ROWS))
    assert [a - b for a, b in zip(rows, named, strict=True)] == [151, 10, 16]


def test_the_real_parquet_is_read_as_it_stands(shared_data):
    _, rows = rows_of(shared_data / "fer2013_small.parquet")
    table = pq.read_table(shared_data / "fer2013_small.parquet", columns=["image", "ferplus_votes", "name"])
    votes = np.array(table["ferplus_votes"].to_pylist())
    assert len(rows) == 7500
    # The majority rule once more, in numpy over the whole file.
    kept = np.where(votes > 1, votes, 0)
    clear = kept.max(1) * 2 > kept.sum(1)
    words = ["neutral", "happy", "surprise", "sad", "anger", "disgust", "fear"]
    expected = [words[at] if ok and at < 7 else None for at, ok in zip(kept.argmax(1), clear, strict=True)]
    assert [None if row.label is None else EXPRESSIONS[row.label] for row in rows] == expected
    assert [row.reason is None for row in rows] == [word is not None for word in expected]
    reader = CollectionReader(shared_data / "fer2013_small.parquet")
    assert all(reader.read(rows[at].image) == table["image"][at].as_py() for at in range(0, 7500, 991))


@pytest.mark.parametrize("votes", [[3], ["10 0"], [None], [["10"] * 10], [[1.0] * 10]])
def test_votes_of_another_type_fail_their_row(tmp_path, votes):
    columns = {"image": [png(0, GREY)], "name": ["fer0000001.png"], "ferplus_votes": votes, "split": ["train"]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    _, (row,) = rows_of(tmp_path)
    assert row.image is None
    assert "x.parquet line 1: " in row.reason
