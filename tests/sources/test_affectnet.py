"""AffectNet: the original lists with boxes, and the release of 2021 with one small array per number."""

import os
import pickle

import numpy as np
import pytest

from synthfer.config import load
from synthfer.expressions import EXPRESSIONS
from synthfer.schema import ConfigError
from synthfer.sources.affectnet import OFFICIAL, Config, find
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import SourceError
from tests.sources.images import save, shows

# The published columns, and the published codes 0..10.
HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
WORDS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
OTHERS = ("contempt", "none", "uncertain", "no-face")


def rows_of(path, **options):
    collection = find(path, Config(**options))
    return collection, list(collection.entries)


def line(name, code, box="2,3,10,12", valence=-0.5, arousal=0.25):
    marks = ";".join(["4.5", "6.25"] * 68)
    return f"{name},{box},{marks},{code},{valence},{arousal}"


def lists(root, training, validation, header=True, folder="Manually_Annotated_file_lists"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "training.csv").write_text("\n".join([HEADER, *training]))
    # In the original release only the training list has a header.
    (root / folder / "validation.csv").write_text("\n".join([*[HEADER] * header, *validation]))


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("folder", [".", "Manually_Annotated_file_lists"])
@pytest.mark.parametrize("images", ["Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", ""])
def test_every_code_box_and_number_of_the_lists_is_read(tmp_path, header, folder, images):
    training = [line(f"{n}/face{n}.jpg", n) for n in range(7)]
    lists(tmp_path, training, [line("9/val.jpg", 3, "10,20,30,40", 0.1, -1)], header, folder)
    for n in range(7):
        save(tmp_path / images / f"{n}/face{n}.jpg", n)
    save(tmp_path / images / "9/val.jpg", 9)
    collection, rows = rows_of(tmp_path)
    assert [EXPRESSIONS[row.label] for row in rows] == [*WORDS, "surprise"]
    assert [row.split for row in rows] == ["train"] * 7 + ["test"]
    assert rows[0].box == (2, 3, 12, 15)  # x, y, width, height -> left, top, right, bottom
    assert rows[7].box == (10, 20, 40, 60)
    assert rows[7].scores == {"valence": 0.1, "arousal": -1}
    assert all(shows(tmp_path, row, seed) for row, seed in zip(rows, [*range(7), 9], strict=True))
    assert any("validation set is the split test" in note for note in collection.notes)
    assert collection.official == OFFICIAL


def test_the_other_four_labels_keep_their_pictures_without_one(tmp_path):
    lists(tmp_path, [line(f"{n}.jpg", n, valence=-2, arousal=-2) for n in range(7, 12)], [])
    for n in range(7, 12):
        save(tmp_path / f"{n}.jpg", n)
    _, rows = rows_of(tmp_path)
    assert [row.attributes["emotion"] for row in rows] == [*OTHERS, "11"]
    assert all(row.label is None and row.reason and shows(tmp_path, row, n) for n, row in enumerate(rows, 7))
    assert "contempt" in rows[0].reason
    assert "'11'" in rows[4].reason
    assert not rows[0].scores  # -2 says that there is none


def test_wrong_lines_fail_alone_and_files_beside_the_lists_are_counted(tmp_path):
    training = [
        line("1/a.jpg", 1),
        line("../a.jpg", 1),
        line("", 1),
        line("1/b.jpg", 1, box="NULL,3,4,5"),
        line("1/c.jpg", 1, valence="nan"),
        "1/d.jpg,1,2,3",
        line('1/"e.jpg', 1) + '"',
        line("1/f.jpg", 1, box="-1,-1,-1,-1"),
        line("1/g.jpg", 10, box="-1,-1,-1,-1"),
        line("1/h.jpg", 4),
    ]
    lists(tmp_path, training, [])
    for n, name in enumerate("afgyz"):
        save(tmp_path / f"Manually_Annotated_Images/1/{name}.jpg", n)
    collection, rows = rows_of(tmp_path)
    assert [row.image is None for row in rows] == [False, *[True] * 6, False, False, False]
    for at in range(1, 7):
        assert rows[at].key == f"training.csv:{at + 2}"
        assert f"training.csv line {at + 2}: " in rows[at].reason
    assert "'NULL'" in rows[3].reason
    assert rows[7].box is None
    assert "no box" in rows[7].reason
    assert "no face" in rows[8].reason
    with pytest.raises(OSError, match="1/h"):
        CollectionReader(tmp_path).read(rows[9].image)
    assert collection.notes[-1].endswith("not in training.csv and validation.csv, left out: 2 (1/y.jpg, 1/z.jpg)")


def test_a_list_without_its_columns_is_refused(tmp_path):
    (tmp_path / "training.csv").write_text("subDirectory_filePath,expression\n")
    with pytest.raises(SourceError, match=r"no column face_x.*It has: subDirectory_filePath, expression"):
        find(tmp_path, Config())


def sets(root, split, faces):
    """train_set or val_set: images/<id>.jpg and one .npy per value."""
    (root / split / "annotations").mkdir(parents=True, exist_ok=True)
    for name, (code, valence, arousal) in faces.items():
        save(root / split / "images" / f"{name}.jpg", int(name))
        for short, value in (("exp", code), ("val", valence), ("aro", arousal)):
            np.save(root / split / "annotations" / f"{name}_{short}.npy", value)
        np.save(root / split / "annotations" / f"{name}_lnd.npy", np.zeros(136))


