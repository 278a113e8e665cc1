"""The rendered jobs, played with Ray's real autoscaler: pools grow and shrink, nodes and heads are lost, no work is.

Whatever happens, the dataset is that of an undisturbed run, and no unit is started after it was committed.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from synthfer.k8s.objects import groups, head_spec, rayjobs, render
from synthfer.store import Dataset
from tests.faults.test_crashes import finished
from tests.k8s.journal import UnitStart, committed, repeated, unit_starts
from tests.k8s.kuberay import CLUSTER
from tests.k8s.kuberay_player import NAMESPACE, Job, Player, playing
from tests.k8s.overlays import K8S, copied, digested
from tests.ray_sessions import start_job

UNITS, UNIT_SIZE, BATCH = 12, 8, 4
SPEC = {
    "plan": {"total": UNITS * UNIT_SIZE, "unit_size": UNIT_SIZE},
    "generator": {"name": "tests.k8s.journal", "batch_size": BATCH},
}
L4 = "l4-spot"
OVERLAY = K8S / "overlays/dev"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def player(s3_server, crds) -> Iterator[Player]:
    """A cluster with the overlay for development, whose store is the tests' own."""
    with playing(crds, OVERLAY, s3_server.env) as player:
        yield player


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> str:
    """The manifest hash of an undisturbed run, without any cluster."""
    here = tmp_path_factory.mktemp("calm")
    words = [f"{section}.{key}={value}" for section, keys in SPEC.items() for key, value in keys.items()]
    ours = [f"out={here / 'dataset'}", f"generator.journal={here / 'journal'}", "generator.seconds_per_batch=0.01"]
    return finished(start_job("generate.py", "--json", *words, *ours, RAY_ADDRESS="local"))["manifest_hash"]


@dataclass
class Run:
    """A dataset that is being made by jobs of the player, and the journal of its units."""

    player: Player
    folder: Path
    uri: str

    def submit(self, overlay: str, workers: int, seconds: float, change: Callable[[Any], None] = lambda _: None) -> Job:
        """`kubectl create` of an overlay's generation job as rendered, but small, where a unit takes so many seconds.

        `change` may do something to its spec.
        """
        job = copied(Path(tempfile.mkdtemp(dir=self.folder))) / "overlays" / overlay / "generate"
        keys = yaml.safe_load((job / "job.yaml").read_text())
        generator = {
            **SPEC["generator"],
            "seconds_per_batch": seconds * BATCH / UNIT_SIZE,
            "journal": str(self.journal),
        }
        keys |= {"out": self.uri, "plan": SPEC["plan"], "generator": generator}
        keys["engine"]["max_workers"] = workers
        (job / "job.yaml").write_text(yaml.safe_dump(keys))
        objects = digested(render(job))
        (rayjob,) = rayjobs(objects)
        shrink(rayjob)
        change(rayjob["spec"])
        return self.player.submit(objects)

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def starts(self) -> list[UnitStart]:
        """The starts of units so far, in their order."""
        return unit_starts(self.journal, UNIT_SIZE)

    def wait_started(self, number: int) -> UnitStart:
        """Until so many units are started; the last of them, which was started within the last second."""

        def now() -> bool:
            starts = self.starts
            return len(starts) >= number and time.time() - starts[-1].time < 1

        self.player.wait_until(now, f"{number} units are started")
        return self.starts[-1]

    def check(self, calm: str, client: Any = None) -> None:
        """The dataset is whole and that of the undisturbed run, and no unit was made twice."""
        dataset = Dataset.open(self.uri)
        assert dataset.manifest is not None and dataset.manifest.manifest_hash == calm
        assert dataset.verify() == []
        there = committed(dataset, client)
        assert {one.unit for one in self.starts} == there.keys() == set(range(UNITS))
        assert list(repeated(self.starts, there)) == []


