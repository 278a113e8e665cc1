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
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.5",
    RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S="0",
)
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)  # Ray's workers import the tests' own generators

import pytest  # noqa: E402 - Ray reads its settings when it is imported

pytest_plugins = ["tests.s3_server", "tests.ray_sessions"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of two processes (`make test`) one has all that starts Ray, whose workers want the second core themselves."""
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group("ray" if folder in ("engine", "faults", "e2e") else item.path.name))


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