def test_the_release_of_2021_is_read_with_values_of_any_kind(tmp_path):
    # Stored as text scalars by the release itself; copies hold numbers or arrays of one.
    kinds = {"0": "3", "1": 3, "2": np.float32(3), "3": np.array(["3"]), "10": np.array([3])}
    sets(tmp_path, "train_set", {name: (code, "-0.25", np.float64(0.5)) for name, code in kinds.items()})
    sets(tmp_path, "val_set", {"5": ("6", "-2", "-2")})
    collection, rows = rows_of(tmp_path)
    assert [row.key for row in rows] == ["0", "1", "10", "2", "3", "5"]
    assert [row.split for row in rows] == ["train"] * 5 + ["test"]
    assert [EXPRESSIONS[row.label] for row in rows] == ["surprise"] * 5 + ["anger"]
    assert rows[0].scores == {"valence": -0.25, "arousal": 0.5}
    assert not rows[5].scores
    assert all(shows(tmp_path, row, int(row.key)) for row in rows)
    assert len(collection.notes) == 1


def test_broken_and_pickled_annotations_fail_alone(tmp_path):
    sets(tmp_path, "train_set", {str(n): ("1", "0", "0") for n in range(9)})
    notes = tmp_path / "train_set" / "annotations"
    np.save(notes / "0_exp.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (notes / "1_exp.npy").write_bytes(pickle.dumps("1"))
    (notes / "2_exp.npy").write_bytes((notes / "3_exp.npy").read_bytes()[:-2])
    np.save(notes / "4_exp.npy", np.arange(2))
    np.save(notes / "5_exp.npy", "one")
    (notes / "6_val.npy").write_bytes(b"")
    np.save(notes / "7_exp.npy", np.zeros(4096))
    save(tmp_path / "train_set" / "images" / "99.jpg", 99)
    collection, rows = rows_of(tmp_path)
    assert [row.image is None for row in rows] == [True, True, True, False, True, True, True, True, False]
    for at in (0, 1, 2, 4, 7):
        assert f"{at}_exp.npy" in rows[at].reason
    assert "'one'" in rows[5].reason
    assert "6_val.npy" in rows[6].reason
    assert any("left out: 1 (99.jpg)" in note for note in collection.notes)
    assert any("no val_set" in note for note in collection.notes)


def test_a_code_that_is_no_whole_number_and_a_missing_picture_are_told(tmp_path):
    sets(tmp_path, "val_set", {"1": (1.5, 0, 0), "2": ("7", 0, 0), "3": ("1", 0, 0)})
    (tmp_path / "val_set/images/3.jpg").unlink()
    (tmp_path / "val_set/annotations/3_aro.npy").unlink()
    _, rows = rows_of(tmp_path)
    assert "'1.5'" in rows[0].reason
    assert rows[1].attributes == {"emotion": "contempt"}
    assert rows[2].scores == {"valence": 0}
    with pytest.raises(OSError, match=r"3\.jpg"):
        CollectionReader(tmp_path).read(rows[2].image)


def test_with_eight_classes_contempt_is_counted_beside_what_was_published(tmp_path):
    sets(tmp_path, "train_set", {"1": ("7", 0, 0), "2": ("7", 0, 0), "3": ("1", 0, 0)})
    seven, rows = rows_of(tmp_path)
    eight, same = rows_of(tmp_path, classes=8)
    assert rows == same
    assert "train contempt: 2 here, 3,750 published" in eight.notes
    assert "test contempt: 0 here, 500 published" in eight.notes
    assert not any("contempt" in note for note in seven.notes)


def test_other_numbers_of_classes_are_refused():
    assert load(Config, ["classes=8"]).classes == 8
    with pytest.raises(ConfigError, match="classes"):
        load(Config, ["classes=9"])


def test_something_else_is_refused(tmp_path):
    (tmp_path / "train_set").mkdir()
    with pytest.raises(SourceError, match=r"training\.csv.*There is: train_set"):
        find(tmp_path, Config())


def test_the_published_counts_are_whole():
    assert {split: sum(counts.values()) for split, counts in OFFICIAL.items()} == {"train": 283901, "test": 3500}
    assert OFFICIAL["train"]["disgust"] == 3803


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<i8', 'fortran_order': False, 'shape': (1,), ",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (True,), }",
        "{1: 2, 'a': 3}",
        "  x\n y",
        "01",
        "-" * 3000 + "1",
        "'''",
    ],
)
def test_a_header_that_numpy_cannot_parse_fails_alone(tmp_path, header):
    sets(tmp_path, "val_set", {"1": ("1", 0, 0), "2": ("1", 0, 0)})
    # The .npy format, version 1.0: magic, version, length of the header, header, data.
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(8)
    (tmp_path / "val_set/annotations/1_exp.npy").write_bytes(body)
    _, rows = rows_of(tmp_path)
    assert [row.image is None for row in rows] == [True, False]
    assert "1_exp.npy cannot be read" in rows[0].reason


def test_text_that_is_no_unicode_fails_alone(tmp_path):
    sets(tmp_path, "val_set", {"1": ("1", 0, 0)})
    file = tmp_path / "val_set/annotations/1_exp.npy"
    file.write_bytes(file.read_bytes()[:-4] + b"\xff\xff\xff\xff")  # one UTF-32 character that is none
    _, (row,) = rows_of(tmp_path)
    assert "1_exp.npy cannot be read" in row.reason


def test_annotations_whose_name_is_no_text_are_noted(tmp_path):
    sets(tmp_path, "val_set", {"1": ("1", 0, 0), "2": ("1", 0, 0)})
    notes = tmp_path / "val_set/annotations"
    try:
        os.rename(notes / "1_exp.npy", os.fsencode(notes) + b"/\xff_exp.npy")  # noqa: PTH104 - bytes
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    collection, rows = rows_of(tmp_path)
    assert [row.key for row in rows] == ["2"]
    assert any(r"written as text, left out: 1 ('\udcff')" in note for note in collection.notes)
