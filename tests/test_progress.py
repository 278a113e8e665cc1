"""What long work shows: a bar in a terminal, lines in a log."""

import io
import logging

from rich.console import Console

from synthfer.progress import Meter


def test_a_log_gets_a_line_per_interval_and_one_at_the_end(caplog):
    caplog.set_level(logging.INFO, "synthfer")
    with Meter("images", 100, Console(file=io.StringIO()), done=40, interval=0.0) as meter:
        meter.add(10)
        meter.add(20, failed=3)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert lines[0].startswith("50 of 100 images (50%)")
    assert lines[-1].startswith("70 of 100 images (70%)")
    assert "3 failed" in lines[-1]
    assert "left" in lines[-1]


def test_a_long_interval_keeps_a_log_short(caplog):
    caplog.set_level(logging.INFO, "synthfer")
    with Meter("images", 100, Console(file=io.StringIO()), interval=3600) as meter:
        for _ in range(50):
            meter.add(2)
    assert len(caplog.records) == 1


def test_a_terminal_gets_a_bar():
    shown = io.StringIO()
    with Meter("images", 100, Console(file=shown, force_terminal=True, width=100)) as meter:
        meter.add(100, failed=1)
    assert "100/100" in shown.getvalue()
    assert "images/s" in shown.getvalue()
    assert "1 failed" in shown.getvalue()


def test_the_rate_counts_what_was_done_here_and_not_before():
    meter = Meter("images", 100, Console(file=io.StringIO()), done=90)
    assert meter.rate == 0.0
    assert "..." in str(meter)
