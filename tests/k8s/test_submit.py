"""Submitting: checked first, created once, found again, deleted as a whole, by the real kubectl and an API server."""

import json
import subprocess
import sys

import pytest

from synthfer.k8s import __main__ as commands
from synthfer.k8s import submit as submitting
from synthfer.k8s.objects import kubectl, render
from synthfer.schema import ConfigError
from tests.k8s.api_server import ApiServer, running_api_server
from tests.k8s.overlays import K8S, copied
from tests.ray_sessions import ROOT


@pytest.fixture(scope="module")
def running(tmp_path_factory, crds):
    """An API server with the overlay for development, applied by kubectl."""
    with running_api_server(tmp_path_factory.mktemp("server"), crds) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", server.env["KUBECONFIG"])
            applied = kube("apply", "--server-side", "-k", str(K8S / "overlays/dev"))
        assert applied.returncode == 0, applied.stderr
        yield server


@pytest.fixture
def server(running, monkeypatch):
    """The server without any job."""
    monkeypatch.setenv("KUBECONFIG", running.env["KUBECONFIG"])
    yield running
    for kind in ("ray.io/v1/RayJob", "v1/ConfigMap"):
        for one in running.objects.select(kind, "synthfer"):
            running.objects.remove(kind, one["metadata"]["name"], "synthfer")


@pytest.fixture
def k8s(tmp_path):
    """A copy of k8s/ with the digest of an image."""
    copy = copied(tmp_path)
    for file in copy.glob("overlays/*/job/kustomization.yaml"):
        file.write_text(file.read_text().replace("0" * 64, "7" * 64))
    return copy


def kube(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([kubectl(), *words], capture_output=True, text=True, check=False)


def submit(job) -> dict:
    """As `python -m synthfer.k8s submit` does."""
    return dict(commands.submit(commands.JobConfig(job=str(job)), None).summary)


def set_state(server: ApiServer, name: str, state: str, reason: str = "") -> None:
    server.objects.set_status("ray.io/v1/RayJob", name, "synthfer", {"jobDeploymentStatus": state, "reason": reason})


def test_a_place_is_applied_and_a_job_is_submitted_once(server, k8s):
    """As the runbook has it: the overlay twice, which changes nothing, and the job twice, which is one job."""
    job = k8s / "overlays/dev/generate"
    before = [one["metadata"]["generation"] for one in server.objects.select("networking.k8s.io/v1/NetworkPolicy")]
    applied = kube("apply", "--server-side", "-k", str(k8s / "overlays/dev"))
    assert applied.returncode == 0, applied.stderr
    after = [one["metadata"]["generation"] for one in server.objects.select("networking.k8s.io/v1/NetworkPolicy")]
    assert before == after and len(after) == 8
    first = submit(job)
    assert first["created"] and first["state"] == "New"
    set_state(server, first["job"], "Running")
    second = submit(job)
    assert (second["job"], second["created"], second["state"]) == (first["job"], False, "Running")
    jobs = json.loads(kube("get", "rayjobs", "-n", "synthfer", "-o", "json").stdout)["items"]
    assert [one["metadata"]["name"] for one in jobs] == [first["job"]]
    config = json.loads(kube("get", "configmap", first["job"], "-n", "synthfer", "-o", "json").stdout)
    assert config["metadata"]["ownerReferences"][0]["uid"] == jobs[0]["metadata"]["uid"]
    assert config["data"]["job.yaml"] == (job / "job.yaml").read_text()


def test_other_keys_are_another_job(server, k8s):
    job = k8s / "overlays/dev/generate"
    first = submit(job)
    config = job / "job.yaml"
    config.write_text(config.read_text().replace("total: 7000", "total: 70"))
    second = submit(job)
    assert second["created"] and second["job"] != first["job"]


def test_kubectl_alone_submits_once(server, k8s):
    job = str(k8s / "overlays/dev/generate")
    assert kube("create", "-k", job).returncode == 0
    again = kube("create", "-k", job)
    assert again.returncode != 0 and "already exists" in again.stderr
    assert kube("delete", "-k", job).returncode == 0
    assert kube("create", "-k", job).returncode == 0


def test_a_job_that_failed_is_told_with_what_to_do(server, k8s):
    job = k8s / "overlays/dev/generate"
    first = submit(job)
    set_state(server, first["job"], "Failed", "AppFailed")
    summary = submit(job)
    assert summary["state"] == "Failed AppFailed" and "delete rayjob" in summary["again"]


def test_what_the_lint_finds_is_not_submitted(server, k8s):
    job = k8s / "overlays/dev/generate"
    config = job / "job.yaml"
    config.write_text(config.read_text().replace("max_workers: 4", "max_workers: 64"))
    with pytest.raises(ConfigError, match="64 workers"):
        submit(job)
    assert json.loads(kube("get", "rayjobs", "-A", "-o", "json").stdout)["items"] == []


def test_what_the_cluster_refuses_is_told_in_its_words(server, k8s):
    """Here a namespace that is not there."""
    kustomization = k8s / "overlays/dev/generate/kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("namespace: synthfer", "namespace: elsewhere"))
    with pytest.raises(ConfigError, match=r'kubectl apply: .*namespaces "elsewhere" not found'):
        submitting.submit(render(kustomization.parent))


def test_a_dry_run_creates_nothing_and_no_cluster_is_a_clear_error(server, k8s, tmp_path, monkeypatch):
    """In a process of its own, as a user would call it."""
    job = k8s / "overlays/dev/generate"

    def call(*flags: str) -> tuple[int, dict]:
        command = [sys.executable, "-m", "synthfer.k8s", "submit", f"job={job}", "--json", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    code, summary = call("--dry-run")
    assert code == 0 and summary["errors"] == 0
    assert json.loads(kube("get", "rayjobs", "-A", "-o", "json").stdout)["items"] == []
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    code, summary = call()
    assert code == 2 and "kubectl get" in summary["error"]


def test_a_server_dry_run_says_what_the_definitions_refuse(server, k8s):
    """The API server's own checks are kubectl's to ask for: the lint does not repeat them."""
    job = k8s / "overlays/dev/generate"
    assert kube("create", "--dry-run=server", "-k", str(job)).returncode == 0
    patch = k8s / "jobs/generate/job.yaml"
    patch.write_text(patch.read_text() + "- op: add\n  path: /spec/backofLimit\n  value: 3\n")
    refused = kube("create", "--dry-run=server", "--validate=strict", "-k", str(job))
    assert refused.returncode != 0 and "backofLimit" in refused.stderr
