"""EmoNet-Face as its readers describe it: `path` is an Image struct and `emotion` a ClassLabel in Binary; HQ has
`path` and a text of ratings in `label`; the card of Big lists image, prompt and demographics."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthfer.images import decode
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.emonet import Config, find
from synthfer.sources.entry import SourceError
from tests.sources.images import pixels, png

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGE = {"_type": "Image"}


def face(seed, path=None):
    return {"bytes": png(seed), "path": path}


def write(folder, features, columns):
    (folder / "data").mkdir(parents=True)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, folder / "data" / "train-00000-of-00001.parquet")
    return folder


def test_binary_keeps_emotions_as_attributes_and_ties_the_rows_of_a_picture(tmp_path):
    features = {"path": IMAGE, "emotion": {"_type": "ClassLabel", "names": ["Amusement", "Anger", "Hopelessness"]}}
    faces = pa.array([face(0, "a.png"), face(0, "a.png"), face(1, "b.png")], STRUCT)
    root = write(tmp_path, features, {"path": faces, "annotator": ["x", "y", "x"], "emotion": [1, 2, 0]})
    found = find(root, Config())
    entries = list(found.entries)
    assert (found.kind, found.licence) == ("synthetic", "CC BY 4.0")
    assert [e.label for e in entries] == [None] * 3
    assert [e.reason for e in entries] == [None] * 3
    assert [e.attributes for e in entries] == [
        {"emotion": "Anger"},
        {"emotion": "Hopelessness"},
        {"emotion": "Amusement"},
    ]
    assert [e.source_id for e in entries] == ["emonet:a.png", "emonet:a.png", "emonet:b.png"]
    assert len({e.key for e in entries}) == 3
    reader = CollectionReader(root)
    for entry, seed in zip(entries, (0, 0, 1), strict=True):
        assert np.array_equal(decode(reader.read(entry.image)), pixels(seed))


def test_ratings_of_hq_are_not_taken_for_labels(tmp_path):
    ratings = "[{'human-1': {'Negative|Anger': 7}}]"
    root = write(
        tmp_path / "emonet-face-hq", {"path": IMAGE}, {"path": pa.array([face(3)], STRUCT), "label": [ratings]}
    )
    found = find(root, Config())
    (entry,) = found.entries
    assert (entry.label, entry.attributes, entry.source_id, entry.reason) == (None, {}, None, None)
    assert found.official == {"train": {"all": 2500}}


def test_demographics_of_big_are_attributes(tmp_path):
    kind = pa.struct([("ethnicity", pa.string()), ("gender", pa.string()), ("age", pa.int64())])
    woman, unknown = {"ethnicity": "Asian", "gender": "Female", "age": 43}, {"gender": "", "age": 20}
    people = pa.array([woman, unknown, None], kind)
    columns = {"image": pa.array([face(i) for i in range(3)], STRUCT), "demographics": people, "Emotion": ["Pride"] * 3}
    root = write(tmp_path / "emonet-face-big" / "snapshot", {"image": IMAGE}, columns)
    found = find(root, Config())
    assert found.official == {"train": {"all": 203_201}}
    assert [e.attributes for e in found.entries] == [
        {"race": "Asian", "gender": "Female", "age": "43", "emotion": "Pride"},
        {"age": "20", "emotion": "Pride"},
        {"emotion": "Pride"},
    ]


def test_pictures_in_plain_bytes_are_read(tmp_path):
    root = write(tmp_path, {}, {"jpg": pa.array([face(5)["bytes"]], pa.binary()), "gender": ["male"]})
    (entry,) = find(root, Config()).entries
    assert (entry.source_id, entry.attributes) == (None, {"gender": "male"})
    assert np.array_equal(decode(CollectionReader(root).read(entry.image)), pixels(5))


def test_a_folder_without_parquet_is_refused(tmp_path):
    with pytest.raises(SourceError, match="source emonet expects"):
        find(tmp_path, Config())


def test_names_of_numbers_do_not_count_where_the_column_holds_words(tmp_path):
    names = {"_type": "ClassLabel", "names": ["Pride"]}
    columns = {"image": pa.array([face(0)], STRUCT), "emotion": ["Doubt"], "gender": [0.5]}
    root = write(tmp_path, {"image": IMAGE, "emotion": names, "gender": names}, columns)
    (entry,) = find(root, Config()).entries
    assert entry.attributes == {"emotion": "Doubt"}


def test_names_with_dots_are_names_of_columns(tmp_path):
    struct = pa.struct([("age", pa.int64())])
    columns = {"my.face": pa.array([face(0, "a.png")], STRUCT), "my": pa.array([{"age": 7}], struct)}
    columns |= {"x.gender": ["woman"], "y.z": pa.array([{"race": "x"}])}
    (entry,) = find(write(tmp_path, {"my.face": IMAGE}, columns), Config()).entries
    assert entry.attributes == {"gender": "woman", "age": "7", "race": "x"}
    assert entry.source_id == "emonet:a.png"
