"""What the API server itself refuses, by the policies of k8s/: our jobs pass, and none that lacks a thing."""

import copy
import os
import subprocess

import pytest

from synthfer.k8s.lint import lint
from synthfer.k8s.objects import dump, kubectl, rayjobs
from tests.k8s.api_objects import Objects, Refused
from tests.k8s.api_server import running_api_server
from tests.k8s.crds import Crds
from tests.k8s.overlays import JOBS, K8S, digested, rendered
from tests.k8s.test_lint import CLUSTER, GONE, GROUPS, HEAD_BOX, change

POLICED = [name for name in JOBS if not name.startswith("local/")]
POLICIES = ("Namespace", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def objects_of(crds: Crds, name: str) -> Objects:
    """An API server's objects with the namespace and the policies of an overlay."""
    objects = Objects(crds)
    for one in rendered(name):
        if one["kind"] in POLICIES:
            objects.create(one)
    return objects


@pytest.mark.parametrize("name", POLICED)
def test_every_job_passes_with_a_digest_and_none_without(crds, name):
    objects = objects_of(crds, name.partition("/")[0])
    (job,) = rayjobs(rendered(name))
    with pytest.raises(Refused, match="has no digest"):
        objects.create(job)
    objects.create(*digested([job]))


SUBMITTER = ("submitterPodTemplate", "spec", "containers", 0)
WRONG = {
    "no deadline": (change("spec", "activeDeadlineSeconds", GONE), "activeDeadlineSeconds"),
    "no deadline before it runs": (change("spec", "preRunningDeadlineSeconds", GONE), "preRunningDeadlineSeconds"),
    "a cluster that stays": (change("spec", "deletionStrategy", GONE), "nothing deletes the cluster"),
    "a failed cluster that stays": (
        change("spec", "deletionStrategy", "deletionRules", [{"policy": "DeleteCluster", "condition": {
            "jobStatus": "SUCCEEDED", "ttlSeconds": 60}}]),
        "nothing deletes the cluster",
    ),
    "no token": (change(*CLUSTER, "authOptions", GONE), "must be token"),
    "another way in": (change(*CLUSTER, "authOptions", "mode", "disabled"), "must be token"),
    "a head by a tag": (change(*HEAD_BOX, "image", "synthfer:latest"), "no digest"),
    "a worker by a tag": (change(*GROUPS, 1, "template", "spec", "containers", 0, "image", "synthfer:1"), "no digest"),
    "a submitter by a tag": (change("spec", *SUBMITTER, "image", "synthfer:1"), "no digest"),
    "an init container by a tag": (
        change(*GROUPS, 0, "template", "spec", "initContainers", [{"name": "first", "image": "busybox"}]),
        "no digest",
    ),
    "weights by a tag": (
        change(*GROUPS, 0, "template", "spec", "volumes", [{"name": "models", "image": {"reference": "models:1"}}]),
        "no digest",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_job_that_lacks_something_is_refused_here_and_by_the_lint(crds, what):
    spoil, said = WRONG[what]
    objects = digested(rendered("dev/generate"))
    (job,) = rayjobs(objects)
    assert lint(objects, rendered("dev")) == []
    spoil(job)
    with pytest.raises(Refused, match=said):
        objects_of(crds, "dev").create(job)
    assert lint(objects, rendered("dev"))


def test_a_job_on_a_cluster_of_somebody_else_is_refused(crds):
    (job,) = rayjobs(digested(rendered("dev/generate")))
    del job["spec"]["rayClusterSpec"]
    with pytest.raises(Refused, match="rayClusterSpec is missing"):
        objects_of(crds, "dev").create(job)


def test_with_a_queue_no_job_gets_past_it(crds):
    (job,) = rayjobs(digested(rendered("production/generate")))
    del job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    with pytest.raises(Refused, match=r"synthfer-queue.* label kueue\.x-k8s\.io/queue-name is missing"):
        objects_of(crds, "production").create(job)


def test_an_image_that_the_node_has_needs_no_digest(crds):
    (job,) = rayjobs(rendered("local/generate"))
    objects_of(crds, "dev").create(job)


def test_other_namespaces_are_not_ours_and_running_jobs_may_be_changed(crds):
    objects = objects_of(crds, "dev")
    objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}})
    (job,) = rayjobs(rendered("dev/generate"))
    there = copy.deepcopy(job)
    there["metadata"]["namespace"] = "elsewhere"
    objects.create(there)
    objects.create(*digested([job]))
    words = ("ray.io/v1/RayJob", job["metadata"]["name"], "synthfer", "merge-patch")
    objects.patch(*words, {"spec": {"activeDeadlineSeconds": None}})  # as Kueue changes jobs that are older


def test_kubectl_shows_why(crds, tmp_path):
    with running_api_server(tmp_path, crds) as server:
        env = {**os.environ, **server.env, "HOME": str(tmp_path)}
        command = [kubectl(), "apply", "--server-side", "-k", str(K8S / "overlays/dev")]
        subprocess.run(command, env=env, capture_output=True, check=True)
        (job,) = rayjobs(rendered("dev/generate"))
        command = [kubectl(), "create", "-f", "-"]
        done = subprocess.run(command, input=dump([job]), env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        "ValidatingAdmissionPolicy 'synthfer-jobs' with binding 'synthfer-jobs' denied request: an image" in done.stderr
    )
