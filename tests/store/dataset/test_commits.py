"""Creating, committing and sealing: every unit once, whoever writes it and however often."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from synthfer.store import DamagedShard, Dataset, Incomplete, Receipt, SpecMismatch
from tests.store.tables import filled, ids_of, spec_of, table_of, with_column


def test_a_dataset_from_first_to_last(store_uri):
    spec = spec_of(rows=15, unit_size=6)
    dataset = Dataset.create(store_uri, spec)
    assert dataset.conditional_create == "atomic"
    assert dataset.manifest is None
    assert dataset.missing().tolist() == [0, 1, 2]
    receipts = [dataset.commit(unit, table_of(spec.unit_rows(unit)), {"seconds": 1.5}) for unit in (0, 2)]
    assert dataset.missing().dtype == np.int64
    assert dataset.missing().tolist() == [1]
    assert (dataset.is_committed(0), dataset.is_committed(1)) == (True, False)
    with pytest.raises(Incomplete, match=r"1 of 3 units .*first: 1"):
        dataset.seal(receipts)
    assert dataset.manifest is None
    receipts.append(dataset.commit(1, table_of(spec.unit_rows(1)), {}))
    manifest = dataset.seal(receipts)
    assert (manifest.rows, manifest.shards) == (15, 3)
    assert sum(n for row in manifest.counts.values() for n in row.values()) == 15
    assert Dataset.open(store_uri).manifest == manifest
    assert dataset.seal() == manifest
    assert {key for key, _ in dataset.store.list()} == {
        "_dataset.json", "_manifest.parquet", "_SUCCESS", "README.md", *(spec.key(unit) for unit in range(3))
    }  # fmt: skip


def test_receipts_are_json_and_sealing_without_them_is_the_same(store_uri, tmp_path):
    with_receipts, without = filled(store_uri), filled(str(tmp_path / "other"), seal=False)
    receipt = without.commit(0, table_of(range(6)), {})
    assert Receipt(**json.loads(json.dumps(asdict(receipt)))) == receipt
    assert without.seal().manifest_hash == with_receipts.manifest.manifest_hash


def test_the_second_commit_of_a_unit_is_dropped(store_uri):
    first, second = Dataset.create(store_uri, spec_of()), Dataset.create(store_uri, spec_of())
    ours = first.commit(0, table_of(range(6)), {})
    theirs = second.commit(0, table_of(range(6), reason="a second time"), {})
    assert (ours.created, theirs.created) == (True, False)
    assert asdict(theirs) == asdict(ours) | {"created": False}
    assert {row["reason"] for batch in first.scan(["reason"]) for row in batch.to_pylist()} == {None, "blank image"}


def test_two_drivers_at_once_make_one_dataset(store_uri, tmp_path):
    spec, calm = spec_of(rows=40, unit_size=4), filled(str(tmp_path / "calm"), spec_of(rows=40, unit_size=4))

    def drive(_: int) -> tuple[str, int]:
        dataset = Dataset.create(store_uri, spec)
        receipts = [dataset.commit(unit, table_of(spec.unit_rows(unit)), {}) for unit in range(spec.units)]
        return dataset.seal(receipts).manifest_hash, sum(receipt.created for receipt in receipts)

    with ThreadPoolExecutor(2) as pool:
        (one, created_by_one), (two, created_by_two) = pool.map(drive, range(2))
    assert one == two == calm.manifest.manifest_hash
    assert created_by_one + created_by_two == spec.units
    assert Dataset.open(store_uri).verify(expected_ids=ids_of) == []


def test_another_spec_is_refused_with_the_difference(store_uri):
    Dataset.create(store_uri, spec_of(seed=1, words=["a"] * 200))
    with pytest.raises(SpecMismatch) as caught:
        Dataset.create(store_uri, spec_of(rows=20, seed=2, words=["b"] * 200, balance="rafdb"))
    lines = str(caught.value).splitlines()[1:]
    assert lines[0].strip() == 'plan.balance: nothing in the dataset, "rafdb" requested'
    assert lines[1].strip() == "plan.seed: 1 in the dataset, 2 requested"
    assert "characters)" in lines[2]
    assert lines[3].strip() == "rows: 15 in the dataset, 20 requested"


def test_a_shard_of_another_spec_under_our_key_is_fatal(store_uri):
    dataset = Dataset.create(store_uri, spec_of())
    stranger = filled(f"{store_uri}-stranger", spec_of(seed=9))
    dataset.store.put_new(dataset.spec.key(0), stranger.store.get(stranger.spec.key(0)))
    with pytest.raises(DamagedShard, match=r"not this dataset's: spec"):
        dataset.commit(0, table_of(range(6)), {})
    with pytest.raises(DamagedShard, match=r"00000-of-00003.*spec"):
        list(dataset.scan())
    for unit in (1, 2):
        dataset.commit(unit, table_of(dataset.spec.unit_rows(unit)), {})
    with pytest.raises(DamagedShard, match="spec"):
        dataset.seal()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda t: t.slice(1), "5 rows, while the unit has 6"),
        (lambda t: t.drop_columns("prompt"), "prompt"),
        (lambda t: pa.concat_tables([t.slice(1), t.slice(5)]), "appear twice"),
        (lambda t: with_column(t, "label", [7, 0, 0, 0, 0, 0]), "label is not null or 0..6, first in row 0"),
        (
            lambda t: with_column(t, "decision", ["accepted"] * 2 + ["maybe"] + ["accepted"] * 3),
            "maybe|decision.*row 2",
        ),
        (lambda t: with_column(t, "decision", ["failed"] * 6), "failed row has an image"),
        (lambda t: with_column(t, "decision", ["accepted"] * 6), "failed row has an image, or another has none"),
        (lambda t: with_column(t, "pixels_hash", [None] * 6), "pixels_hash"),
        (lambda t: with_column(t, "sample_id", [None] * 6), "missing"),
    ],
)
def test_a_wrong_table_is_not_committed(tmp_path, wrong, message):
    dataset = Dataset.create(str(tmp_path), spec_of())
    with pytest.raises(ValueError, match=message) as caught:
        dataset.commit(0, wrong(table_of(range(6))), {})
    assert "train-00000-of-00003" in str(caught.value)
    assert dataset.missing().tolist() == [0, 1, 2]


def test_unlabelled_rows_are_counted_apart(tmp_path):
    dataset = Dataset.create(str(tmp_path), spec_of(rows=6))
    receipt = dataset.commit(0, with_column(table_of(range(6)), "label", [None, 0, 0, 6, None, 6]), {})
    assert receipt.counts == {
        "anger": {"accepted": 2}, "none": {"accepted": 1, "failed": 1}, "surprise": {"accepted": 2}
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "synthfer/9"}', "null"])
def test_a_damaged_contract_is_named(tmp_path, text):
    (tmp_path / "_dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"_dataset\.json"):
        Dataset(str(tmp_path))


def test_an_edited_contract_is_refused(tmp_path):
    Dataset.create(str(tmp_path), spec_of())
    path = tmp_path / "_dataset.json"
    path.write_text(path.read_text().replace('"rows": 15', '"rows": 16'))
    with pytest.raises(ValueError, match="was edited"):
        Dataset(str(tmp_path))


def test_where_there_is_no_dataset(store_uri):
    assert not Dataset.exists(store_uri)
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        Dataset.open(store_uri)
    Dataset.create(store_uri, spec_of())
    assert Dataset.exists(store_uri)


def test_missing_is_quick(tmp_path):
    dataset = Dataset.create(str(tmp_path), spec_of(rows=100_000, unit_size=1))
    (tmp_path / "data").mkdir()
    for unit in set(range(20_000)) - {7}:
        os.mknod(tmp_path / dataset.spec.key(unit))
    started = time.process_time()
    assert dataset.missing().tolist() == [7, *range(20_000, 100_000)]
    assert time.process_time() - started < 1  # a fifth of 100,000 shards takes a tenth of that
