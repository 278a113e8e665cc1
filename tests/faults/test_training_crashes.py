"""Workers and drivers of a training are killed at random moments; the weights come out as if nothing had happened."""

import dataclasses
import json
import random
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from synthfer import config as configs
from synthfer.engine.training_settings import TrainJob
from synthfer.training.data import open_data
from synthfer.training.runs import plan
from synthfer.training.settings import TrainConfig
from tests.ray_sessions import KillableCluster, start_job
from tests.training.made_training import FAST, data_at, on_two_ranks

WORKER = "RayTrainWorker"
LONG = (*FAST, "steps=600", "validate_every=20", "engine.workers=2", "engine.max_failures=50", "ema=0.9")


@pytest.fixture(scope="module")
def cluster():
    cluster = KillableCluster()
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return data_at(tmp_path_factory.mktemp("data"))


def start_train(cluster: KillableCluster, uri: str, out: Path) -> subprocess.Popen:
    return start_job("train.py", "--json", f"data={{faces: {uri}}}", f"out={out}", *LONG, RAY_ADDRESS=cluster.address)


def finished(driver: subprocess.Popen, timeout: float = 200) -> dict:
    out, err = driver.communicate(timeout=timeout)
    assert driver.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def calm(uri, tmp_path_factory) -> Path:
    """Where an undisturbed run left its weights: two processes that no Ray looks after."""
    folder = tmp_path_factory.mktemp("calm")
    job = configs.load(TrainJob, (f"data={{faces: {uri}}}", "out=calm", *LONG))
    config = TrainConfig(**{field.name: getattr(job, field.name) for field in dataclasses.fields(TrainConfig)})
    (run,) = plan(config, [], ["faces"], open_data(config).count("train"))
    on_two_ranks(config, run, folder)
    return folder / "two"


def check_equal(out: Path, calm: Path) -> None:
    run = "synthetic_only/seed-0"  # drawn faces are synthetic
    for name in ("model.safetensors", "history.json", "model.seen.parquet", "model.card.yaml"):
        assert (out / run / name).read_bytes() == (calm / run / name).read_bytes(), name


def train_through_kills(cluster: KillableCluster, uri: str, out: Path, kills: list[str], seed: int) -> None:
    """Runs the job until it is complete, and kills a worker or the driver once it has come a checkpoint further."""
    chance, left = random.Random(seed), list(kills)
    driver, reached = start_train(cluster, uri, out), 0
    deadline = time.monotonic() + 60 * (len(kills) + 2)
    while left:
        assert time.monotonic() < deadline, f"not done; {left} are left"
        assert driver.poll() is None, f"it ended at {reached} before {left}: {driver.communicate()[1]}"
        time.sleep(chance.uniform(0.05, 0.3))
        step = max((int(p.stem[5:]) for p in out.glob("*/seed-0/checkpoints/*.safetensors")), default=0)
        if step > reached and (workers := cluster.actors(WORKER)):
            reached = step
            if left.pop(0) == "worker":
                chance.choice(workers).kill()
            else:
                driver.kill()
                driver.communicate()
                psutil.wait_procs(workers, timeout=30)
                driver = start_train(cluster, uri, out)
    finished(driver)


@pytest.mark.timeout(290)
def test_killed_a_few_times_the_weights_are_the_same(cluster, uri, calm, tmp_path):
    train_through_kills(cluster, uri, tmp_path / "exp", ["worker", "driver"], seed=1)
    check_equal(tmp_path / "exp", calm)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_ten_times_the_weights_are_the_same(cluster, uri, calm, tmp_path):
    kills = ["worker", "worker", "driver", "worker", "worker", "driver", "worker", "worker", "worker", "worker"]
    train_through_kills(cluster, uri, tmp_path / "exp", kills, seed=2)
    check_equal(tmp_path / "exp", calm)
