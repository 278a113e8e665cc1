"""The object interface on a folder and on a real S3 server."""

import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthfer.store import objects, open_store
from synthfer.store.objects import RangeReader, probe_conditional_create

ALL_RACES = objects._RACES


def test_objects_are_created_once_and_read_back(store_uri):
    store = open_store(store_uri)
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


def test_what_is_absent_is_named(store_uri):
    store = open_store(store_uri)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        store.get("nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        store.open("nowhere")


def test_of_32_racing_writers_one_wins(store_uri):
    store, start = open_store(store_uri), threading.Barrier(32)

    def write(number: int) -> bool:
        start.wait()
        return store.put_new("race", b"writer %02d" % number)

    with ThreadPoolExecutor(32) as pool:
        won = list(pool.map(write, range(32)))
    assert sum(won) == 1
    assert store.get("race") == b"writer %02d" % won.index(True)


def test_probe_tells_atomic_and_leaves_nothing(store_uri, monkeypatch):
    monkeypatch.setattr(objects, "_RACES", ALL_RACES)
    store = open_store(store_uri)
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


def test_a_store_pickles_without_connection_or_secret(store_uri):
    store = open_store(store_uri)
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
