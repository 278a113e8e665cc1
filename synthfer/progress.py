"""Progress of long work: a bar in a terminal, a log line per interval elsewhere."""

import logging
import math
import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

log = logging.getLogger(__name__)

WINDOW = 60.0
"""Seconds over which the shown rate is averaged: long enough to be steady, short enough to show a change."""


class Meter:
    """Items done and failed, rate and time left; `with Meter(...) as meter: meter.add(16, 1)`.

    `what` names the items in the plural, `interval` is the seconds between two log lines.
    """

    def __init__(self, what: str, total: int, console: Console, done: int = 0, interval: float = 10.0) -> None:
        self.what, self.total, self.done, self.failed = what, total, done, 0
        self.interval = interval
        self.events: deque[tuple[float, int]] = deque([(time.monotonic(), done)])
        self.last_logged = time.monotonic()
        self.bar = _bar(console) if console.is_terminal else None

    def __enter__(self) -> "Meter":
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=self.total, completed=self.done, note="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.bar:
            self.bar.stop()
        else:
            log.info("%s", str(self))

    def add(self, done: int, failed: int = 0) -> None:
        """Count items done, failures among them; shown at once in a terminal, at the next interval elsewhere."""
        now = time.monotonic()
        self.done += done
        self.failed += failed
        self.events.append((now, self.done))
        while len(self.events) > 2 and now - self.events[0][0] > WINDOW:
            self.events.popleft()
        if self.bar:
            self.bar.update(self.task, completed=self.done, note=self._note())
        elif now - self.last_logged >= self.interval:
            self.last_logged = now
            log.info("%s", str(self))

    @property
    def rate(self) -> float:
        """Items per second over the last `WINDOW` seconds; it falls towards 0 while nothing is done."""
        then, before = self.events[0]
        spent = time.monotonic() - then
        return (self.done - before) / spent if spent > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds until all is done at this rate; infinite while nothing is done."""
        rate, left = self.rate, self.total - self.done
        return left / rate if rate else math.inf if left else 0.0

    def _note(self) -> str:
        left = self.seconds_left
        eta = f"{_clock(left)} left" if left < math.inf else "..."
        return f"{self.rate:.1f} {self.what}/s, {eta}" + (f", {self.failed:,} failed" if self.failed else "")

    def __str__(self) -> str:
        share = self.done / self.total if self.total else 1.0
        return f"{self.done:,} of {self.total:,} {self.what} ({share:.0%}), {self._note()}"


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=console,
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
