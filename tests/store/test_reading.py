"""Scans: only what is asked for is read, in plan order, before and after the seal; and what others read."""

import json
import random

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from synthfer.expressions import EXPRESSIONS
from synthfer.sample import METADATA_COLUMNS, SCHEMA
from synthfer.store import Dataset
from synthfer.store.card import dataset_card
from synthfer.store.objects import RangeReader
from synthfer.store.shard import encode, read_footer
from tests.store.tables import filled, ids_of, spec_of, table_of, with_column


class CountingStore:
    """A store that counts the bytes that leave it."""

    def __init__(self, store) -> None:
        self._store, self.read = store, 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def get(self, key, start=0, end=None):
        body = self._store.get(key, start, end)
        self.read += len(body)
        return body

    def open(self, key, size=None):
        size = self._store.stat(key).size
        return pa.PythonFile(RangeReader(lambda a, b: self.get(key, a, b), size), mode="r")


def rows_of(batches) -> list[dict]:
    return [row for batch in batches for row in batch.to_pylist()]


def test_a_scan_is_in_plan_order_before_and_after_the_seal(place):
    dataset = filled(place, seal=False)
    assert [row["sample_id"] for row in rows_of(dataset.scan(["sample_id"]))] == ids_of(range(15))
    dataset.seal()
    dataset = Dataset.open(place)
    assert [row["sample_id"] for row in rows_of(dataset.scan(["sample_id"]))] == ids_of(range(15))
    assert [row["sample_id"] for row in rows_of(dataset.scan(["sample_id"], units=[2, 0]))] == ids_of(
        [*range(6), 12, 13, 14]
    )
    assert pa.Table.from_batches(dataset.scan(SCHEMA.names)).equals(table_of(range(15)).combine_chunks())
    assert next(dataset.scan()).schema.names == list(METADATA_COLUMNS)


def test_a_scan_of_committed_units_only(tmp_path):
    dataset = Dataset.create(str(tmp_path), spec_of())
    assert rows_of(dataset.scan()) == []
    dataset.commit(1, table_of(range(6, 12)), {})
    assert len(rows_of(dataset.scan())) == 6
    with pytest.raises(ValueError, match=r"units \[0\]"):
        dataset.scan(units=[0, 1])


def test_where_filters_by_any_column_without_reading_pictures(place):
    dataset = filled(place, side=300)  # 270 kB a picture
    dataset.store = CountingStore(dataset.store)
    rows = rows_of(dataset.scan(["sample_id"], where=(pc.field("decision") == "failed") & (pc.field("seed") > 4)))
    assert [row["sample_id"] for row in rows] == ids_of([9, 14])
    metadata, pictures = dataset.store.read, dataset.manifest.bytes
    assert metadata < 80_000 * dataset.spec.units < pictures / 4
    rows = rows_of(dataset.scan(["image"], where=pc.field("label") == 3))
    assert len(rows) == 2
    assert dataset.store.read - metadata == pictures


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"columns": ["lable"]}, "did you mean 'label'"),
        ({"where": pc.field("nothing") == 1}, "nothing"),
        ({"where": pc.field("label") == "anger"}, "does not fit"),
        ({"units": [99]}, "99"),
    ],
)
def test_wrong_questions_are_refused(tmp_path, question, message):
    dataset = filled(str(tmp_path))
    with pytest.raises(ValueError, match=message):
        list(dataset.scan(**question))


def test_hugging_face_shows_pictures_and_class_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset = filled(str(tmp_path / "made"))
    files = str(tmp_path / "made" / "data" / "train-*.parquet")
    samples = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(samples) == dataset.spec.rows
    assert samples.features["label"].names == list(EXPRESSIONS)
    assert samples.features["label"].int2str(samples[3]["label"]) == "happy"
    assert samples[0]["image"].size == (8, 8)
    assert samples[4]["image"] is None
    folder = datasets.load_dataset(str(tmp_path / "made"), cache_dir=str(tmp_path / "cache2"))
    assert folder["train"].num_rows == 15


def test_a_shard_keeps_its_facts_and_settings(tmp_path):
    dataset = Dataset.create(str(tmp_path), spec_of())
    dataset.commit(0, table_of(range(6)), {"device": "cpu", "seconds": 2.5})
    path = tmp_path / dataset.spec.key(0)
    footer = read_footer(dataset.store, dataset.spec.key(0))
    assert (footer.unit, footer.rows, footer.spec) == (0, 6, dataset.spec.sha256)
    assert footer.notes == {"device": "cpu", "seconds": 2.5}
    metadata = pq.read_metadata(path)
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    image = metadata.row_group(0).column(names.index("image.bytes"))
    assert image.compression == "UNCOMPRESSED"
    assert not image.is_stats_set
    assert "RLE_DICTIONARY" not in image.encodings
    assert metadata.row_group(0).column(0).has_offset_index
    assert "features" in json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]


def test_row_groups_are_about_32_mb_and_bytes_repeat():
    pictures = [{"bytes": random.Random(row).randbytes(1_500_000), "path": None} for row in range(40)]
    table = with_column(table_of(range(40)), "image", pictures)
    body, _ = encode(table, 0, "spec", {})
    groups = pq.read_metadata(pa.BufferReader(body))
    sizes = [groups.row_group(i).total_byte_size for i in range(groups.num_row_groups)]
    assert len(sizes) > 1
    assert max(sizes) < 40e6
    assert encode(table, 0, "spec", {})[0].equals(body)


def test_a_long_footer_is_read_in_a_second_request(tmp_path):
    dataset = Dataset.create(str(tmp_path), spec_of())
    dataset.commit(0, table_of(range(6)), {"log": "x" * 200_000})
    assert len(read_footer(dataset.store, dataset.spec.key(0)).notes["log"]) == 200_000


def test_the_card_says_what_is_there(tmp_path):
    import yaml

    dataset = filled(str(tmp_path))
    text = (tmp_path / "README.md").read_text()
    assert text == dataset_card(dataset.spec, dataset.manifest)
    _, front, body = text.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert "synthetic" in matter["tags"]
    for part in ("All images are synthetic", dataset.manifest.manifest_hash, "to be filled in", "0" * 64, "| fear |"):
        assert part in body


def test_the_card_of_real_faces_does_not_say_synthetic(tmp_path):
    spec = spec_of()
    spec.producer["kind"] = "real"
    text = dataset_card(spec, filled(str(tmp_path)).manifest)
    assert "All images are synthetic" not in text
    assert "- synthetic" not in text
    assert "real people" in text
