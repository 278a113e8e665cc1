"""The tests' own API server, by the real kubectl: what it takes, what it refuses and why, and what a dry run leaves."""

import json
import os
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from synthfer.k8s.objects import dump, kubectl, rayjobs
from tests.k8s.api_server import ApiServer, running_api_server
from tests.k8s.overlays import K8S, digested, rendered

NAMESPACE = "synthfer"
PLACE = str(K8S / "overlays/dev")


@pytest.fixture(scope="module")
def running(tmp_path_factory, crds) -> Iterator[ApiServer]:
    with running_api_server(tmp_path_factory.mktemp("server"), crds) as running:
        kube(running, "apply", "--server-side", "-k", PLACE)
        yield running


@pytest.fixture
def server(running) -> Iterator[ApiServer]:
    """The overlay for development, without any job."""
    yield running
    for one in running.objects.select("ray.io/v1/RayJob"):
        running.objects.remove("ray.io/v1/RayJob", one["metadata"]["name"], NAMESPACE)


@pytest.fixture
def job() -> dict[str, Any]:
    (job,) = rayjobs(digested(rendered("dev/generate")))
    return dict(job)


def tried(server: ApiServer, *words: str, given: Any = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **server.env, "HOME": str(server.folder)}
    text = dump([given]) if given else None
    return subprocess.run([kubectl(), *words], input=text, env=env, capture_output=True, text=True, check=False)