def shrink(job: dict[str, Any]) -> None:
    """The job for two cores: at most two small workers in a pool, who go after 10 s without work, and so on."""
    for variable in head_spec(job)["containers"][0]["env"]:
        if variable["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S":
            variable["value"] = "5"  # a head with a driver never ends before
    for group in groups(job):
        group |= {"maxReplicas": 2, "idleTimeoutSeconds": 10}
        for amounts in group["template"]["spec"]["containers"][0]["resources"].values():
            amounts["cpu"] = "1"
    for rule in job["spec"].get("deletionStrategy", {}).get("deletionRules", ()):
        rule["condition"]["ttlSeconds"] = {"DeleteCluster": 15, "DeleteSelf": 20}[rule["policy"]]
    if "ttlSecondsAfterFinished" in job["spec"]:
        job["spec"]["ttlSecondsAfterFinished"] = 0


@pytest.fixture
def run(player, tmp_path) -> Iterator[Run]:
    """A dataset in a folder. Its jobs are deleted at the end, and their pods killed."""
    yield Run(player, tmp_path, str(tmp_path / "dataset"))
    print(player.history())  # pytest shows it where the test has failed
    player.kubectl("delete", "rayjob", "--all", "-n", NAMESPACE)
    player.stop()


@pytest.fixture
def s3_run(run, s3_uri) -> Run:
    """The same on the S3 server."""
    run.uri = s3_uri
    return run


def test_pools_grow_by_what_a_job_asks_for_and_shrink_to_nothing(player, s3_run, s3_server, calm):
    job = s3_run.submit("dev", workers=2, seconds=3)
    job.wait_for("Running")
    assert job.replicas == {"cpu": 0, "l4-spot": 0}
    player.wait_until(lambda: len(job.running(L4)) == 2, "two workers")
    assert job.replicas == {"cpu": 0, "l4-spot": 2}  # what Ray's autoscaler has written
    s3_run.wait_started(4)
    player.evict(job.running("submitter")[0])  # the next one finds the job, and follows its log
    job.wait_for("Complete")
    assert len(job.created("submitter")) == 2 and job.submissions == [job.status["jobId"]]
    assert Counter(one.unit for one in s3_run.starts) == dict.fromkeys(range(UNITS), 1)
    player.wait_until(lambda: not job.running(L4), "no workers")
    assert job.replicas == {"cpu": 0, "l4-spot": 0}
    assert {one.pod for one in s3_run.starts} <= set(job.created(L4)) and not job.created("cpu")
    player.wait_until(lambda: job.cluster is None, "no cluster")
    player.wait_until(lambda: not job.there and not player.pods, "nothing left")
    s3_run.check(calm, s3_server.client())


def test_a_worker_is_evicted_in_the_middle_of_a_unit(player, run, calm):
    job = run.submit("dev", workers=2, seconds=3)
    last = run.wait_started(4)
    player.evict(last.pod)
    job.wait_for("Complete")
    assert [one.pod == last.pod for one in run.starts if one.unit == last.unit] == [True, False]
    assert len(job.created(L4)) >= 3  # another one came
    run.check(calm)


def test_a_worker_that_is_drained_finishes_its_unit_and_leaves(player, run, calm):
    job = run.submit("dev", workers=2, seconds=4)
    last = run.wait_started(4)
    player.drain(last.pod)
    player.wait_until(lambda: last.pod not in player.pods, "it is gone")
    assert last.pod not in player.kubelet.outstayed  # by itself
    assert len(run.starts) < UNITS  # in the middle of the job
    job.wait_for("Complete")
    assert Counter(one.unit for one in run.starts) == dict.fromkeys(range(UNITS), 1)
    assert len(job.created(L4)) >= 3
    run.check(calm)


def test_the_head_is_lost_and_the_job_tried_again_on_a_new_cluster(player, run, calm):
    job = run.submit("dev", 1, 1.5, lambda spec: spec["submitterConfig"].update(backoffLimit=0))
    run.wait_started(4)
    before = job.status
    job.lose_head()
    player.wait_until(lambda: job.status["jobId"] not in ("", before["jobId"]), "another try")
    assert job.status["failed"] == 1 and job.status["rayClusterName"] != before["rayClusterName"]
    job.wait_for("Complete")
    run.check(calm)


def test_the_head_is_lost_and_the_job_submitted_again_to_the_next_one(player, run, calm):
    """With the manifest as it is: the submitter's next pod finds a new head in the same cluster, which knows no job."""
    job = run.submit("dev", workers=1, seconds=1.5)
    run.wait_started(4)
    before = job.status
    job.lose_head()
    job.wait_for("Complete")
    assert job.status["jobId"] == before["jobId"] and job.status["rayClusterName"] == before["rayClusterName"]
    assert len(job.created("headgroup")) == 2 and job.submissions == [before["jobId"]]
    run.check(calm)


def test_kueue_admits_preempts_and_admits_again(player, run, calm):
    job = run.submit("production", 1, 1.5, lambda spec: spec.update(suspend=True))  # as its webhook does
    job.wait_for("Suspended")
    assert not player.pods
    job.resume()
    run.wait_started(4)
    before = job.status
    job.suspend()
    job.wait_for("Suspended")
    assert not player.server.objects.select(CLUSTER)
    assert len(run.starts) < UNITS
    job.resume()  # at once: the pods of the first cluster are still ending
    job.wait_for("Complete")
    assert job.status["rayClusterName"] != before["rayClusterName"] and job.status["failed"] == 0
    player.wait_until(lambda: job.cluster is None, "no cluster")
    run.check(calm)


def test_everything_is_deleted_and_the_same_job_submitted_again(player, run, s3_server, calm):
    job = run.submit("dev", workers=1, seconds=1.5)
    run.wait_started(4)
    player.kubectl("delete", "namespace", NAMESPACE)
    assert not job.there
    player.wait_until(lambda: not player.pods, "the pods have ended")
    assert 4 <= len(run.starts) < UNITS
    player.set_up(OVERLAY, s3_server.env)
    again = run.submit("dev", workers=1, seconds=1.5)
    assert again.name == job.name
    again.wait_for("Complete")
    run.check(calm)
