"""Walking through folders that nobody vouches for, and notes on what is left out."""

import os

import pytest

from synthfer.sources.entry import SourceError
from synthfer.sources.layouts import class_folders, file_at, folder_of, is_picture, left_out, unlisted, walk


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_a_walk_gives_every_file_in_one_order(tmp_path):
    touch(tmp_path, "b/2.png", "b/10.png", "a/z/1.png", "c.txt", "b/.x")
    assert list(walk(tmp_path)) == ["c.txt", "a/z/1.png", "b/.x", "b/10.png", "b/2.png"]
    assert list(walk(tmp_path / "nowhere")) == []
    assert list(walk(tmp_path / "c.txt")) == []


def test_a_link_to_a_folder_is_named_and_not_followed(tmp_path):
    touch(tmp_path, "in/a.png", "out/b.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    assert list(walk(tmp_path / "in")) == ["a.png", "link", "round"]


def test_a_folder_that_cannot_be_listed_is_refused_and_not_skipped(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.png", "b/1.png")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(SourceError, match=r"b cannot be listed \(Permission denied\)"):
        list(walk(tmp_path))


@pytest.mark.parametrize("name", ["a.png", "A.JPEG", "x/y.webp", "x.y/z.gif"])
def test_names_of_pictures(name):
    assert is_picture(name)


@pytest.mark.parametrize("name", ["a.txt", "png", "._a.png", "x/.a.png", ".ipynb_checkpoints/a.png", "x/.b/a.png"])
def test_other_and_hidden_names_are_none(name):
    assert not is_picture(name)


def test_class_folders_take_pictures_and_tell_of_the_rest(tmp_path):
    touch(tmp_path, "sad/b.png", "sad/a.JPG", "sad/._a.jpg", "sad/deep/c.png", "fear/x.txt", "list.csv", ".git/d.png")
    notes = []
    found = list(class_folders(tmp_path, ".", notes))
    assert found == [("sad", "sad/a.JPG"), ("sad", "sad/b.png")]
    (note,) = notes
    assert note.endswith("left out: 5 (.git/d.png, fear/x.txt, list.csv, sad/._a.jpg, sad/deep/c.png)")


def test_pictures_beside_a_list_are_noted(tmp_path):
    touch(tmp_path, "x/b.png", "x/sub/a.png", "x/c.png", "x/readme.txt")
    assert unlisted(tmp_path / "x", {"c.png"}, "L") == ["x: images that are not in L, left out: 2 (b.png, sub/a.png)"]
    assert unlisted(tmp_path / "none", set(), "L") == []


def test_a_note_counts_all_and_names_some_on_one_line():
    assert left_out([], "odd") == []
    assert left_out(["a"], "odd") == ["odd, left out: 1 (a)"]
    (note,) = left_out([f"{n}" for n in range(1234)], "odd")
    assert note == "odd, left out: 1,234 (0, 1, 2, 3, 4, ...)"
    (note,) = left_out(["a\nb", "\udcff.png"], "odd")
    assert note.encode() == rb"odd, left out: 2 ('a\nb', '\udcff.png')"


def test_a_file_is_found_in_a_folder_or_given_by_itself(tmp_path):
    touch(tmp_path, "b.csv", "c.csv", "d.txt")
    assert file_at(tmp_path, "a.csv", "c.csv", "b.csv") == tmp_path / "c.csv"
    assert file_at(tmp_path / "b.csv", "a.csv") == tmp_path / "b.csv"
    assert file_at(tmp_path / "d.txt", "a.csv") is None
    assert folder_of(tmp_path / "b.csv") == folder_of(tmp_path) == tmp_path
