"""What is cut, changed, foreign or left over is found by verify, never read as good, and named."""

import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthfer.sample import SCHEMA
from synthfer.store import DamagedShard, Dataset
from synthfer.store.shard import encode
from tests.s3_server import BUCKET
from tests.store.tables import filled, ids_of, spec_of, table_of, with_column


def replace(dataset: Dataset, unit: int, body: bytes) -> None:
    dataset.store.delete(dataset.spec.key(unit))
    assert dataset.store.put_new(dataset.spec.key(unit), body)


def cut(body: bytes) -> bytes:
    return body[: len(body) // 2]


def flipped(body: bytes) -> bytes:
    return body[:200] + bytes([body[200] ^ 1]) + body[201:]


def zeroed(body: bytes) -> bytes:
    return bytes(len(body))


def empty(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("damage", [cut, flipped, zeroed, empty])
def test_damage_is_found_and_never_read_as_good(store_uri, damage, sealed):
    dataset = filled(store_uri, seal=sealed)
    replace(dataset, 1, damage(dataset.store.get(dataset.spec.key(1))))
    dataset = Dataset.open(store_uri)
    assert dataset.spec.key(1) in {finding.key for finding in dataset.verify()}
    for columns in (SCHEMA.names, None):
        with pytest.raises(DamagedShard, match="train-00001-of-00003"):
            list(dataset.scan(columns))
    assert sum(batch.num_rows for batch in dataset.scan(units=[0, 2])) == 9


@pytest.fixture(scope="module")
def sealed_shard(tmp_path_factory):
    dataset = filled(str(tmp_path_factory.mktemp("sealed")), spec_of(rows=6))
    return dataset, dataset.store.get(dataset.spec.key(0)), list(dataset.scan(SCHEMA.names))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_changed_bit_is_found_by_a_full_read_and_never_misread(sealed_shard, data):
    dataset, body, rows = sealed_shard
    at, bit = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(0, 7))
    changed = body[:at] + bytes([body[at] ^ (1 << bit)]) + body[at + 1 :]
    replace(dataset, 0, changed)
    assert {finding.key for finding in dataset.verify()} == {dataset.spec.key(0)}
    with pytest.raises(DamagedShard):
        list(dataset.scan(SCHEMA.names))
    try:  # reads only the other columns, so the bit may be one that it does not need
        names = SCHEMA.names[:-1]
        assert list(dataset.scan(names)) == [batch.select(names) for batch in rows]
    except DamagedShard:
        pass


def test_a_shard_swapped_for_a_valid_one_is_found(store_uri):
    dataset = filled(store_uri)
    table = table_of(range(6, 12), reason="edited later")
    replace(dataset, 1, encode(table, 1, dataset.spec, {})[0].to_pybytes())
    assert {finding.key for finding in dataset.verify()} == {dataset.spec.key(1)}
    with pytest.raises(DamagedShard, match=r"manifest|after the dataset was sealed"):
        list(dataset.scan())


def test_a_missing_shard_a_stray_file_and_a_changed_manifest_are_found(store_uri):
    dataset = filled(store_uri)
    dataset.store.delete(dataset.spec.key(2))
    dataset.store.put_new("data/train-00007-of-00009.parquet", b"a stranger")
    dataset.store.put_new("data/notes.txt", b"a stranger")
    findings = {(finding.key, finding.problem) for finding in dataset.verify()}
    assert (dataset.spec.key(2), "is missing") in findings
    assert {key for key, problem in findings if "not a shard" in problem} == {
        "data/train-00007-of-00009.parquet", "data/notes.txt"
    }  # fmt: skip
    with pytest.raises(DamagedShard, match="is missing"):
        list(dataset.scan())
    body = dataset.store.get("_manifest.parquet")
    dataset.store.delete("_manifest.parquet")
    dataset.store.put_new("_manifest.parquet", flipped(body))
    dataset = Dataset.open(store_uri)
    assert "_manifest.parquet" in {finding.key for finding in dataset.verify()}
    with pytest.raises(DamagedShard, match=r"_manifest\.parquet"):
        list(dataset.scan())


def test_an_unsealed_dataset_is_not_sound(tmp_path):
    dataset = Dataset.create(str(tmp_path), spec_of())
    assert [f.key for f in dataset.verify()] == ["_SUCCESS", *(dataset.spec.key(unit) for unit in range(3))]


def test_verify_knows_the_plan_and_the_pictures(tmp_path):
    spec, steps = spec_of(), []
    dataset = filled(str(tmp_path), spec)
    assert dataset.verify(lambda done, total: steps.append((done, total)), pixels=True, expected_ids=ids_of) == []
    assert steps == [(1, 3), (2, 3), (3, 3)]
    wrong = dataset.verify(expected_ids=lambda rows: ids_of(reversed(rows)))
    assert len(wrong) == 3
    assert all("than the plan" in finding.problem for finding in wrong)


def test_verify_finds_a_picture_that_is_not_the_recorded_one(tmp_path):
    dataset = Dataset.create(str(tmp_path), spec_of(rows=6))
    table = table_of(range(6))
    images = table["image"].to_pylist()
    images[0], images[1] = images[1], {"bytes": b"no picture", "path": None}
    dataset.commit(0, with_column(table, "image", images), {})
    dataset.seal()
    problems = [finding.problem for finding in dataset.verify(pixels=True)]
    assert len(problems) == 2
    assert "not the one" in problems[0]
    assert "cannot be read" in problems[1]


def test_verify_finds_a_sample_that_is_in_two_shards(tmp_path):
    dataset = Dataset.create(str(tmp_path), spec_of(rows=12))
    for unit in range(2):
        dataset.commit(unit, table_of(range(6)), {})
    dataset.seal()
    assert [finding.problem for finding in dataset.verify()] == ["6 sample ids are in more than one shard"]


def test_gc_finds_left_overs_and_removes_them_when_told(store_uri, s3_server):
    dataset = filled(store_uri)
    before = set(dataset.store.list())
    dataset.store.put_new("_probe-1234", b"")
    if store_uri.startswith("s3"):
        client, prefix = s3_server.client(), store_uri.split("/", 3)[3]
        upload = client.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/data/x.parquet")["UploadId"]
        expected = f"data/x.parquet (upload {upload})"
    else:
        expected = f"data/.train-00000.parquet.{'0' * 32}.tmp"
        (dataset.store._root / expected).write_bytes(b"half")
    assert dataset.gc(delete=True) == []  # both are young: their writers may be at work
    assert dataset.gc(min_age_s=0) == ["_probe-1234", expected]
    assert dataset.gc(delete=True, min_age_s=0) == ["_probe-1234", expected]
    assert dataset.gc(min_age_s=0) == []
    assert set(dataset.store.list()) == before
    assert dataset.verify() == []


def test_gc_takes_what_is_old(tmp_path):
    dataset = filled(str(tmp_path))
    left = tmp_path / "data" / f".train.{'f' * 32}.tmp"
    for path in (left, tmp_path / "_probe-12ab-0"):
        path.touch()
        os.utime(path, (time.time() - 7200,) * 2)
    (tmp_path / "_probe-34cd-0").touch()
    assert dataset.gc(delete=True) == ["_probe-12ab-0", f"data/{left.name}"]
    assert dataset.gc(min_age_s=0) == ["_probe-34cd-0"]
