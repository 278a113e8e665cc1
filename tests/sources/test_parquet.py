"""Parquet with pictures; the Hugging Face layout is written by the library `datasets` itself."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthfer.config import load
from synthfer.expressions import EXPRESSIONS
from synthfer.images import decode
from synthfer.sample import SCHEMA
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import SourceError
from synthfer.sources.parquet import Config, find
from tests.sources.images import pixels, png

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path, features=None, /, group=None, **columns):
    """A table whose first columns hold pictures; `features` as in the `huggingface` metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=group)
    return path


def pictures(n, first=0):
    return pa.array([png(first + i) for i in range(n)], pa.binary())


def check_pixels(root, entries, seeds):
    reader = CollectionReader(root)
    for entry, seed in zip(entries, seeds, strict=True):
        assert np.array_equal(decode(reader.read(entry.image)), pixels(seed))


def test_a_dataset_of_the_datasets_library_needs_no_options(tmp_path):
    datasets = pytest.importorskip("datasets")
    names = ["sad", "contempt", "happiness"]
    features = datasets.Features(
        {"face": datasets.Image(), "label": datasets.ClassLabel(names=names), "id": datasets.Value("int32")}
    )
    for split, first in (("train", 0), ("validation", 3)):
        faces = [{"bytes": png(first + i), "path": f"{first + i}.png"} for i in range(3)]
        made = datasets.Dataset.from_dict({"face": faces, "label": [0, 1, 2], "id": [7, 8, 9]}, features=features)
        (tmp_path / "data").mkdir(exist_ok=True)
        made.to_parquet(str(tmp_path / "data" / f"{split}-00000-of-00001.parquet"))
    (tmp_path / "README.md").write_text("card")
    found = find(tmp_path, Config())
    entries = list(found.entries)
    assert [e.split for e in entries] == ["train"] * 3 + ["val"] * 3
    assert [e.label for e in entries[:3]] == [EXPRESSIONS.index("sad"), None, EXPRESSIONS.index("happy")]
    assert entries[1].attributes == {"emotion": "contempt"}
    assert "contempt" in entries[1].reason
    assert len({(e.split, e.key) for e in entries}) == 6
    assert found.notes == ["not Parquet files of faces, left out: 1 (README.md)"]
    check_pixels(tmp_path, entries, range(6))


def test_words_in_a_plain_file_are_labels(tmp_path):
    words = ["Anger", "fearful", "bored", None, ""]
    file = write(tmp_path / "x.parquet", image=pictures(5), expression=words)
    entries = list(find(file, Config()).entries)
    assert [e.label for e in entries] == [0, 2, None, None, None]
    assert "'bored'" in entries[2].reason
    assert [e.reason for e in entries[3:]] == [None, None]  # unlabelled is no fault
    check_pixels(tmp_path, entries, range(5))


def test_row_groups_and_files_keep_their_order(tmp_path):
    write(tmp_path / "b.parquet", jpg=pictures(5), label=["sad"] * 5, group=2)
    write(tmp_path / "a.parquet", jpg=pictures(3, 5), label=["happy"] * 3, group=2)
    entries = list(find(tmp_path, Config()).entries)
    assert [e.key for e in entries] == [f"a.parquet#{i}" for i in range(3)] + [f"b.parquet#{i}" for i in range(5)]
    check_pixels(tmp_path, entries, [5, 6, 7, 0, 1, 2, 3, 4])


def test_bare_numbers_are_refused_until_their_order_is_named(tmp_path):
    file = write(tmp_path / "x.parquet", image=pictures(3), label=[0, 6, 7])
    with pytest.raises(SourceError, match=r"bare numbers.*order=NAME.*fer2013: anger, disgust"):
        find(file, Config())
    entries = list(find(file, load(Config, ["order=fer2013"])).entries)
    assert [e.label for e in entries[:2]] == [EXPRESSIONS.index("anger"), EXPRESSIONS.index("neutral")]
    assert entries[2].label is None
    assert "label '7' is none of" in entries[2].reason


