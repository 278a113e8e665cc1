"""S3 behind a proxy that breaks requests: every write happens once, every read is whole."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from synthfer.store import Dataset, StoreUnavailable, open_store
from synthfer.store.s3 import S3Store
from tests.fault_proxy import FAULTS, FaultProxy
from tests.store.tables import filled, ids_of, spec_of


@pytest.fixture
def through(s3_server, s3_uri, monkeypatch):
    """`through(...)`: a proxy with these faults, which synthfer uses from then on."""

    with ExitStack() as proxies:

        def use(**options) -> FaultProxy:
            proxy = proxies.enter_context(FaultProxy(s3_server.endpoint, **options))
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
            return proxy

        yield use


def test_a_lost_answer_is_recognised_as_ours(s3_uri, through):
    proxy = through(faults={"lost_answer": 0.5}, seed=5)
    store = open_store(s3_uri)
    assert all(store.put_new(f"k{n}", b"x" * 1000) for n in range(12))
    assert proxy.counts["lost_answer"] > 8
    assert not any(store.put_new(f"k{n}", b"y" * 1000) for n in range(5))
    assert store.get("k0") == b"x" * 1000


@pytest.mark.parametrize("fault", ["truncated_answer", "reset_before", "slow_body", "error_500", "slow_down_503"])
def test_reads_are_whole_or_repeated(s3_uri, through, fault):
    body = os.urandom(300_000)
    open_store(s3_uri).put_new("a", body)
    proxy = through(faults={fault: 0.4}, seed=3)
    store = open_store(s3_uri)
    for _ in range(8):
        assert store.get("a") == body
        assert store.get("a", 1000, 200_000) == body[1000:200_000]
        assert dict(store.list()) == {"a": len(body)}
    assert proxy.counts[fault] > 4


def test_every_fault_at_once_loses_nothing(s3_uri, through):
    proxy = through(faults=dict.fromkeys(FAULTS, 0.05), seed=11)
    store = open_store(s3_uri)
    bodies = {f"k{n}": os.urandom(20_000) for n in range(40)}
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda item: store.put_new(*item), bodies.items()))
        assert list(pool.map(store.get, bodies)) == list(bodies.values())
    assert dict(store.list()) == dict.fromkeys(bodies, 20_000)
    assert all(store.stat(key).sha256 == hashlib.sha256(body).hexdigest() for key, body in bodies.items())
    assert set(proxy.counts) == {*FAULTS, "none"}


def test_a_late_delivery_changes_nothing(s3_uri, through):
    late = iter(["late_delivery"])
    proxy = through(script=lambda request: next(late, None) if request.method == "PUT" else None)
    store = open_store(s3_uri)
    assert store.put_new("a", b"ours") is True  # by the second attempt; the first arrives afterwards
    proxy.wait_idle()
    assert proxy.counts["late_delivery"] == 1
    assert (store.get("a"), store.stat("a").sha256) == (b"ours", hashlib.sha256(b"ours").hexdigest())


def test_an_outage_ends_in_one_clear_error(s3_uri, through):
    through(faults={"slow_down_503": 1.0})
    with pytest.raises(StoreUnavailable, match="status 503"):
        S3Store(s3_uri, deadline_s=1).put_new("a", b"1")


def test_a_dataset_through_a_bad_network_is_the_same(s3_uri, through, tmp_path):
    calm = filled(str(tmp_path))
    through(faults=dict.fromkeys(FAULTS, 0.03), seed=2)
    dataset = filled(s3_uri)
    assert dataset.manifest.manifest_hash == calm.manifest.manifest_hash
    assert dataset.verify(expected_ids=ids_of) == []
    assert sum(batch.num_rows for batch in dataset.scan(["image"])) == 15


def test_a_store_that_ignores_the_condition_is_warned_of_and_right(s3_uri, monkeypatch, caplog):
    def strip(request, **_: object) -> None:
        del request.headers["If-None-Match"]

    def deaf_client(store: S3Store):
        client = hearing_client(store)
        client.meta.events.register("before-sign.s3.PutObject", strip, unique_id="strip")
        return client

    hearing_client = S3Store._client
    monkeypatch.setattr(S3Store, "_client", deaf_client)
    try:
        monkeypatch.setattr("synthfer.store.sealing._SETTLE_S", 0.01)
        assert open_store(s3_uri).probe() == "none"
        first, second = Dataset.create(s3_uri, spec_of()), Dataset.create(s3_uri, spec_of())
        assert (first.conditional_create, second.conditional_create) == ("none", "none")
        assert "do not run two jobs" in caplog.text
        dataset = filled(s3_uri)
        before = dict(dataset.store.list())
        assert second.store.put_new(second.spec.key(0), b"late") is False
        assert dict(second.store.list()) == before
        assert dataset.verify(expected_ids=ids_of) == []
    finally:
        hearing_client(first.store).meta.events.unregister("before-sign.s3.PutObject", unique_id="strip")
