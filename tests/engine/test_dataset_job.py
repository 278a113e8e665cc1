"""What reports add up to, when a job should end, and units cut to a generator's speed."""

import pytest

from synthfer.engine.dataset_job import (
    UNIT_BYTES,
    UNIT_SECONDS,
    JobStats,
    TooManyFailures,
    UnitReport,
    unit_size,
)
from synthfer.store import Receipt


def report(unit, rows=50, failed=0, worker="a", start=0.0, end=1.0, created=True):
    counts = {"fear": {"accepted": rows - failed, "failed": failed}}
    receipt = Receipt(unit, created, rows, 1000, "sha", "rows", counts)
    return UnitReport(unit, worker, receipt, None, start, end)


def test_a_report_survives_the_way_from_a_worker():
    sent = report(3, failed=1)
    assert UnitReport.from_json(sent.to_json()) == sent
    assert UnitReport.from_json(UnitReport(1, "a", error="no").to_json()).error == "no"


def test_a_share_of_failures_is_checked_once_there_are_enough_rows():
    stats = JobStats(max_failed_share=0.1)
    stats.add(report(0, failed=40))  # 50 rows say little
    with pytest.raises(TooManyFailures, match=r"40 of 100 rows .*max_failed_share=0\.1"):
        stats.add(report(1))


def test_errors_in_a_row_end_the_job_and_a_commit_between_them_does_not():
    stats = JobStats()
    for unit in range(4):
        stats.add(UnitReport(unit, "a", error="no"))
        stats.add(report(unit))
    stats.add(UnitReport(5, "a", error="no"))
    stats.add(UnitReport(6, "a", error="no"))
    with pytest.raises(TooManyFailures, match="3 units in a row"):
        stats.add(UnitReport(7, "a", error="no"))


def test_busy_share_and_rate_count_the_gaps_of_every_worker():
    stats = JobStats()
    stats.add(report(0, worker="a", start=10, end=14))
    stats.add(report(1, worker="a", start=16, end=20))
    stats.add(report(2, worker="b", start=11, end=20))
    assert stats.device_busy == pytest.approx((4 + 4 + 9) / (10 + 9))
    assert stats.images_per_s == pytest.approx(150 / 10)


def test_units_of_another_driver_are_not_counted_as_made_here():
    stats = JobStats()
    stats.add(report(0, created=False))
    stats.add(UnitReport(1, "a"))
    assert (stats.rows, len(stats.receipts), stats.images_per_s) == (0, 1, None)


def size_of(images_per_s, rows, workers, image_bytes=1000.0):
    return unit_size(rows, workers, 16, images_per_s, image_bytes)


def test_a_unit_takes_less_time_than_a_spot_notice():
    size = size_of(12.0, 10**6, workers=1)
    assert size % 16 == 0
    assert UNIT_SECONDS * 0.8 <= size / 12.0 <= UNIT_SECONDS


def test_a_shard_stays_below_its_size():
    assert size_of(10_000.0, 10**9, workers=1, image_bytes=400e3) * 400e3 <= UNIT_BYTES


def test_small_jobs_give_every_worker_several_units():
    assert size_of(12.0, 700, workers=2) * 8 <= 700


def test_a_slow_generator_still_fills_its_batch():
    assert size_of(0.01, 10**6, workers=4) == 16
    assert size_of(0.01, 5, workers=4) == 5
