"""Units cut to a generator's speed."""

from synthfer.engine.probe import UNIT_BYTES, UNIT_SECONDS, Probe, unit_size


def look(images_per_s, image_bytes=1000.0, batch_size=16):
    return Probe({}, batch_size, images_per_s, image_bytes)


def test_a_unit_takes_less_time_than_a_spot_notice():
    size = unit_size(look(12.0), 10**6, workers=1)
    assert size % 16 == 0
    assert UNIT_SECONDS * 0.8 <= size / 12.0 <= UNIT_SECONDS


def test_a_shard_stays_below_its_size():
    assert unit_size(look(10_000.0, image_bytes=400e3), 10**9, workers=1) * 400e3 <= UNIT_BYTES


def test_small_jobs_give_every_worker_several_units():
    assert unit_size(look(12.0), 700, workers=2) * 8 <= 700


def test_a_slow_generator_still_fills_its_batch():
    assert unit_size(look(0.01), 10**6, workers=4) == 16
    assert unit_size(look(0.01), 5, workers=4) == 5


def test_the_estimate_counts_all_workers():
    estimate = look(10.0).estimate(36_000, workers=4, gpus_per_worker=0.5)
    assert estimate["seconds"] == 900
    assert estimate["gpu_hours"] == 0.5
    assert estimate["bytes"] == 36_000_000
