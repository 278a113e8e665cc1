"""Killed (SIGKILL) at each step of the protocol; whoever runs the same program again finishes the same dataset."""

import os
import signal
import time
from queue import Queue

import pytest

from synthfer.store import Dataset
from tests.fault_proxy import FaultProxy, Request
from tests.store.programs import start
from tests.store.tables import filled, ids_of, spec_of

KEYS = ("_dataset.json", "data/train-00001-of-00003.parquet", "_manifest.parquet", "README.md", "_SUCCESS")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    """The manifest_hash of an undisturbed run."""
    return filled(str(tmp_path_factory.mktemp("undisturbed"))).manifest.manifest_hash


def finish_and_check(uri: str, undisturbed: str) -> None:
    dataset = filled(uri)
    assert dataset.manifest.manifest_hash == undisturbed
    assert dataset.verify(pixels=True, expected_ids=ids_of) == []
    kept = {*KEYS, *(dataset.spec.key(unit) for unit in range(3))}
    assert {key for key, _ in dataset.store.list() if not key.startswith("_probe-")} == kept
    dataset.gc(delete=True, min_age_s=0)
    assert dataset.gc(min_age_s=0) == []


# An object is a link and two fsyncs, of the file and of the folder. The probe makes one and fails to make another; then
# come contract, three shards, manifest, card, _SUCCESS.
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("call", "number"), [("link", n) for n in range(1, 10)] + [("fsync", n) for n in (4, 7, 14)])
def test_local_kill_points(tmp_path, undisturbed, call, moment, number):
    uri = str(tmp_path / "dataset")
    run = start(uri, None, call, moment, number)
    run.join()
    assert run.exitcode == -signal.SIGKILL
    assert not Dataset.exists(uri) or Dataset.open(uri).manifest is None or (call, number) == ("link", 9)
    finish_and_check(uri, undisturbed)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("key", KEYS)
def test_s3_kill_points(s3_server, s3_uri, undisturbed, key, moment):
    """The client dies when its PUT is on the way, and when the server has it but the answer is not read."""
    pids: Queue[int] = Queue()

    def kill(when: str, request: Request) -> None:
        if (when, request.method) == (moment, "PUT") and request.path.split("?")[0].endswith(key):
            os.kill(pids.get(), signal.SIGKILL)

    with FaultProxy(s3_server.endpoint, spy=kill) as proxy:
        run = start(s3_uri, {**s3_server.env, "AWS_ENDPOINT_URL_S3": proxy.endpoint})
        pids.put(run.pid)
        run.join()
        assert run.exitcode == -signal.SIGKILL
    finish_and_check(s3_uri, undisturbed)


def test_killed_again_and_again_at_random_moments(tmp_path, undisturbed):
    """One dataset, killed at growing delays until a run comes through."""
    uri, delay, kills = str(tmp_path / "dataset"), 0.02, 0
    while True:
        run = start(uri)
        run.join(delay)
        if run.exitcode == 0:
            break
        run.kill()
        run.join()
        kills, delay = kills + 1, delay * 1.1
    assert kills
    finish_and_check(uri, undisturbed)


def test_a_run_that_is_complete_writes_nothing(tmp_path):
    dataset = filled(str(tmp_path), spec_of())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    time.sleep(0.01)
    assert filled(str(tmp_path)).manifest == dataset.manifest
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
