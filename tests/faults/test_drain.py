"""A node is told to end, as a pod or a spot node is: no unit is begun on it any more, none is lost, the job goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray._raylet import GcsClient
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import NodeStatus

from synthfer.cli import STOPPED
from synthfer.store import Dataset
from tests.faults.test_crashes import finished
from tests.faults.test_training_crashes import check_equal, undisturbed
from tests.ray_sessions import start_job
from tests.training.classifier_trainings import FAST, data_at

UNITS, UNIT_SIZE, BATCH = 20, 16, 4
RAY = str(Path(sys.executable).with_name("ray"))
# Longer than a test waits: a node that ends before that has ended since nothing was left on it.
DRAIN_SECONDS = "250"
MEMORY = 100 * 2**20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs and a node that stays."""
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    yield cluster
    cluster.shutdown()


@dataclass(frozen=True)
class Leaving:
    """A node that can be told to end."""

    node: str
    process: subprocess.Popen


def nodes(cluster: Cluster) -> set[str]:
    state = get_cluster_resource_state(GcsClient(address=cluster.address))
    return {node.node_id.hex() for node in state.node_states if node.status != NodeStatus.DEAD}


@contextmanager
def leaving(cluster: Cluster) -> Iterator[Leaving]:
    """One more node, started as in a pod: it ends on SIGTERM once nothing is left on it, or when the drain is over."""
    before = nodes(cluster)
    words = [f"--address={cluster.address}", "--num-cpus=1", f"--object-store-memory={MEMORY}", "--labels=pool=spot"]
    process = subprocess.Popen(
        [RAY, "start", "--block", "--disable-usage-stats", *words],
        env={**os.environ, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": DRAIN_SECONDS},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: len(nodes(cluster) - before) == 1)
        (node,) = nodes(cluster) - before
        yield Leaving(node, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:  # it would wait for the drain to be over
            process.kill()


def wait_for(happened: Callable[[], bool], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def start_generate(cluster: Cluster, folder: Path, *words: str, **env: str) -> subprocess.Popen:
    (folder / "records").touch()
    return start_job(
        "generate.py", "--json", f"out={folder / 'dataset'}", "generator=tests.faults.recording_generator",
        f"generator.batch_size={BATCH}", f"generator.records={folder / 'records'}", f"plan.total={UNITS * UNIT_SIZE}",
        f"plan.unit_size={UNIT_SIZE}", *words, RAY_ADDRESS=cluster.address, **env,
    )  # fmt: skip


@pytest.fixture(scope="module")
def calm(cluster, tmp_path_factory) -> str:
    """The manifest hash of an undisturbed run."""
    folder = tmp_path_factory.mktemp("calm")
    return finished(start_generate(cluster, folder, "generator.seconds_per_batch=0.01"))["manifest_hash"]


def begun(folder: Path) -> list[dict]:
    """Where and when each unit was begun, whenever it was."""
    records = [json.loads(line) for line in (folder / "records").read_text().splitlines()]
    return [record for record in records if record["first"] % UNIT_SIZE == 0]


def drained(cluster: Cluster, folder: Path, *words: str) -> tuple[dict, list[dict], bool]:
    """A job whose node is told to end: what it says, the units begun there afterwards, was there more to do at its end?

    More than the four units that each of the other two workers may hold: without them Ray Data lets its workers go.
    """
    with leaving(cluster) as node:
        driver = start_generate(cluster, folder, "engine.max_workers=2", "generator.seconds_per_batch=0.75", *words)
        wait_for(lambda: sum(unit["node"] == node.node for unit in begun(folder)) >= 2)
        node.process.send_signal(signal.SIGTERM)
        notice = time.time()
        another = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        wait_for(lambda: driver.poll() is not None or node.process.poll() is not None)
        early = len(begun(folder)) < UNITS - 8
        said = finished(driver)
        late = [unit for unit in begun(folder) if unit["node"] == node.node and unit["time"] > notice]
    cluster.remove_node(another)
    return said, late, early


@pytest.mark.fault
def test_a_node_that_is_told_to_end_finishes_what_it_has_begun_and_no_more(cluster, calm, tmp_path):
    said, late, early = drained(cluster, tmp_path)
    assert said["manifest_hash"] == calm
    assert said["made_now"] == UNITS * UNIT_SIZE
    assert Dataset.open(str(tmp_path / "dataset")).verify() == []
    # Each unit was begun once: what the node had begun was committed, what waited there was begun elsewhere.
    assert Counter(unit["first"] for unit in begun(tmp_path)) == dict.fromkeys(
        range(0, UNITS * UNIT_SIZE, UNIT_SIZE), 1
    )
    assert len(late) <= 1, late  # a worker looks every two seconds, and a unit takes three
    assert len({unit["node"] for unit in begun(tmp_path)}) == 3  # the worker has moved to the node that came
    assert early


@pytest.mark.slow
def test_a_worker_that_does_not_hear_of_it_goes_on_and_holds_the_node(cluster, calm, tmp_path):
    """What the test above would see if no worker looked."""
    said, late, early = drained(cluster, tmp_path, "generator.ignore_drain=true")
    assert said["manifest_hash"] == calm
    assert len(late) > 1 and not early


@pytest.mark.slow
def test_a_job_without_a_node_in_the_end_stops_with_work_left(cluster, calm, tmp_path):
    """All nodes that it may run on are told to end, and no other comes."""
    spot = ("engine.nodes=[{pool: spot}]", "generator.seconds_per_batch=0.5")
    with leaving(cluster) as node:
        driver = start_generate(cluster, tmp_path, *spot, RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S="10")
        wait_for(lambda: len(begun(tmp_path)) >= 2)
        node.process.send_signal(signal.SIGTERM)
        out, err = driver.communicate(timeout=240)
    assert driver.returncode == STOPPED, err
    assert "no node had room" in err and "units are left" in json.loads(out.splitlines()[-1])["stopped"]
    assert finished(start_generate(cluster, tmp_path, "generator.seconds_per_batch=0"))["manifest_hash"] == calm


LONG = (*FAST, "steps=1500", "validate_every=500", "ema=0.9", "engine.workers=2", "engine.max_failures=0")


@pytest.mark.slow
def test_a_gang_whose_node_is_told_to_end_goes_on_elsewhere_from_where_it_was(cluster, tmp_path):
    """It keeps what it has done since the last checkpoint, and no failure is counted."""
    uri, out = data_at(tmp_path), tmp_path / "exp"
    calm = undisturbed(tmp_path, uri, LONG)
    with leaving(cluster) as node:
        words = ("--json", f"data={{faces: {uri}}}", f"out={out}", *LONG)
        driver = start_job("train.py", *words, RAY_ADDRESS=cluster.address)
        wait_for(lambda: 500 in checkpoints(out))
        node.process.send_signal(signal.SIGTERM)
        another = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        wait_for(lambda: any(step % 500 for step in checkpoints(out)))
        node.process.wait(60)
        finished(driver)
    cluster.remove_node(another)
    check_equal(out, calm)


def checkpoints(out: Path) -> list[int]:
    return [int(path.stem.removeprefix("step-")) for path in out.glob("*/seed-0/checkpoints/*.safetensors")]
