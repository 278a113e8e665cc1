"""What reports add up to, and when a job should end."""

import pytest

from synthfer.engine.generation_worker import Report
from synthfer.engine.tally import JobStats, TooManyFailures
from synthfer.store import Receipt


def report(unit, rows=50, failed=0, worker="a", start=0.0, end=1.0, created=True):
    counts = {"fear": {"accepted": rows - failed, "failed": failed}}
    receipt = Receipt(unit, created, rows, 1000, "sha", "rows", counts)
    return Report(unit, worker, receipt, None, start, end)


def test_a_report_survives_the_way_from_a_worker():
    told = report(3, failed=1)
    assert Report.from_json(told.to_json()) == told
    assert Report.from_json(Report(1, "a", error="no").to_json()).error == "no"


def test_a_share_of_failures_is_judged_once_there_are_enough_rows():
    tally = JobStats(max_failed_share=0.1)
    tally.add(report(0, failed=40))  # 50 rows say little
    with pytest.raises(TooManyFailures, match=r"40 of 100 rows .*max_failed_share=0\.1"):
        tally.add(report(1))


def test_errors_in_a_row_end_the_job_and_a_commit_between_them_does_not():
    tally = JobStats()
    for unit in range(4):
        tally.add(Report(unit, "a", error="no"))
        tally.add(report(unit))
    tally.add(Report(5, "a", error="no"))
    tally.add(Report(6, "a", error="no"))
    with pytest.raises(TooManyFailures, match="3 units in a row"):
        tally.add(Report(7, "a", error="no"))


def test_busy_share_and_rate_count_the_gaps_of_every_worker():
    tally = JobStats()
    tally.add(report(0, worker="a", start=10, end=14))
    tally.add(report(1, worker="a", start=16, end=20))
    tally.add(report(2, worker="b", start=11, end=20))
    assert tally.device_busy == pytest.approx((4 + 4 + 9) / (10 + 9))
    assert tally.images_per_s == pytest.approx(150 / 10)


def test_units_of_another_driver_are_not_counted_as_made_here():
    tally = JobStats()
    tally.add(report(0, created=False))
    tally.add(Report(1, "a"))
    assert (tally.rows, len(tally.receipts), tally.images_per_s) == (0, 1, None)
