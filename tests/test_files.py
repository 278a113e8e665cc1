"""Only regular files are opened; whatever else a path leads to is an error that says what it is."""

import os
import socket

import pytest

from synthfer.files import NotAFileError, check_regular, open_regular, read_file
from tests.special_files import SPECIAL_FILES


def plug(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


KINDS = SPECIAL_FILES | {"a socket": plug}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [check_regular, open_regular, lambda path: read_file(path, 10)])
def test_what_is_no_file_is_named_and_not_opened(kind, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket may have no more than 108 characters
    path = tmp_path / "x"
    KINDS[kind](path if kind != "a socket" else path.relative_to(tmp_path))
    with pytest.raises(NotAFileError, match=f"{path} is {kind}"):
        read(path)


@pytest.mark.parametrize("name", ["x\0y", "y" * 5000])
def test_a_path_that_cannot_be_one_is_named(name, tmp_path):
    with pytest.raises(NotAFileError, match="path"):
        open_regular(tmp_path / name)


def test_a_pipe_that_takes_the_place_of_a_file_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "x"
    os.mkfifo(path)
    monkeypatch.setattr("synthfer.files.check_regular", lambda path: None)  # it was a file a moment ago
    with pytest.raises(NotAFileError, match="named pipe"):
        open_regular(path)


def test_a_link_to_a_file_is_followed(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_file(tmp_path / "link", 3) == b"abc"


def test_a_file_over_the_limit_is_not_read(tmp_path):
    (tmp_path / "file").write_bytes(b"abcd")
    with pytest.raises(ValueError, match="larger than 3 bytes"):
        read_file(tmp_path / "file", 3)


def test_nothing_there_is_another_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "x")
