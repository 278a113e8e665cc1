"""The object interface on a folder and on a real S3 server."""

import errno
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthfer.store import StoreUnavailable, objects, open_store
from synthfer.store.local import LocalStore
from synthfer.store.objects import RangeReader, probe_conditional_create
from synthfer.store.s3 import S3Store
from tests.s3_server import BUCKET

ALL_RACES = objects._RACES


def test_objects_are_created_once_and_read_back(place):
    store = open_store(place)
    assert store.put_new("data/a", b"hello") is True
    assert store.put_new("data/a", pa.py_buffer(b"other")) is False
    assert store.put_new("data/empty", b"") is True
    assert store.get("data/a") == b"hello"
    assert (store.get("data/a", 1, 3), store.get("data/a", -2), store.get("data/a", -99)) == (b"el", b"lo", b"hello")
    assert (store.get("data/a", 9), store.get("data/a", 2, 2), store.get("data/empty", -8)) == (b"", b"", b"")
    assert store.stat("data/a").size == 5
    assert store.stat("data/b") is None
    assert dict(store.list()) == {"data/a": 5, "data/empty": 0}
    assert dict(store.list("data/e")) == {"data/empty": 0}
    assert list(store.list("nothing/")) == []
    with store.open("data/a") as file:
        file.seek(3)
        assert file.read() == b"lo"
    store.delete("data/a")
    store.delete("data/a")
    assert store.stat("data/a") is None


def test_what_is_absent_is_named(place):
    store = open_store(place)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        store.get("nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        store.open("nowhere")


def test_of_32_racing_writers_one_wins(place):
    store, start = open_store(place), threading.Barrier(32)

    def write(number: int) -> bool:
        start.wait()
        return store.put_new("race", b"writer %02d" % number)

    with ThreadPoolExecutor(32) as pool:
        won = list(pool.map(write, range(32)))
    assert sum(won) == 1
    assert store.get("race") == b"writer %02d" % won.index(True)


def test_probe_tells_atomic_and_leaves_nothing(place, monkeypatch):
    monkeypatch.setattr(objects, "_RACES", ALL_RACES)
    store = open_store(place)
    assert store.probe() == "atomic"
    assert list(store.list()) == []


def test_probe_tells_what_ignores_or_races():
    there: set[str] = set()
    assert probe_conditional_create(lambda key, body: not there.add(key), there.discard) == "none"

    def check_then_act(key: str, body: bytes) -> bool:
        absent = key not in there
        threading.Event().wait(0.01)
        there.add(key)
        return absent

    assert probe_conditional_create(check_then_act, there.discard) == "advisory"
    assert not there


def test_a_store_pickles_without_connection_or_secret(place):
    store = open_store(place)
    store.put_new("a", b"1")
    pickled = pickle.dumps(store)
    assert os.environ.get("AWS_SECRET_ACCESS_KEY", "no secret").encode() not in pickled
    assert pickle.loads(pickled).get("a") == b"1"  # noqa: S301


@given(st.binary(max_size=40), st.integers(0, 50), st.integers(-1, 50))
def test_range_reader_reads_like_a_file(body, start, size):
    reader = RangeReader(lambda a, b: body[a:b], len(body))
    reader.seek(start)
    expected = body[start:] if size < 0 else body[start : start + size]
    assert reader.read(size) == expected
    assert reader.tell() == start + len(expected)


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://", "s3://x", "s3://Not_A_Bucket/x", "file://host/x", ""])
def test_wrong_uris_are_refused_with_advice(uri):
    with pytest.raises(ValueError, match=r"s3://bucket/prefix|file:///|folder"):
        open_store(uri)


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


def test_s3_troubles_say_what_to_do(s3_uri, monkeypatch):
    with pytest.raises(ValueError, match=r"bucket does not exist.*create it"):
        open_store("s3://no-such-bucket/x").get("a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")  # so that a new client is made
    with pytest.raises(ValueError, match="credentials") as caught:
        S3Store(f"s3://{BUCKET}/another-client").put_new("a", b"")
    assert "wrong-secret" not in str(caught.value)


def test_no_credentials_and_no_server(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID"):
        S3Store("s3://bucket/x").get("a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9.*run the same command again"):
        S3Store("s3://bucket/x", first_contact_s=0.5).get("a")
