"""Folders: absolute paths, and hard links that are missing or whose answer is lost."""

import errno
import os

import pytest

from synthfer.store import open_store
from synthfer.store.local import LocalStore


def test_file_uris_and_relative_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_store("here").uri == open_store(f"file://{tmp_path}/here").uri == str(tmp_path / "here")
    assert open_store((tmp_path / "a b").as_uri()).uri == str(tmp_path / "a b")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="not a folder"):
        open_store(str(tmp_path / "file"))


def test_a_file_system_without_hard_links_is_refused(tmp_path, monkeypatch):
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(ValueError, match="no hard links"):
        LocalStore(str(tmp_path)).put_new("a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_link_whose_answer_was_lost_is_known_as_ours(tmp_path, monkeypatch):
    link = os.link

    def lossy(source, target):
        link(source, target)
        raise FileExistsError(errno.EEXIST, "asked again by the network file system")

    monkeypatch.setattr(os, "link", lossy)
    assert LocalStore(str(tmp_path)).put_new("a", b"1") is True