def test_numbers_that_start_at_one_are_not_read_as_if_they_started_at_zero(tmp_path):
    # RAF-DB counts 1 surprise ... 7 neutral.
    file = write(tmp_path / "x.parquet", image=pictures(3), label=[1, 7, 4])
    with pytest.raises(SourceError, match="set first=1"):
        find(file, Config(order="rafdb"))
    entries = list(find(file, Config(order="rafdb", first=1)).entries)
    assert [EXPRESSIONS[e.label] for e in entries] == ["surprise", "neutral", "happy"]
    file = write(tmp_path / "y.parquet", image=pictures(2), label=[0, 6])
    with pytest.raises(SourceError, match="set first=0"):
        find(file, Config(order="rafdb", first=1))


def test_classes_that_are_only_numbers_are_refused(tmp_path):
    names = {"label": {"_type": "ClassLabel", "names": ["0", "1"]}}
    file = write(tmp_path / "x.parquet", names, image=pictures(2), label=[0, 1])
    with pytest.raises(SourceError, match="no class of column 'label' is an expression: 0, 1"):
        find(file, Config())
    assert [EXPRESSIONS[e.label] for e in find(file, Config(order="affectnet")).entries] == ["neutral", "happy"]


def test_minus_one_is_how_the_datasets_library_writes_no_label(tmp_path):
    names = {"label": {"_type": "ClassLabel", "names": ["sad", "happy"]}}
    file = write(tmp_path / "x.parquet", names, image=pictures(3), label=[-1, 1, 5])
    entries = list(find(file, Config()).entries)
    assert [(e.label, bool(e.reason)) for e in entries] == [(None, False), (3, False), (None, True)]


def test_labels_can_be_left_out(tmp_path):
    file = write(tmp_path / "x.parquet", image=pictures(1), label=[3])
    (entry,) = find(file, load(Config, ["label=''"])).entries
    assert (entry.label, entry.reason) == (None, None)


def test_split_and_original_come_from_columns(tmp_path):
    file = write(
        tmp_path / "train-0.parquet",
        image=pictures(3),
        label=["sad"] * 3,
        split=["test", "Validation", "fold3"],
        name=["a", None, "c"],
    )
    entries = list(find(file, Config(source_id="name")).entries)
    assert [(e.split, e.source_id) for e in entries] == [("test", "a"), ("val", None), ("train", "c")]
    assert [bool(e.reason) for e in entries] == [False, False, True]
    assert "'fold3'" in entries[2].reason


def test_folders_of_splits_are_splits(tmp_path):
    # As the parquet-converter of the Hugging Face hub writes: <config>/<split>/0000.parquet
    write(tmp_path / "default" / "test" / "0000.parquet", image=pictures(1))
    assert [e.split for e in find(tmp_path, Config()).entries] == ["test"]


def test_the_pictures_column_is_found_or_asked_for(tmp_path):
    file = write(tmp_path / "x.parquet", thing=pictures(1), other=pictures(1, 1))
    with pytest.raises(SourceError, match=r"image=NAME.*thing \(binary\), other \(binary\)"):
        find(file, Config())
    check_pixels(tmp_path, find(file, Config(image="other")).entries, [1])
    with pytest.raises(SourceError, match="did you mean 'thing'"):
        find(file, Config(image="thng"))
    # A column of paths is no column of pictures.
    file = write(tmp_path / "y.parquet", path=["a.png"], png=pictures(1))
    check_pixels(tmp_path, find(file, Config()).entries, [0])


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    file = write(tmp_path / "x.parquet", image=pictures(1), expresion=["sad"])
    with pytest.raises(SourceError, match=r"no column 'expression'; did you mean 'expresion'\?"):
        find(file, Config(label="expression"))


def test_a_row_without_a_picture_fails_alone(tmp_path):
    rows = [{"bytes": png(0), "path": None}, {"bytes": None, "path": "gone.png"}, None]
    file = write(tmp_path / "x.parquet", image=pa.array(rows, STRUCT), label=["sad"] * 3)
    entries, reader = list(find(file, Config()).entries), CollectionReader(tmp_path)
    assert np.array_equal(decode(reader.read(entries[0].image)), pixels(0))
    for entry in entries[1:]:
        with pytest.raises(ValueError, match="no image bytes"):
            reader.read(entry.image)


