"""Shards: what their footers record, how their bytes are laid out, and that other libraries read them."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthfer.expressions import EXPRESSIONS
from synthfer.store import Dataset
from synthfer.store.shard import encode, read_footer
from tests.store.tables import filled, spec_of, table_of, with_column


def test_hugging_face_shows_images_and_class_names(tmp_path):
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


def test_a_shard_keeps_its_footer_and_settings(tmp_path):
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
    body, _ = encode(table, 0, spec_of(rows=40, unit_size=40), {})
    groups = pq.read_metadata(pa.BufferReader(body))
    sizes = [groups.row_group(i).total_byte_size for i in range(groups.num_row_groups)]
    assert len(sizes) > 1
    assert max(sizes) < 40e6
    assert encode(table, 0, spec_of(rows=40, unit_size=40), {})[0].equals(body)


def test_a_long_footer_is_read_in_a_second_request(tmp_path):
    dataset = Dataset.create(str(tmp_path), spec_of())
    dataset.commit(0, table_of(range(6)), {"log": "x" * 200_000})
    assert len(read_footer(dataset.store, dataset.spec.key(0)).notes["log"]) == 200_000
