"""RayJobs played on this machine: an API server, KubeRay's operator and a kubelet, with Ray's real autoscaler.

kubectl submits a rendered RayJob as to any cluster. Pods become processes; what is done to them is done to processes:
a lost node is SIGKILL, a drained one SIGTERM with the manifest's grace. Nothing goes on by itself: the operator and
the kubelet look at the world whenever a test waits for something.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthfer.k8s.objects import dump, kubectl
from synthfer.k8s.pods import DASHBOARD_PORT, GCS_PORT, head_service
from tests.k8s.api_objects import Object
from tests.k8s.api_server import ApiServer, running_api_server
from tests.k8s.crds import Crds
from tests.k8s.dockerfile import environment
from tests.k8s.kubelet import Kubelet, PodSetup, free_port, remove_folder
from tests.k8s.kuberay import CLUSTER, JOB, POD, KubeRay, phase, ready
from tests.ray_sessions import ROOT

NAMESPACE = "synthfer"
_OBJECT_STORE = 90_000_000
_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Job:
    """A RayJob in the player, by its name."""

    player: "Player"
    name: str

    @property
    def status(self) -> dict[str, Any]:
        """What KubeRay says of it; nothing where it is gone."""
        one = self.player.server.objects.find(JOB, self.name, NAMESPACE) or {}
        status: dict[str, Any] = one.get("status", {})
        return status

    @property
    def state(self) -> str:
        """New, Initializing, Running, Retrying, Suspending, Suspended, Complete, Failed or ValidationFailed."""
        return self.status.get("jobDeploymentStatus") or "New"

    @property
    def there(self) -> bool:
        """Whether it still exists."""
        return self.player.server.objects.find(JOB, self.name, NAMESPACE) is not None

    @property
    def cluster(self) -> Object | None:
        """Its RayCluster; None before it is created, and when it is deleted."""
        return self.player.server.objects.find(CLUSTER, self.status.get("rayClusterName", ""), NAMESPACE)

    @property
    def replicas(self) -> dict[str, int]:
        """The workers that its RayCluster asks for, by group."""
        asked = self.cluster["spec"]["workerGroupSpecs"] if self.cluster else ()
        return {group["groupName"]: group["replicas"] for group in asked}

    @property
    def submissions(self) -> list[str]:
        """The ids of all jobs that its Ray cluster has been given."""
        jobs = self.player.kuberay.ask(self.status["rayClusterName"], "jobs/", NAMESPACE)
        return [one["submission_id"] for one in jobs]

    def created(self, group: str) -> list[str]:
        """All pods that were created for it so far, of a worker group, `headgroup` or `submitter`."""
        created = self.player.kuberay.created
        return [name for name, its in created.items() if name.startswith(f"{self.name}-") and its == group]

    def running(self, group: str) -> list[str]:
        """Those of them that run and are not about to end."""
        pods = {one["metadata"]["name"]: one for one in self.player.server.objects.select(POD, NAMESPACE)}
        present = [(name, pods[name]) for name in self.created(group) if name in pods]
        return [name for name, one in present if phase(one) == "Running" and "deletionTimestamp" not in one["metadata"]]

    def suspend(self, suspend: bool = True) -> None:
        """What Kueue does to a job that it preempts or, with False, admits."""
        patch = {"spec": {"suspend": suspend}}
        self.player.server.objects.patch(JOB, self.name, NAMESPACE, "merge-patch", patch, "kueue")

    def resume(self) -> None:
        """What Kueue does to a job that it admits."""
        self.suspend(False)

    def lose_head(self) -> None:
        """The head's node is gone, and all that ran there."""
        (head,) = self.running("headgroup")
        self.player.evict(head)

    def wait_for(self, state: str, seconds: float = 400) -> None:
        """Until KubeRay says so; `AssertionError` if that can no longer be."""
        self.player.wait_until(lambda: self.state in (state, "Complete"), f"{self.name} is {state}", seconds)
        assert self.state == state, self.player.history()


