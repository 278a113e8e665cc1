"""A unit's rows without Ray: batches, gates, failures and the table that is committed."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from synthfer import gates
from synthfer.engine.generation_worker import EncodedSample, encode, generate_rows, to_table
from synthfer.generators import Failure, Picture, simulated
from synthfer.images import ImageConfig, decode
from synthfer.sample import SCHEMA, Row, pixels_hash


def rows_of(n: int) -> list[Row]:
    return [Row(index=i, label=i % 7, seed=i, attributes={"age": "old"}, prompt=f"face {i}") for i in range(n)]


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_the_recorded_hash_is_that_of_the_decoded_file(name):
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    sample = encode(picture, ImageConfig(format=name))
    assert isinstance(sample, EncodedSample)
    assert (sample.image.height, sample.image.width) == (24, 32)
    assert sample.image.pixels_hash == pixels_hash(decode(sample.image.data))


def test_a_picture_that_no_encoder_takes_is_a_failed_row():
    sample = encode(np.zeros((4, 4), dtype=np.float32), ImageConfig())
    assert isinstance(sample, Failure)
    assert "jpeg" in sample.reason


def test_rows_are_made_in_batches_and_every_row_gives_one_sample():
    generator = simulated.build(simulated.Config(batch_size=4, seconds_per_batch=0, failed_share=0.3))
    rows = rows_of(11)
    with ThreadPoolExecutor(2) as encoders:
        results = [future.result() for future in generate_rows(generator, rows, ImageConfig(), encoders)]
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
        generate_rows(generator, rows_of(8), ImageConfig(), encoders)


class Uneven(simulated.Simulated):
    """Pictures of row 1 are blank, those of row 2 hold NaN, those of row 3 are grey without channels."""

    def _picture(self, row: Row) -> Picture:
        picture = super()._picture(row)
        odd: dict[int, Picture] = {
            1: np.full((8, 8, 3), 7, np.uint8),
            2: np.full((8, 8, 3), np.nan, np.float32),
            3: np.zeros((8, 8), np.uint8),
        }
        return odd.get(row.index, picture)


def test_a_gate_rejects_and_what_is_no_image_fails_before_it():
    generator = Uneven(simulated.Config(batch_size=4, seconds_per_batch=0))
    with ThreadPoolExecutor(1) as encoders:
        futures = generate_rows(generator, rows_of(5), ImageConfig(), encoders, (), gates.build("blank"))
        results = [future.result() for future in futures]
    samples = to_table(rows_of(5), results, source="simulated", producer="abc").to_pylist()
    assert [sample["decision"] for sample in samples] == ["accepted", "rejected", "failed", "failed", "accepted"]
    assert samples[1]["reason"] == "contrast 0.000 is below 1" and samples[1]["image"] is not None
    assert samples[1]["scores"] == [{"gate": "contrast", "value": 0.0}]
    assert samples[2]["reason"] == "cannot encode as jpeg: the picture has values that are not finite (NaN)"
    assert "expected uint8 pixels" in samples[3]["reason"]
