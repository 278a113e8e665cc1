"""Workers and drivers of a training are killed at random moments; the weights come out as if nothing had happened."""

import dataclasses
import io
import json
import random
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import torch
import torch.multiprocessing as mp
from rich.console import Console
from torch import distributed as dist

from synthfer import config as configs
from synthfer.cli import Invocation
from synthfer.engine.train import TaskJob, TrainJob, open_job
from synthfer.store import open_store
from synthfer.training import pixels
from synthfer.training.data import open_data
from synthfer.training.runs import plan
from synthfer.training.settings import TrainConfig
from synthfer.training.world import World
from tests.ray_sessions import KillableCluster, start_job
from tests.training.classifier_trainings import FAST, data_at, on_two_ranks

WORKER = "RayTrainWorker"
WORKERS = ("engine.workers=2", "engine.max_failures=50")
LONG = (*FAST, "steps=600", "validate_every=20", "ema=0.9", *WORKERS)
TASK = (
    "task=expression_editor", "task.size=16", "task.width=4", "task.blocks=1", "task.critic_width=8",
    "task.critic_layers=2", "batch=8", "steps=400", "validate_every=20", *WORKERS,
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster():
    cluster = KillableCluster()
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return data_at(tmp_path_factory.mktemp("data"))


def start_train(cluster: KillableCluster, uri: str, out: Path, words: tuple[str, ...]) -> subprocess.Popen:
    return start_job("train.py", "--json", f"data={{faces: {uri}}}", f"out={out}", *words, RAY_ADDRESS=cluster.address)


def finished(driver: subprocess.Popen, timeout: float = 200) -> dict:
    out, err = driver.communicate(timeout=timeout)
    assert driver.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def calm(uri, tmp_path_factory) -> Path:
    return undisturbed(tmp_path_factory.mktemp("calm"), uri, LONG)


def undisturbed(folder: Path, uri: str, words: tuple[str, ...]) -> Path:
    """Where an undisturbed run leaves its weights: two processes that no Ray looks after."""
    job = configs.load(TrainJob, (f"data={{faces: {uri}}}", "out=calm", *words))
    config = TrainConfig(**{field.name: getattr(job, field.name) for field in dataclasses.fields(TrainConfig)})
    (run,) = plan(config, [], ["faces"], open_data(config).count("train"))
    on_two_ranks(config, run, folder)
    return folder / "two"


@pytest.fixture(scope="module")
def calm_task(uri, tmp_path_factory) -> Path:
    """The same of a task."""
    folder = tmp_path_factory.mktemp("calm-task")
    mp.spawn(task_rank_of_two, args=(uri, folder), nprocs=2)
    return folder / "two"


def task_rank_of_two(rank: int, uri: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    quiet = Invocation(Console(file=io.StringIO()), Console(file=io.StringIO()))
    experiment = open_job(configs.load(TaskJob, (f"data={{faces: {uri}}}", "out=calm", *TASK)), quiet)
    pictures = pixels.load(experiment.data, experiment.size)
    (run,) = experiment.runs
    experiment.train(run, pictures, World(rank, 2), open_store(f"{folder}/two"), lambda message: None)
    dist.barrier()
    dist.destroy_process_group()


def check_equal(out: Path, calm: Path, run: str = "synthetic_only/seed-0") -> None:
    """By default the run of a classifier: drawn faces are synthetic."""
    for name in ("model.safetensors", "history.json", "model.seen.parquet", "model.card.yaml"):
        assert (out / run / name).read_bytes() == (calm / run / name).read_bytes(), name


def train_through_kills(
    cluster: KillableCluster, uri: str, out: Path, kills: list[str], seed: int, words: tuple[str, ...] = LONG
) -> None:
    """Runs the job until it is complete, and kills a worker or the driver once it has come a checkpoint further."""
    chance, left = random.Random(seed), list(kills)
    driver, reached = start_train(cluster, uri, out, words), 0
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
                driver = start_train(cluster, uri, out, words)
    finished(driver)


@pytest.mark.fault
def test_killed_a_few_times_the_weights_are_the_same(cluster, uri, calm, tmp_path):
    train_through_kills(cluster, uri, tmp_path / "exp", ["worker", "driver"], seed=1)
    check_equal(tmp_path / "exp", calm)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_task_that_was_killed_comes_to_the_same_weights(cluster, uri, calm_task, tmp_path):
    train_through_kills(cluster, uri, tmp_path / "exp", ["worker"], seed=3, words=TASK)
    check_equal(tmp_path / "exp", calm_task, "expression_editor/seed-0")
    grids = [{path.name: path.read_bytes() for path in out.rglob("grids/*.png")} for out in (tmp_path, calm_task)]
    assert grids[0] == grids[1] and len(grids[0]) == 20


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_ten_times_the_weights_are_the_same(cluster, uri, calm, tmp_path):
    kills = ["worker", "worker", "driver", "worker", "worker", "driver", "worker", "worker", "worker", "worker"]
    train_through_kills(cluster, uri, tmp_path / "exp", kills, seed=2)
    check_equal(tmp_path / "exp", calm)
