"""Drivers, actors and nodes are killed at random moments; the dataset comes out as if nothing had happened."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pytest

from synthfer.store import Dataset
from tests.generators import tiny_weights
from tests.planning.face_datasets import even, faces_dataset
from tests.ray_sessions import KillableCluster, start_job

UNITS, UNIT_SIZE = 40, 8
WORDS = (
    "--json",
    "generator.name=simulated",
    "generator.batch_size=4",
    "generator.seconds_per_batch=0.1",
    "generator.failed_share=0.02",
    "engine.max_workers=2",
    f"plan.total={UNITS * UNIT_SIZE}",
    f"plan.unit_size={UNIT_SIZE}",
)


@pytest.fixture(scope="module")
def cluster(s3_server):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.env.items():  # the nodes' workers talk to the store, too
            patch.setenv(name, value)
        cluster = KillableCluster()
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def calm(cluster, tmp_path_factory) -> dict:
    """What an undisturbed run says."""
    return finished(start_generate(cluster, str(tmp_path_factory.mktemp("calm") / "dataset")))


def start_generate(cluster: KillableCluster, uri: str, words: tuple[str, ...] = WORDS) -> subprocess.Popen:
    return start_job("generate.py", f"out={uri}", *words, RAY_ADDRESS=cluster.address)


def finished(driver: subprocess.Popen, timeout: float = 150) -> dict:
    out, err = driver.communicate(timeout=timeout)
    assert driver.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def run_through_kills(
    cluster: KillableCluster, uri: str, kills: int, seed: int, words: tuple[str, ...] = WORDS
) -> tuple[dict, list[str]]:
    """Runs the job until it is complete and kills something every few seconds, `kills` times; what it said at last."""
    chance, victims = random.Random(seed), []
    driver = start_generate(cluster, uri, words)
    deadline = time.monotonic() + 30 * (kills + 4)
    while True:
        assert time.monotonic() < deadline, f"not done after {victims}"
        time.sleep(chance.uniform(0.5, 4.0))
        if driver.poll() is not None:
            out, err = driver.communicate()
            if driver.returncode == 0:
                return json.loads(out.splitlines()[-1]), victims
            assert driver.returncode in (-9, 1, 3), err
            driver = start_generate(cluster, uri, words)
        elif len(victims) < kills:
            kind = chance.choices(["actor", "driver", "node"], weights=[6, 3, 1])[0]
            if kind == "driver":
                driver.kill()
            elif kind == "node":
                cluster.kill_node()
            elif actors := cluster.actors():
                chance.choice(actors).kill()
            else:
                continue
            victims.append(kind)


def check_whole(uri: str) -> None:
    """Every row of the plan stands exactly once, in whole shards."""
    dataset = Dataset.open(uri)
    ids = pa.concat_tables(pa.table([b.column("sample_id")], ["id"]) for b in dataset.scan(["sample_id"]))
    assert ids.num_rows == len(ids.column("id").unique()) == UNITS * UNIT_SIZE
    assert dataset.verify() == []


def check_killed(cluster: KillableCluster, uri: str, calm: dict, kills: int, seed: int) -> None:
    said, victims = run_through_kills(cluster, uri, kills, seed)
    assert len(victims) == kills
    assert {name: said[name] for name in ("manifest_hash", "rows", "counts")} == {
        name: calm[name] for name in ("manifest_hash", "rows", "counts")
    }
    check_whole(uri)


def test_killed_a_few_times_the_dataset_is_the_same(cluster, calm, tmp_path):
    check_killed(cluster, str(tmp_path / "dataset"), calm, kills=4, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["expression_editor", "vae_gan", "gan"])
def test_killed_a_few_times_what_comes_of_faces_is_the_same(cluster, tmp_path, name):
    uri = getattr(tiny_weights, name)(tmp_path / "weights")
    faces = faces_dataset(tmp_path / "faces", even(70))
    options = {
        "expression_editor": (f"plan.faces={faces}", "generator.crop=whole", "plan.by=face"),
        "vae_gan": (f"plan.faces={faces}", "plan.total=490", "plan.operations={noise: 1, style: 1, tail: 1}"),
        "gan": ("plan.total=490",),
    }[name]
    words = (
        "--json",
        f"generator={name}",
        f"generator.weights={uri}",
        *options,
        "plan.unit_size=7",
        "engine.max_workers=2",
    )
    undisturbed = finished(start_generate(cluster, str(tmp_path / "calm"), words))
    said, victims = run_through_kills(cluster, str(tmp_path / "killed"), kills=3, seed=5, words=words)
    assert said["manifest_hash"] == undisturbed["manifest_hash"]
    assert said["rows"] == 490 and victims
    assert Dataset.open(str(tmp_path / "killed")).verify(pixels=True) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [2])
def test_killed_twenty_times_on_a_folder(cluster, calm, tmp_path, seed):
    check_killed(cluster, str(tmp_path / "dataset"), calm, kills=20, seed=seed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [3])
def test_killed_twenty_times_on_s3(cluster, calm, s3_uri, seed):
    check_killed(cluster, s3_uri, calm, kills=20, seed=seed)


@pytest.mark.fault
def test_two_drivers_on_one_dataset_share_the_work(cluster, calm, s3_uri):
    drivers = [start_generate(cluster, s3_uri) for _ in range(2)]
    said = [finished(driver) for driver in drivers]
    assert {one["manifest_hash"] for one in said} == {calm["manifest_hash"]}
    assert sum(one["made_now"] for one in said) == UNITS * UNIT_SIZE  # each unit was committed by one of them
    check_whole(s3_uri)


@pytest.mark.parametrize("polite", [pytest.param(signal.SIGTERM, marks=pytest.mark.fault), signal.SIGINT])
def test_a_polite_kill_stops_the_job_with_work_left(cluster, calm, tmp_path, polite):
    uri = str(tmp_path / "dataset")
    driver = start_generate(cluster, uri)
    wait_for_shards(tmp_path / "dataset", 2)
    driver.send_signal(polite)
    out, err = driver.communicate(timeout=240)
    assert driver.returncode == 3, err
    assert "again" in json.loads(out.splitlines()[-1])["stopped"]
    assert 2 <= UNITS - len(Dataset.open(uri).missing()) < UNITS
    if polite == signal.SIGTERM:
        assert finished(start_generate(cluster, uri))["manifest_hash"] == calm["manifest_hash"]


@pytest.mark.fault
def test_units_that_ray_runs_twice_are_committed_once(calm, tmp_path):
    """Ray loses the answers of finished tasks, so that it runs them again, with nobody killed."""
    lost = {"num_failures": 6, "req_failure_prob": 0, "resp_failure_prob": 25, "in_flight_failure_prob": 0}
    chaos = json.dumps({"CoreWorkerService.grpc_client.PushTask": lost})
    uri = str(tmp_path / "dataset")
    said = finished(start_job("generate.py", f"out={uri}", *WORDS, RAY_testing_rpc_failure=chaos))
    assert said["manifest_hash"] == calm["manifest_hash"]
    check_whole(uri)


def wait_for_shards(folder: Path, number: int) -> None:
    deadline = time.monotonic() + 240
    while len(list(folder.glob("data/*.parquet"))) < number:
        assert time.monotonic() < deadline
        time.sleep(0.1)
