"""A job that runs across the network policies, in containers as the manifests have them, which write nothing."""

import base64
import contextlib
import json
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from synthfer.k8s.objects import of_kind
from synthfer.k8s.pods import DASHBOARD_PORT, head_service, pods_of
from synthfer.store import Dataset
from tests.k8s import network_lab, sandbox
from tests.k8s.network_lab import Host, Lab, host_addresses
from tests.k8s.overlays import job_of, policies_of, rendered, store_pod

ROWS = 70
CLUSTER = "generate-x"
TOKEN = "0123456789abcdef0123456789abcdef"

MISSING = network_lab.missing_tools() or sandbox.missing_tools()

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]


class Cluster:
    """The local overlay with one worker: real Ray, its own S3 store and the job's submitter, each in containers."""

    def __init__(self, folder: Path) -> None:
        self.job = job_of("local/generate")
        self.pods = {pod.role: pod.manifest for pod in pods_of(self.job, CLUSTER)} | {"s3": store_pod()}
        ours = [(name, "synthfer", pod["metadata"]["labels"], ()) for name, pod in self.pods.items()]
        world = [
            ("operator", "kuberay-system", {"app.kubernetes.io/name": "kuberay-operator"}, ()),
            ("prometheus", "monitoring", {}, ()),
            ("dns", "kube-system", {}, (53, "53/udp")),
        ]
        hosts = [Host(*one, host_addresses(i)[:1]) for i, one in enumerate(ours + world, 2)]
        self.address = {one.name: one.addresses[0] for one in hosts}
        services = {head_service(CLUSTER, self.job): "head", "s3.synthfer.svc.cluster.local": "s3"}
        self.lab = Lab(hosts, {service: self.address[name] for service, name in services.items()})
        keys = {"synthfer-s3": store_keys(), CLUSTER: {"auth_token": TOKEN}}
        self.node = sandbox.Node(folder, small_job(), keys, self.address["dns"])
        self.running: dict[str, sandbox.Container] = {}

    def start(self, name: str) -> sandbox.Container:
        """Start a pod: its init containers to their end, then its first container."""
        pod, network = self.pods[name], self.lab.inside(name)
        for first in pod["spec"].get("initContainers", ()):
            ended(self.node.start(pod, first, network))
        self.running[name] = self.node.start(pod, pod["spec"]["containers"][0], network)
        return self.running[name]

    def start_ray(self, name: str) -> None:
        """Start a pod of Ray's; on a busy machine a node may be too slow for Ray's own limits, and starts again."""
        for _ in range(2):
            container = self.start(name)
            while container.process.poll() is None:
                if "Ray runtime started" in container.text():
                    return
                time.sleep(0.2)
        raise AssertionError(f"{name} does not start; its log ends:\n{container.text()[-3000:]}")

    def get(self, source: str, target: str, path: str, token: str = "") -> bytes:
        """What one pod gets from another, as head:8265, over HTTP."""
        name, _, port = target.partition(":")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"http://{self.address[name]}:{port}{path}", headers=headers)

        def asked() -> bytes:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read()

        return self.lab.within(source, asked)

    def kill(self) -> None:
        for one in self.running.values():
            one.kill()


def ended(container: sandbox.Container) -> None:
    """Wait for a container's end, whatever it is."""
    try:
        container.process.wait(240)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it does not end; its log ends:\n{container.text()[-3000:]}") from None


def store_keys() -> dict[str, str]:
    """What the local overlay's Secret says of the store."""
    (secret,) = of_kind(rendered("local"), "Secret")
    return {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}