@dataclass
class Player:
    """Server, operator and kubelet. `events` are what happened, with seconds since the start."""

    server: ApiServer
    folder: Path

    def __post_init__(self) -> None:
        self.events: list[str] = []
        self._ports: dict[str, tuple[int, int]] = {}
        self._started = time.monotonic()
        self.kubelet = Kubelet(self.server, self.folder / "pods", environment(), _here())
        self.kuberay = KubeRay(
            self.server.objects, lambda name: f"http://127.0.0.1:{self._ports_of(name)[1]}", self.log_event
        )

    def log_event(self, what: str) -> None:
        """Notes an event."""
        self.events.append(f"{time.monotonic() - self._started:6.1f} {what}")

    def set_up(self, overlay: Path, settings: Mapping[str, str]) -> None:
        """Applies an overlay as the runbook has it; `settings` join its ConfigMap synthfer-store."""
        self.kubectl("apply", "--server-side", "-k", str(overlay))
        patch = {"data": dict(settings)}
        self.server.objects.patch("v1/ConfigMap", "synthfer-store", NAMESPACE, "merge-patch", patch)

    def submit(self, objects: Sequence[Object]) -> Job:
        """`kubectl create` of a job as rendered."""
        created = self.kubectl("create", "-f", "-", "-o", "name", given=objects).split()
        (name,) = [one.partition("/")[2] for one in created if one.startswith("rayjob")]
        return Job(self, name)

    def kubectl(self, *words: str, given: Sequence[Object] = ()) -> str:
        """What the real kubectl prints; `AssertionError` with its words where it fails."""
        env = {**os.environ, **self.server.env, "HOME": str(self.folder)}
        done = subprocess.run(
            [kubectl(), *words], input=dump(given), env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def evict(self, pod: str) -> None:
        """SIGKILL for all of a pod at once, as when its node is taken away."""
        self.log_event(f"killed: {pod}")
        self.kubelet.kill(pod, NAMESPACE)

    def drain(self, pod: str) -> None:
        """What `kubectl drain`, and a spot node with notice, does to a pod: SIGTERM, the grace it asks for, SIGKILL."""
        self.log_event(f"drained: {pod}")
        self.server.objects.delete(POD, pod, NAMESPACE)

    def step(self) -> None:
        """The operator and the kubelet look at everything once."""
        self.kuberay.step()
        for pod in self.server.objects.select(POD):
            name = pod["metadata"]["name"]
            if name not in self.kubelet.setups and (setup := self._setup(pod)):
                self.kubelet.setups[name] = setup
        self.kubelet.step()

    def wait_until(self, happened: Callable[[], Any], what: str = "", seconds: float = 300) -> None:
        """Lets the world go on until something has happened; `AssertionError` if it does not, or a job has failed."""
        deadline = time.monotonic() + seconds
        while not happened():
            jobs = [one.get("status", {}).get("jobDeploymentStatus") for one in self.server.objects.select(JOB)]
            given_up = {"Failed", "ValidationFailed"}.intersection(jobs) or time.monotonic() > deadline
            assert not given_up, f"it does not happen: {what}\n{self.history()}"
            self.step()
            time.sleep(_POLL_SECONDS)

    def history(self) -> str:
        """Events, and the ends of all logs."""
        logs = [
            f"=== {file.relative_to(self.folder)}\n{file.read_text(errors='replace')[-3000:]}"
            for file in sorted(self.folder.rglob("*.log"))
            if "ray/session" not in str(file)
        ]
        return "\n".join([*self.events, *logs])

    @property
    def pods(self) -> list[str]:
        """All pods that are not gone."""
        return [one["metadata"]["name"] for one in self.server.objects.select(POD)]

    def stop(self) -> None:
        """SIGKILL for every process of every pod; what they have written goes, too."""
        self.kubelet.stop()
        self.events.clear()
        remove_folder(self.kubelet.folder)

    def _ports_of(self, cluster: str) -> tuple[int, int]:
        """Where a cluster's GCS and dashboard are here, whichever pod is its head."""
        return self._ports.setdefault(cluster, (free_port(), free_port()))

    def _setup(self, pod: Object) -> PodSetup | None:
        """What a pod needs to run here; None for one that must wait for its head."""
        labels = pod["metadata"]["labels"]
        cluster = labels.get("ray.io/cluster") or self._cluster_of(labels["job-name"])
        gcs, dashboard = self._ports_of(cluster)
        service = head_service(cluster, {"metadata": {"namespace": NAMESPACE}})
        texts = {
            f"{service}:{GCS_PORT}": f"127.0.0.1:{gcs}", f"127.0.0.1:{GCS_PORT}": f"127.0.0.1:{gcs}",
            f"{service}:{DASHBOARD_PORT}": f"127.0.0.1:{dashboard}", "/opt/synthfer": str(ROOT),
        }  # fmt: skip
        ray_tmp = self.folder / str(len(self.kubelet.setups))  # Ray's sockets need a short path
        env = {"RAY_TMPDIR": str(ray_tmp), "AUTOSCALER_UPDATE_INTERVAL_S": "2"}
        heads = self._heads(cluster)
        if "job-name" in labels:  # its entrypoint runs in the head, and speaks of paths there
            return PodSetup(self.kubelet.mounts(heads[-1]) | texts, env=env) if heads else None
        role = labels["ray.io/node-type"]
        if role == "worker" and not any(map(ready, heads)):
            return None  # its init container waits for the head
        ray_tmp.mkdir()
        agent = free_port()
        words = {
            "object-store-memory": _OBJECT_STORE, "dashboard-agent-listen-port": agent,
            "metrics-export-port": free_port(), "dashboard-agent-grpc-port": free_port(),
            "runtime-env-agent-port": free_port(),
        }  # fmt: skip
        if role == "head":
            words |= {"port": gcs, "dashboard-port": dashboard, "ray-client-server-port": free_port()}
            env |= {"AUTOSCALER_METRIC_PORT": str(free_port()), "DASHBOARD_METRIC_PORT": str(free_port())}
        first = pod["spec"]["containers"][0]["name"]
        ours = "".join(f" --{key}={value}" for key, value in words.items())
        return PodSetup(texts, {first: ours, "autoscaler": f" --gcs-address 127.0.0.1:{gcs}"}, env, agent)

    def _cluster_of(self, job: str) -> str:
        name: str = self.server.objects.get(JOB, job, NAMESPACE)["status"]["rayClusterName"]
        return name

    def _heads(self, cluster: str) -> list[Object]:
        labels = {"ray.io/cluster": cluster, "ray.io/node-type": "head"}
        return [one for one in self.server.objects.select(POD, NAMESPACE, labels) if "status" in one]


def _here() -> dict[str, str]:
    """This machine's programs, the tests' own generators, and little work for few cores; nothing else of this process'
    variables, which say how other tests run."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@contextmanager
def playing(crds: Crds, overlay: Path, settings: Mapping[str, str]) -> Iterator[Player]:
    """A player with the namespace of an overlay in it, where `settings` join its ConfigMap synthfer-store.

    Everything that was started is killed at the end, and every file removed.
    """
    folder = Path(tempfile.mkdtemp(prefix="sf-", dir="/tmp"))
    player = None
    try:
        with running_api_server(folder, crds) as server:
            player = Player(server, folder)
            player.set_up(overlay, settings)
            yield player
    finally:
        if player:
            player.stop()
        remove_folder(folder)