def test_a_truncated_or_different_file_is_one_failed_row_and_the_others_go_on(tmp_path):
    write(tmp_path / "a.parquet", image=pictures(2), label=["sad", "happy"])
    body = write(tmp_path / "b.parquet", image=pictures(2), label=["sad", "happy"]).read_bytes()
    (tmp_path / "b.parquet").write_bytes(body[: len(body) // 2])
    write(tmp_path / "c.parquet", image=pictures(1), label=[1])
    write(tmp_path / "d.parquet", image=pictures(1), label=["fear"])
    entries = list(find(tmp_path, Config()).entries)
    assert [(e.key, e.image is None) for e in entries] == [
        ("a.parquet#0", False),
        ("a.parquet#1", False),
        ("b.parquet", True),
        ("c.parquet", True),
        ("d.parquet#0", False),
    ]
    assert "label is string in the first file, and here: int64" in entries[3].reason


def test_a_damaged_column_of_labels_fails_its_rows_and_no_others(tmp_path):
    file = write(tmp_path / "x.parquet", image=pictures(4), label=["sad", "happy", "fear", "fear"], group=2)
    column = pq.ParquetFile(file).metadata.row_group(0).column(1)
    body = bytearray(file.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    body[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    file.write_bytes(body)
    entries = list(find(file, Config()).entries)
    assert [(e.key, e.label, e.image is None) for e in entries] == [
        ("x.parquet#0", None, True),
        ("x.parquet#1", None, True),
        ("x.parquet#2", 2, False),
        ("x.parquet#3", 2, False),
    ]


def test_a_dataset_of_synthfer_needs_no_import(tmp_path):
    pq.write_table(SCHEMA.empty_table(), tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(SourceError, match="a dataset of synthfer already"):
        find(tmp_path, Config())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "_dataset.json").write_text("{}")
    with pytest.raises(SourceError, match="a dataset of synthfer already"):
        find(tmp_path / "other", Config())


def test_what_is_no_parquet_is_refused(tmp_path):
    with pytest.raises(SourceError, match="0 are there"):
        find(tmp_path, Config())
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(SourceError, match="1 are there, and none can be read"):
        find(tmp_path, Config())


def test_metadata_that_is_no_json_is_passed_over(tmp_path):
    table = pa.table({"image": pictures(1), "label": ["sad"]}).replace_schema_metadata({"huggingface": "{oops"})
    pq.write_table(table, tmp_path / "x.parquet")
    assert [e.label for e in find(tmp_path, Config()).entries] == [EXPRESSIONS.index("sad")]


def test_a_real_file_of_faces(shared_data):
    file = shared_data / "fer2013_small.parquet"
    config = Config(label="fer_label", order="fer2013", split="")
    entries = list(find(file, config).entries)
    table = pq.read_table(file, columns=["fer_label_name", "image"]).slice(0, 50).to_pylist()
    reader = CollectionReader(shared_data)
    assert len(entries) == 7500
    for entry, row in zip(entries, table, strict=False):
        assert EXPRESSIONS[entry.label] in (row["fer_label_name"], {"angry": "anger"}.get(row["fer_label_name"]))
        assert reader.read(entry.image) == row["image"]


def test_a_label_that_is_no_text_fails_its_rows(tmp_path):
    words = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
    )
    file = write(tmp_path / "x.parquet", image=pictures(1), label=words)
    (entry,) = find(file, Config()).entries
    assert entry.image is None
    assert "x.parquet: row group 0 cannot be read" in entry.reason


def test_a_later_file_with_other_labels_does_not_stop_the_search_for_the_range(tmp_path):
    write(tmp_path / "a.parquet", image=pictures(2), label=[1, 7])
    write(tmp_path / "b.parquet", image=pictures(1), label=["sad"])
    with pytest.raises(SourceError, match="holds 1, 7, which"):
        find(tmp_path, load(Config, ["order=rafdb"]))
    entries = list(find(tmp_path, load(Config, ["order=rafdb", "first=1"])).entries)
    assert [e.image is None for e in entries] == [False, False, True]


def test_a_column_that_is_there_twice_is_refused_or_fails_the_later_file(tmp_path):
    table = pa.table([pictures(1), pictures(1)], names=["image", "image"])
    pq.write_table(table, tmp_path / "b.parquet")
    with pytest.raises(SourceError, match="several columns 'image'"):
        find(tmp_path, Config())
    write(tmp_path / "a.parquet", image=pictures(1))
    assert [e.key for e in find(tmp_path, Config()).entries] == ["a.parquet#0", "b.parquet"]


def test_a_file_whose_name_is_no_text_is_noted(tmp_path):
    write(tmp_path / "a.parquet", image=pictures(1))
    try:
        (tmp_path / os.fsdecode(b"\xff.parquet")).write_bytes((tmp_path / "a.parquet").read_bytes())
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    found = find(tmp_path, Config())
    assert [e.key for e in found.entries] == ["a.parquet#0"]
    assert r"left out: 1 ('\udcff.parquet')" in found.notes[0]


@pytest.mark.parametrize("others", [{}, {"my": pa.array([{"label": 1}] * 2)}], ids=["alone", "beside a struct"])
def test_names_with_dots_are_names_of_columns(tmp_path, others):
    faces = pa.array([{"bytes": png(i), "path": "x"} for i in range(2)], STRUCT)
    columns = {**others, "my.face": faces, "my.label": ["sad", "happy"]}
    file = write(tmp_path / "x.parquet", **columns)
    entries = list(find(file, Config(image="my.face", label="my.label")).entries)
    assert [EXPRESSIONS[e.label] for e in entries] == ["sad", "happy"]
    check_pixels(tmp_path, entries, range(2))


NUMBERS_AS_TEXT = {
    "text": pa.string(),
    "large text": pa.large_string(),
    "text in views": pa.string_view(),
    "a dictionary": pa.dictionary(pa.int32(), pa.string()),
}


@pytest.mark.parametrize("case", NUMBERS_AS_TEXT)
def test_an_order_counts_in_whole_numbers_that_are_written_as_text_too(tmp_path, case):
    def column(*words):
        return pa.array(words, pa.string()).cast(NUMBERS_AS_TEXT[case])

    file = write(tmp_path / "x.parquet", image=pictures(7), label=column("0", "6", " 3", "sad", "-1", None, "7"))
    entries = list(find(file, Config(order="fer2013")).entries)
    labels = [None if e.label is None else EXPRESSIONS[e.label] for e in entries]
    assert labels == ["anger", "neutral", "happy", "sad", None, None, None]
    assert [e.reason for e in entries[4:6]] == [None, None]
    assert "label '7' is none of the published codes 0 to 6" in entries[6].reason
    file = write(tmp_path / "y.parquet", image=pictures(2), label=column("1", "7"))
    with pytest.raises(SourceError, match=r"holds 1, 7, which do not start at 0: set first=1"):
        find(file, Config(order="rafdb"))


# name -> types of the pictures and of the labels in the first and in the second file
SAME_KINDS = {
    "wide text": (pa.binary(), pa.string(), pa.binary(), pa.large_string()),
    "wide bytes": (pa.binary(), pa.string(), pa.large_binary(), pa.string()),
    "views": (pa.binary(), pa.string(), pa.binary_view(), pa.string_view()),
    "views first": (pa.binary_view(), pa.string_view(), pa.large_binary(), pa.large_string()),
    "a dictionary": (pa.binary(), pa.string(), pa.binary(), pa.dictionary(pa.int8(), pa.string())),
    "structs": (
        STRUCT,
        pa.string(),
        pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())]),
        pa.string(),
    ),
    "narrow numbers": (pa.binary(), pa.int64(), pa.binary(), pa.int8()),
}


@pytest.mark.parametrize("case", SAME_KINDS)
def test_files_that_differ_only_in_width_are_read_alike(tmp_path, case):
    kinds = SAME_KINDS[case]
    for number, (image, label) in enumerate((kinds[:2], kinds[2:])):
        faces = [png(number)] if not pa.types.is_struct(image) else [{"bytes": png(number), "path": "x"}]
        words = pa.array([3] if pa.types.is_integer(label) else ["happy"]).cast(label)
        write(tmp_path / f"{number}.parquet", image=pa.array(faces, image), label=words)
    order = "fer2013" if pa.types.is_integer(kinds[1]) else None
    entries = list(find(tmp_path, Config(order=order)).entries)
    assert [(e.key, EXPRESSIONS[e.label]) for e in entries] == [("0.parquet#0", "happy"), ("1.parquet#0", "happy")]
    check_pixels(tmp_path, entries, range(2))