def small_job() -> dict[str, dict[str, str]]:
    """The job's ConfigMap with a generator and a number that suit a test; all else as it is rendered."""
    maps = {one["metadata"]["name"]: dict(one["data"]) for one in of_kind(rendered("local/generate"), "ConfigMap")}
    for files in maps.values():
        config = yaml.safe_load(files["job.yaml"]) | {"generator": {"name": "simulated"}}
        config["plan"]["total"] = ROWS
        files["job.yaml"] = yaml.safe_dump(config)
    return maps


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The job, submitted and followed to its end; head, worker and store are still there."""
    with tempfile.TemporaryDirectory(prefix="sf-isolation-") as folder:
        cluster = Cluster(Path(folder))
        try:
            with cluster.lab:
                cluster.lab.apply(policies_of("local"))
                cluster.start("s3")
                cluster.start_ray("head")
                cluster.start_ray("worker")
                ended(cluster.start("submitter"))
                yield cluster
        finally:
            cluster.kill()


def test_a_job_runs_across_the_policies_in_locked_containers(cluster, monkeypatch):
    """The operator asks how it is, and the dataset in the store is whole."""
    jobs = json.loads(cluster.get("operator", f"head:{DASHBOARD_PORT}", "/api/jobs/", TOKEN))
    (job,) = [one for one in jobs if one["type"] == "SUBMISSION"]
    log = cluster.running["submitter"].text()
    assert job["status"] == "SUCCEEDED", log[-5000:]
    assert job["entrypoint"] == cluster.job["spec"]["entrypoint"]
    summary = next(json.loads(line) for line in log.splitlines() if line.startswith('{"uri"'))
    assert summary["rows"] == ROWS
    for name, value in (store_keys() | {"AWS_ENDPOINT_URL_S3": f"http://{cluster.address['s3']}:8333"}).items():
        monkeypatch.setenv(name, value)
    manifest = cluster.lab.within("worker", lambda: Dataset.open(summary["uri"]).manifest)
    assert manifest.manifest_hash == summary["manifest_hash"]
    assert manifest.rows == ROWS


@pytest.mark.parametrize("token", ["", "0" * 32])
def test_who_has_not_the_jobs_token_is_refused(cluster, token):
    with pytest.raises(urllib.error.HTTPError, match=r"401|403"):
        cluster.get("operator", f"head:{DASHBOARD_PORT}", "/api/jobs/", token)


def test_probes_and_prometheus_need_no_token(cluster):
    for name in ("head", "worker"):
        probe = cluster.pods[name]["spec"]["containers"][0]["livenessProbe"]["httpGet"]
        assert b"success" in cluster.get(name, f"{name}:{probe['port']}", probe["path"])
        assert b"ray_node_cpu_utilization" in cluster.get("prometheus", f"{name}:8080", "/metrics")
    assert b"ray_dashboard" in cluster.get("prometheus", "head:44227", "/metrics")


def weaknesses(container: sandbox.Container, volumes: list[str]) -> set[str]:
    """What a container's processes are or may do, and its mounts leave open, that ours never should."""
    weak_points = set()
    for status in container.statuses():
        if set(re.findall(r"^[UG]id:\t(\d+)\t(\d+)\t(\d+)\t(\d+)", status, re.M)) != {("1000",) * 4}:
            weak_points.add("user")
        if set(re.findall(r"^Cap\w+:\t(\w+)", status, re.M)) != {"0" * 16}:
            weak_points.add("capabilities")
        if "NoNewPrivs:\t1" not in status:
            weak_points.add("new privileges")
    for as_root in (False, True):
        for path in container.writable(as_root):
            if not any(path == one or path.startswith(f"{one}/") for one in volumes):
                weak_points.add(path)
    return weak_points


def volumes_of(pod: dict[str, Any]) -> list[str]:
    return [one["mountPath"] for one in pod["spec"]["containers"][0]["volumeMounts"] if not one.get("readOnly")]


@pytest.mark.parametrize("name", ["head", "worker", "s3"])
def test_a_running_container_is_nobody_and_writes_only_to_its_volumes(cluster, name):
    volumes = volumes_of(cluster.pods[name])
    assert set(volumes) <= {"/tmp", "/tmp/ray", "/data" if name == "s3" else "/dev/shm"}
    assert weaknesses(cluster.running[name], volumes) == set()


@contextlib.contextmanager
def idle(folder: Path, pod: dict[str, Any]) -> Iterator[sandbox.Container]:
    """A pod's container that does nothing."""
    keys = {"synthfer-s3": store_keys(), CLUSTER: {"auth_token": TOKEN}}
    container = pod["spec"]["containers"][0] | {"command": ["sleep", "infinity"], "args": []}
    started = sandbox.Node(folder, small_job(), keys).start(pod, container)
    try:
        yield started
    finally:
        started.kill()


LOOSENED = {
    "nothing": (lambda pod, container: None, set()),
    "root": (lambda pod, container: pod.update(runAsUser=0), {"user"}),
    "group": (lambda pod, container: pod.pop("runAsGroup"), {"user"}),
    "capabilities": (lambda pod, container: container.pop("capabilities"), {"capabilities"}),
    "file system": (lambda pod, container: container.update(readOnlyRootFilesystem=False), {"/etc", "/var/tmp"}),
}


@pytest.mark.parametrize("loosened", LOOSENED)
def test_a_manifest_that_is_loosened_is_reported(loosened, tmp_path):
    (pod,) = [pod.manifest for pod in pods_of(job_of("local/generate"), CLUSTER) if pod.role == "submitter"]
    loosen, expected = LOOSENED[loosened]
    loosen(pod["spec"]["securityContext"], pod["spec"]["containers"][0]["securityContext"])
    with idle(tmp_path, pod) as container:
        weak_points = weaknesses(container, volumes_of(pod))
        assert weak_points >= expected
        assert bool(weak_points) == bool(expected), weak_points
