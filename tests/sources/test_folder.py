"""Class folders as torchvision's ImageFolder reads them: root/class/x.png, for each split a tree of its own."""

import os

import numpy as np
import pytest

from synthfer.config import load
from synthfer.expressions import EXPRESSIONS
from synthfer.images import decode
from synthfer.schema import ConfigError
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import SourceError
from synthfer.sources.folder import Config, find
from tests.sources.images import save


def test_class_folders_become_labelled_faces_with_their_pixels(tmp_path):
    names = ["Angry", "disgust", "fear", "happiness", "neutral", "sad", "surprised"]
    pixels = {name: save(tmp_path / name / "1.png", i) for i, name in enumerate(names)}
    found = find(tmp_path, Config())
    entries = list(found.entries)
    assert [EXPRESSIONS[e.label] for e in entries] == list(EXPRESSIONS)
    assert {e.split for e in entries} == {"train"}
    assert [e.key for e in entries] == [f"{name}/1.png" for name in names]
    assert all(e.reason is None for e in entries)
    reader = CollectionReader(tmp_path)
    for entry, name in zip(entries, names, strict=True):
        assert np.array_equal(decode(reader.read(entry.image)), pixels[name])
    assert found.official is None
    assert found.notes == []


def test_split_folders_are_the_splits(tmp_path):
    for i, split in enumerate(("train", "valid", "Test")):
        save(tmp_path / split / "happy" / "a.jpg", i)
    assert [(e.split, e.key) for e in find(tmp_path, Config()).entries] == [
        ("test", "Test/happy/a.jpg"),
        ("train", "train/happy/a.jpg"),
        ("val", "valid/happy/a.jpg"),
    ]


def test_a_class_folder_beside_splits_is_not_guessed(tmp_path):
    save(tmp_path / "train" / "happy" / "a.png")
    save(tmp_path / "sad" / "a.png")
    with pytest.raises(SourceError, match="beside them sad"):
        find(tmp_path, Config())


def test_published_labels_beyond_the_seven_are_rejected_with_their_word(tmp_path):
    save(tmp_path / "contempt" / "a.png")
    (entry,) = find(tmp_path, Config()).entries
    assert entry.label is None
    assert entry.attributes == {"emotion": "contempt"}
    assert "contempt" in entry.reason
    assert entry.image is not None


def test_all_unknown_classes_are_named_with_the_nearest(tmp_path):
    for name in ("happyness", "boredom", "fear"):
        save(tmp_path / name / "a.png")
    with pytest.raises(SourceError, match=r"'boredom', 'happyness'; did you mean 'happy'\?.*classes=.*ignore="):
        find(tmp_path, Config())


def test_numbers_are_classes_only_when_told(tmp_path):
    for name in ("1", "2"):
        save(tmp_path / name / "a.png")
    with pytest.raises(SourceError, match="'1', '2'"):
        find(tmp_path, Config())
    config = load(Config, ["classes={1: surprise, 2: fearful}"])
    assert [EXPRESSIONS[e.label] for e in find(tmp_path, config).entries] == ["surprise", "fear"]


def test_a_class_can_be_left_out_and_that_is_told(tmp_path):
    for name in ("1", "sad"):
        save(tmp_path / name / "a.png")
    found = find(tmp_path, Config(ignore=["1"]))
    assert [e.key for e in found.entries] == ["sad/a.png"]
    assert found.notes == ["left out by ignore: the class folders 1"]


@pytest.mark.parametrize("config", [{"ignore": ["sda"]}, {"classes": {"sda": "happy"}}])
def test_an_option_for_a_folder_that_is_not_there_is_refused(tmp_path, config):
    save(tmp_path / "sad" / "a.png")
    with pytest.raises(SourceError, match="no class folder 'sda'; did you mean 'sad'"):
        find(tmp_path, Config(**config))


def test_a_class_that_means_no_expression_is_refused_in_the_config():
    with pytest.raises(ConfigError, match="unknown expression 'hapy'; did you mean 'happy'"):
        load(Config, ["classes={1: hapy}"])


def test_what_is_no_picture_is_noted(tmp_path):
    save(tmp_path / "sad" / "deep" / "b.PNG")
    for name in ("sad/.DS_Store", "sad/.hidden.png", "labels.csv", "sad/readme.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".git").mkdir()
    found = find(tmp_path, Config())
    assert [e.key for e in found.entries] == ["sad/deep/b.PNG"]
    (note,) = found.notes
    assert note.startswith("not named as images, left out: 5 (")
    for name in (".git", "labels.csv", "sad/.DS_Store", "sad/.hidden.png", "sad/readme.txt"):
        assert name in note


def test_a_damaged_picture_is_an_entry_that_fails_on_reading(tmp_path):
    save(tmp_path / "sad" / "a.png")
    body = (tmp_path / "sad" / "a.png").read_bytes()
    (tmp_path / "sad" / "a.png").write_bytes(body[: len(body) // 2])
    (entry,) = find(tmp_path, Config()).entries
    with pytest.raises(ValueError, match="png: cannot be read"):
        decode(CollectionReader(tmp_path).read(entry.image))


def test_a_name_that_is_no_text_is_a_failed_row(tmp_path):
    save(tmp_path / "sad" / "a.png")
    try:
        os.rename(tmp_path / "sad" / "a.png", os.fsencode(tmp_path / "sad") + b"/\xff.png")  # noqa: PTH104 - bytes
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    (entry,) = find(tmp_path, Config()).entries
    assert entry.image is None
    assert "rename" in entry.reason
    assert entry.to_json().encode()


def test_a_picture_behind_a_link_is_read(tmp_path):
    pixels = save(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "faces" / "sad").mkdir(parents=True)
    (tmp_path / "faces" / "sad" / "x.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    (entry,) = find(tmp_path / "faces", Config()).entries
    assert np.array_equal(decode(CollectionReader(tmp_path / "faces").read(entry.image)), pixels)


def test_an_empty_or_absent_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no layout of source folder"):
        find(tmp_path, Config())
    with pytest.raises(SourceError, match="does not exist; source folder expects"):
        find(tmp_path / "nowhere", Config())
    with pytest.raises(SourceError, match="needs path="):
        find(None, Config())


def test_copies_in_hidden_folders_and_folders_behind_links_are_noted_and_not_read(tmp_path):
    save(tmp_path / "faces" / "sad" / "a.png")
    save(tmp_path / "faces" / "sad" / ".ipynb_checkpoints" / "a-checkpoint.png")
    save(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "faces" / "sad" / "more").symlink_to(tmp_path / "elsewhere")
    found = find(tmp_path / "faces", Config())
    assert [e.key for e in found.entries] == ["sad/a.png"]
    (note,) = found.notes
    assert "left out: 2 (sad/more, sad/.ipynb_checkpoints/a-checkpoint.png)" in note
