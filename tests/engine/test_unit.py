"""A unit without Ray: batches, failures and the table that is committed."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from synthfer.engine.unit import Encoded, encode, make_unit, to_table
from synthfer.generators import Failure, simulated
from synthfer.images import ImageConfig, decode
from synthfer.sample import SCHEMA, Row, pixels_hash


def rows_of(n: int) -> list[Row]:
    return [Row(index=i, label=i % 7, seed=i, attributes={"age": "old"}, prompt=f"face {i}") for i in range(n)]


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_the_recorded_hash_is_that_of_the_decoded_file(name):
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    made = encode(picture, ImageConfig(format=name))
    assert isinstance(made, Encoded)
    assert (made.height, made.width) == (24, 32)
    assert made.pixels_hash == pixels_hash(decode(made.data))


def test_a_picture_that_no_encoder_takes_is_a_failed_row():
    made = encode(np.zeros((4, 4), dtype=np.float32), ImageConfig())
    assert isinstance(made, Failure)
    assert "jpeg" in made.reason


def test_units_are_made_in_batches_and_every_row_gives_one_sample():
    generator = simulated.build(simulated.Config(batch_size=4, seconds_per_batch=0, failed_share=0.3))
    rows = rows_of(11)
    with ThreadPoolExecutor(2) as encoders:
        results = [future.result() for future in make_unit(generator, rows, ImageConfig(), encoders)]
    table = to_table(rows, results, source="simulated", producer="abc")
    assert table.schema.equals(SCHEMA)
    assert table.column("sample_id").to_pylist() == [row.sample_id for row in rows]
    samples = table.to_pylist()
    failed = [sample for sample in samples if sample["decision"] == "failed"]
    assert 0 < len(failed) < 11
    for sample in samples:
        if sample["decision"] == "failed":
            assert sample["reason"] == "simulated failure"
            assert sample["image"] is None and sample["pixels_hash"] is None
        else:
            assert pixels_hash(decode(sample["image"]["bytes"])) == sample["pixels_hash"]
        assert sample["source_id"] == sample["sample_id"]


def test_a_generator_that_loses_a_row_is_caught():
    class Short(simulated.Simulated):
        def make(self, rows):
            return super().make(rows)[:-1]

    generator = Short(simulated.Config(batch_size=4, seconds_per_batch=0))
    with ThreadPoolExecutor(1) as encoders, pytest.raises(RuntimeError, match="3 pictures for 4 rows"):
        make_unit(generator, rows_of(8), ImageConfig(), encoders)
