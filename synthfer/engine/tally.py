"""What the workers' reports add up to, and when that is too bad to go on."""

import logging
import math
from dataclasses import dataclass, field

from synthfer.engine.generation_worker import Report
from synthfer.store import Counts, Receipt

log = logging.getLogger(__name__)

# A share of failures is judged once this many rows are there: the first few say little.
MIN_JUDGED_ROWS = 100
# Units that fail one after another, with none committed between them, mean that no unit will work.
MAX_ERRORS_IN_A_ROW = 3


class TooManyFailures(RuntimeError):
    """More went wrong than the job may bear; what is committed stays."""


@dataclass
class JobStats:
    """Receipts, rows and failures of this run, and the devices' time.

    `units` is how many were committed meanwhile, by whomever; `rows`, `failed` and `rejected` are of those made here.
    """

    max_failed_share: float = 1.0
    receipts: list[Receipt] = field(default_factory=list)
    units: int = 0
    rows: int = 0
    failed: int = 0
    rejected: int = 0
    errors_in_a_row: int = 0
    workers: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """name -> when its device first started, when it last ended (seconds since the epoch), seconds it was busy"""

    def add(self, report: Report) -> None:
        """Counts a report; `TooManyFailures` where the job should end."""
        for notice in report.notices:
            log.warning("%s", notice)
        if report.error:
            log.error("unit %d: %s", report.unit, report.error)
        self.errors_in_a_row = self.errors_in_a_row + 1 if report.error else 0
        self.units += not report.error
        if report.receipt:
            self.receipts.append(report.receipt)
        if report.receipt and report.receipt.created:
            self.rows += report.receipt.rows
            self.failed += failed_rows(report.receipt.counts)
            self.rejected += decided(report.receipt.counts, "rejected")
            self._time(report)
        self._check()

    def _time(self, report: Report) -> None:
        first, last, busy = self.workers.get(report.worker, (math.inf, 0.0, 0.0))
        spent = report.device_end - report.device_start
        times = (min(first, report.device_start), max(last, report.device_end), busy + spent)
        self.workers[report.worker] = times

    def _check(self) -> None:
        if self.errors_in_a_row >= MAX_ERRORS_IN_A_ROW:
            raise TooManyFailures(
                f"{self.errors_in_a_row} units in a row could not be made; the errors above say why. What was "
                "committed stays: run the same command again when it is mended."
            )
        if self.rows >= MIN_JUDGED_ROWS:
            self.judge(self.failed, self.rows)

    def judge(self, failed: int, rows: int) -> None:
        """`TooManyFailures` where more than the configured share of rows failed."""
        if failed > self.max_failed_share * rows:
            raise TooManyFailures(
                f"{failed:,} of {rows:,} rows failed, more than engine.max_failed_share={self.max_failed_share:g}. "
                "Their reasons stand in the committed shards (jobs/gallery.py shows them). Mend the cause, or raise "
                "the share to go on."
            )

    @property
    def device_seconds(self) -> tuple[float, float]:
        """Seconds that the devices were at work, and between the first and last picture of each; summed over all."""
        workers = list(self.workers.values())  # another thread may look while a worker is added
        return sum(busy for *_, busy in workers), sum(last - first for first, last, _ in workers)

    @property
    def device_busy(self) -> float | None:
        """Share of the time between a worker's first and last picture that its device was at work, 0..1."""
        busy, span = self.device_seconds
        return busy / span if span else None

    @property
    def images_per_s(self) -> float | None:
        """Rows made per second between the first start and the last end of any device."""
        if not self.workers:
            return None
        starts, ends, _ = zip(*self.workers.values(), strict=True)
        return self.rows / (max(ends) - min(starts))


def failed_rows(counts: Counts) -> int:
    """Failed rows in counts by expression and decision."""
    return decided(counts, "failed")


def decided(counts: Counts, decision: str) -> int:
    """Rows of one decision in counts by expression and decision."""
    return sum(decisions.get(decision, 0) for decisions in counts.values())