def kube(server: ApiServer, *words: str, given: Any = None) -> str:
    done = tried(server, *words, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(server: ApiServer, *words: str, given: Any = None) -> str:
    done = tried(server, *words, given=given)
    assert done.returncode == 1 and not done.stdout, done.stdout
    return done.stderr


def of_server(server: ApiServer, job: dict[str, Any]) -> dict[str, Any]:
    name = job["metadata"]["name"]
    return json.loads(kube(server, "get", "rayjob", name, "-n", NAMESPACE, "-o", "json"))


@pytest.mark.parametrize("how", [["--server-side"], []])
def test_what_is_applied_again_is_not_changed(server, job, how):
    kube(server, "apply", *how, "-f", "-", given=job)
    version = server.objects.version
    kube(server, "apply", *how, "-f", "-", given=job)
    assert server.objects.version == version
    kube(server, "diff", *how, "-f", "-", given=job)
    job["spec"]["backoffLimit"] = 5
    different = tried(server, "diff", *how, "-f", "-", given=job)
    assert different.returncode == 1 and "+  backoffLimit: 5" in different.stdout
    kube(server, "apply", *how, "-f", "-", given=job)
    assert of_server(server, job)["spec"]["backoffLimit"] == 5


@pytest.mark.parametrize("words", [["create"], ["apply"], ["apply", "--server-side"], ["delete"]])
def test_a_dry_run_changes_nothing(server, job, words):
    if words == ["delete"]:
        kube(server, "create", "-f", "-", given=job)
    version = server.objects.version
    assert "dry run" in kube(server, *words, "--dry-run=server", "-f", "-", given=job)
    assert server.objects.version == version


def test_what_is_there_is_not_created_again(server, job):
    kube(server, "create", "-f", "-", given=job)
    assert "AlreadyExists" in refused(server, "create", "-f", "-", given=job)


WRONG = {
    "a typing error": (lambda spec: spec.update(backofLimit=2), "backofLimit"),
    "a word for a number": (lambda spec: spec.update(backoffLimit="two"), "backoffLimit"),
    "two conditions in one": (
        lambda spec: spec["deletionStrategy"]["deletionRules"][0]["condition"].update(jobDeploymentStatus="Failed"),
        "cannot be used together",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_custom_resource_against_its_definition_is_refused(server, job, what):
    change, said = WRONG[what]
    change(job["spec"])
    message = refused(server, "create", "-f", "-", given=job)
    assert "is invalid" in message and said in message
    assert not server.objects.select("ray.io/v1/RayJob")


@pytest.mark.parametrize("words", [["create", "--dry-run=server"], ["apply"], ["apply", "--server-side"]])
def test_it_is_refused_whatever_brings_it(server, job, words):
    job["spec"]["backofLimit"] = 2
    assert "backofLimit" in refused(server, *words, "-f", "-", given=job)
    assert not server.objects.select("ray.io/v1/RayJob")


def test_a_change_against_the_definition_is_refused(server, job):
    job["spec"]["managedBy"] = "ray.io/kuberay-operator"
    kube(server, "create", "-f", "-", given=job)
    words = ["patch", "rayjob", job["metadata"]["name"], "-n", NAMESPACE, "--type=merge", "-p"]
    assert "backofLimit" in refused(server, *words, '{"spec": {"backofLimit": 1}}')
    assert "immutable" in refused(server, *words, '{"spec": {"managedBy": "kueue.x-k8s.io/multikueue"}}')
    kube(server, *words, '{"spec": {"backoffLimit": 1}}')
    assert of_server(server, job)["spec"]["backoffLimit"] == 1


def test_what_kubernetes_itself_does_not_know_is_refused(server):
    (budget,) = [one for one in rendered("dev") if one["kind"] == "PodDisruptionBudget"]
    budget["spec"]["maxUnavailble"] = 1
    assert "maxUnavailble" in refused(server, "apply", "--server-side", "-f", "-", given=budget)
    elsewhere = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "nowhere"}}
    assert 'namespaces "nowhere" not found' in refused(server, "create", "-f", "-", given=elsewhere)
    nothing = {"apiVersion": "ray.io/v1", "kind": "RayJobs", "metadata": {"name": "a"}}
    assert "no matches for kind" in refused(server, "create", "--validate=false", "-f", "-", given=nothing)


def test_a_job_that_is_applied_again_stays_admitted(server, job):
    """Kueue suspends and admits by `spec.suspend`: a manifest that has it would stop a job that runs."""
    kube(server, "apply", "-f", "-", given=job)
    name = job["metadata"]["name"]
    for suspend in (True, False):
        server.objects.patch(
            "ray.io/v1/RayJob", name, NAMESPACE, "merge-patch", {"spec": {"suspend": suspend}}, "kueue"
        )
    kube(server, "apply", "-f", "-", given=job)
    assert of_server(server, job)["spec"]["suspend"] is False
    job["spec"]["suspend"] = True
    assert 'conflict with "kueue": .spec.suspend' in refused(server, "apply", "--server-side", "-f", "-", given=job)
    kube(server, "apply", "-f", "-", given=job)
    assert of_server(server, job)["spec"]["suspend"] is True


def test_server_side_apply_knows_whose_a_field_is(server, job):
    words = ["apply", "--server-side", "-f", "-"]
    job["spec"]["ttlSecondsAfterFinished"] = 5
    kube(server, *words, given=job)
    name = job["metadata"]["name"]
    kube(server, "label", "rayjob", name, "-n", NAMESPACE, "colour=red")
    del job["spec"]["activeDeadlineSeconds"]
    kube(server, *words, given=job)
    now = of_server(server, job)
    assert "activeDeadlineSeconds" not in now["spec"] and now["metadata"]["labels"]["colour"] == "red"
    job["metadata"]["labels"]["colour"] = "blue"
    assert ".metadata.labels.colour" in refused(server, *words, given=job)
    kube(server, *words, "--force-conflicts", given=job)
    assert of_server(server, job)["metadata"]["labels"]["colour"] == "blue"


def test_patches_of_all_kinds(server, job):
    deployment, *_ = [one for one in rendered("local") if one["kind"] == "Deployment"]
    kube(server, "apply", "-f", "-", given=deployment)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [*container.get("env", []), {"name": "COLOUR", "value": "red"}]
    kube(server, "apply", "-f", "-", given=deployment)  # kubectl sends what of the lists has changed
    there = server.objects.get("apps/v1/Deployment", deployment["metadata"]["name"], NAMESPACE)
    assert there["spec"]["template"]["spec"]["containers"][0]["env"] == container["env"]
    container["env"].pop()
    kube(server, "apply", "-f", "-", given=deployment)
    there = server.objects.get("apps/v1/Deployment", deployment["metadata"]["name"], NAMESPACE)
    assert there["spec"]["template"]["spec"]["containers"][0].get("env", []) == container["env"]
    kube(server, "create", "-f", "-", given=job)
    words = ["patch", "rayjob", job["metadata"]["name"], "-n", NAMESPACE, "--type=json", "-p"]
    path = "/spec/rayClusterSpec/workerGroupSpecs/0/replicas"
    kube(server, *words, json.dumps([{"op": "replace", "path": path, "value": 2}]))
    assert of_server(server, job)["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 2
    wrong = [{"op": "replace", "path": path.replace("replicas", "scaleStrategy"), "value": {}}]
    assert "non-existent" in refused(server, *words, json.dumps(wrong))  # what Ray's autoscaler would do


def test_what_an_object_owns_goes_with_it(server, job):
    kube(server, "create", "-f", "-", given=job)
    owner = {"apiVersion": "ray.io/v1", "kind": "RayJob", "name": job["metadata"]["name"]}
    owner["uid"] = of_server(server, job)["metadata"]["uid"]
    metadata = {"name": "its", "namespace": NAMESPACE, "ownerReferences": [owner]}
    kube(server, "create", "-f", "-", given={"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    kube(server, "delete", "rayjob", job["metadata"]["name"], "-n", NAMESPACE)
    assert "NotFound" in refused(server, "get", "configmap", "its", "-n", NAMESPACE)


def test_nobody_gets_in_without_a_certificate(server):
    url = f"https://127.0.0.1:{server.port}/api/v1/namespaces/{NAMESPACE}/secrets"
    context = ssl.create_default_context(cafile=server.folder / "ca.crt")
    with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
        urllib.request.urlopen(url, context=context, timeout=20)
    context.load_cert_chain(server.folder / "client.crt", server.folder / "client.key")
    with urllib.request.urlopen(url, context=context, timeout=20) as answer:
        assert json.load(answer)["kind"] == "SecretList"
