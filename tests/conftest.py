"""What all tests share: no network, one local Ray session, one S3 server, and a summary of the skips by cause."""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_memory_monitor_refresh_ms="0",
    RAY_worker_niceness="0",
    RAY_metrics_report_interval_ms="2000",
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.5",
    RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="0",
)
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)  # Ray's workers import the tests' own generators

# A shell starts its background jobs (`pytest &`) with SIGINT ignored, and every process that tests start would inherit
# that: tests that interrupt a job would wait forever. A handler here gives the children the default again.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402 - Ray reads its settings when it is imported

pytest_plugins = ["tests.s3_server", "tests.ray_sessions"]


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread():
    """Two threads on two busy cores are many times slower than one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with fer2013_small.parquet and sfhq_faces.parquet, which may not be shipped; skips without it."""
    folder = Path(os.environ.get("SYNTHFER_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no photographs of faces, which may not be shipped; see SYNTHFER_TEST_DATA in tests/README.md")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each cause of skips, however many tests it concerns."""
    causes = Counter(_cause(report) for report in terminalreporter.stats.get("skipped", ()))
    if causes:
        terminalreporter.section("skipped, by cause")
    for cause, number in causes.most_common():
        terminalreporter.line(f"{number} skipped: {cause}")


def _cause(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test or a whole file was skipped; pytest keeps (file, line, reason)."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")
