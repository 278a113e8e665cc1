"""The operator of the player: what becomes of a job without a single process, and how what is made twice is found."""

from datetime import UTC, datetime, timedelta

from synthfer.k8s.objects import rayjobs
from tests.k8s.api_objects import Objects
from tests.k8s.crds import Crds
from tests.k8s.journal import UnitStart, repeated, unit_starts
from tests.k8s.kuberay import CLUSTER, JOB, POD, KubeRay
from tests.k8s.overlays import rendered


class World:
    """An operator, and one job."""

    def __init__(self, crds: Crds, overlay: str = "dev/generate", **spec: object) -> None:
        self.objects = Objects(crds)
        self.objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "synthfer"}})
        (job,) = rayjobs(rendered(overlay))
        self.name = job["metadata"]["name"]
        self.objects.create({**job, "spec": {**job["spec"], **spec}})
        self.kuberay = KubeRay(self.objects, lambda cluster: "http://127.0.0.1:9")

    @property
    def status(self) -> dict:
        return self.objects.get(JOB, self.name, "synthfer").get("status", {})

    def reach(self, state: str) -> None:
        for _ in range(10):
            self.kuberay.step()
            if self.status.get("jobDeploymentStatus") == state:
                return
        raise AssertionError(f"not {state}, but {self.status}")

    def days_later(self, key: str = "startTime") -> None:
        then = datetime.now(UTC) - timedelta(days=3)
        self.objects.set_status(JOB, self.name, "synthfer", {key: then.strftime("%Y-%m-%dT%H:%M:%SZ")})


def test_a_job_becomes_a_cluster_and_a_head(crds):
    world = World(crds)
    world.reach("Initializing")
    world.kuberay.step()
    (cluster,) = world.objects.select(CLUSTER)
    assert cluster["metadata"]["name"] == world.status["rayClusterName"]
    assert all(group["scaleStrategy"] == {} for group in cluster["spec"]["workerGroupSpecs"])
    (head,) = world.objects.select(POD)
    assert [one["name"] for one in head["spec"]["containers"]] == ["ray-head", "autoscaler"]
    token = world.objects.get("v1/Secret", cluster["metadata"]["name"], "synthfer")["data"]["auth_token"]
    assert len(token) > 40
    world.objects.delete(JOB, world.name, "synthfer")
    assert not any(world.objects.select(kind) for kind in (CLUSTER, POD, "v1/Secret"))


def test_workers_are_as_many_as_asked_for_and_those_go_that_are_named(crds):
    world = World(crds)
    world.reach("Initializing")
    world.kuberay.step()

    def ask(replicas: int, doomed: list[str]) -> list[str]:
        group = "/spec/workerGroupSpecs/1"
        patch = [
            {"op": "replace", "path": f"{group}/replicas", "value": replicas},
            {"op": "replace", "path": f"{group}/scaleStrategy", "value": {"workersToDelete": doomed}},
        ]
        world.objects.patch(CLUSTER, world.status["rayClusterName"], "synthfer", "json-patch", patch)
        world.kuberay.step()
        world.kuberay.step()
        pods = world.objects.select(POD, labels={"ray.io/group": "l4-spot"})
        return [one["metadata"]["name"] for one in pods]

    first, second = ask(2, [])
    assert len(ask(9, [])) == 4  # as the manifest's maxReplicas says
    third, fourth = ask(2, [first, second])
    assert {first, second}.isdisjoint({third, fourth})
    world.objects.delete(POD, third, "synthfer")  # lost: another one comes
    assert fourth in ask(2, []) and third not in ask(2, [])


def test_what_only_the_controller_refuses_ends_the_job(crds):
    world = World(crds, shutdownAfterJobFinishes=True)
    world.reach("ValidationFailed")
    assert "exclude each other" in world.status["message"]
    world.kuberay.step()
    assert not world.objects.select(CLUSTER) and world.status["jobDeploymentStatus"] == "ValidationFailed"


def test_a_job_that_is_too_late_is_not_tried_again(crds):
    world = World(crds)
    world.reach("Initializing")
    world.kuberay.step()
    world.days_later()
    world.reach("Failed")
    assert world.status["reason"] == "DeadlineExceeded" and world.status["failed"] == 1
    assert world.objects.select(CLUSTER)
    world.days_later("endTime")
    world.kuberay.step()
    assert not world.objects.select(CLUSTER) and world.objects.select(JOB)  # after 10 minutes, as the manifest says


def test_a_cluster_that_does_not_come_is_tried_again_as_often_as_allowed(crds):
    world = World(crds, activeDeadlineSeconds=10**7)
    seen = []
    for _ in range(3):
        world.reach("Initializing")
        world.kuberay.step()
        seen.append((world.status["rayClusterName"], world.status["jobId"]))
        assert [one["metadata"]["name"] for one in world.objects.select(CLUSTER)] == [seen[-1][0]]
        world.days_later()
        world.kuberay.step()
    assert world.status["jobDeploymentStatus"] == "Failed" and world.status["failed"] == 3
    assert world.status["reason"] == "PreRunningDeadlineExceeded"
    assert len({name for pair in seen for name in pair}) == 6


def test_a_job_that_waits_for_kueue_costs_nothing(crds):
    world = World(crds, "production/generate", suspend=True)
    world.reach("Suspended")
    world.kuberay.step()
    assert world.status["jobDeploymentStatus"] == "Suspended" and not world.objects.select(CLUSTER)
    world.objects.patch(JOB, world.name, "synthfer", "merge-patch", {"spec": {"suspend": False}})
    world.reach("Initializing")
    world.kuberay.step()
    assert world.objects.select(CLUSTER)


def test_a_start_after_the_commit_is_found(tmp_path):
    journal = tmp_path / "journal"
    rows = [(1.0, "a", 0), (1.5, "a", 4), (2.0, "b", 8), (3.0, "b", 0), (5.0, "a", 0)]
    journal.write_text("".join(f'{{"time": {when}, "pod": "{pod}", "row": {row}}}\n' for when, pod, row in rows))
    starts = unit_starts(journal, unit_size=8)
    assert [one.unit for one in starts] == [0, 1, 0, 0]
    assert list(repeated(starts, {0: 4.0, 1: 4.0})) == [UnitStart(0, 5.0, "a")]
    assert list(repeated(starts, {0: 6.0})) == []  # started twice, committed once: that is what a lost node costs
