"""What all tests share: no network, no token files, one local Ray session and one S3 server for whoever asks."""

import os
import sys
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

import pytest  # noqa: E402 - Ray reads its settings when it is imported

pytest_plugins = ["tests.s3_server", "tests.ray_sessions"]


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread():
    """Two threads on two busy cores are many times slower than one."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """A folder with faces that may not be shipped (fer2013_small.parquet, sfhq_faces.parquet); skips without it."""
    folder = Path(os.environ.get("SYNTHFER_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set SYNTHFER_TEST_DATA to the folder with the faces that may not be shipped")
    return folder
