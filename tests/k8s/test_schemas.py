"""Everything that is sent to a cluster, and every pod that would come of it, against the schemas of an API server."""

import copy

import kubernetes_validate
import pytest

from synthfer.k8s.objects import parse
from synthfer.k8s.pods import pods_of
from tests.k8s.overlays import JOBS, K8S, OVERLAYS, job_of, rendered

KUBERNETES = "1.37"
# Of other operators: their definitions are in no package, tests/k8s/test_monitoring.py looks at what they hold.
ELSEWHERE = {"PodMonitor", "PrometheusRule"}


def core_errors(one) -> str:
    """Why the schemas of Kubernetes itself refuse the object; empty if they do not."""
    try:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.InvalidSchemaError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", [*OVERLAYS, *JOBS])
def test_objects_are_valid(crds, name):
    for one in rendered(name):
        if one["kind"] in ELSEWHERE:
            continue
        wrong = crds.errors(one) if crds.knows(one) else core_errors(one)
        assert not wrong, f"{one['kind']}/{one['metadata']['name']}: {wrong}"


@pytest.mark.parametrize("name", JOBS)
def test_pods_are_valid(name):
    pods = pods_of(job_of(name))
    assert {pod.role for pod in pods} == {"head", "submitter", "worker"}
    for pod in pods:
        assert core_errors(pod.manifest) == "", pod.group


def test_the_schemas_of_kubernetes_refuse_what_is_wrong():
    (budget,) = [one for one in rendered("dev") if one["kind"] == "PodDisruptionBudget"]
    budget["spec"]["maxUnavailble"] = 1
    assert "maxUnavailble" in core_errors(budget)
    pod = pods_of(job_of("dev/generate"))[0].manifest
    pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] = ["4"]
    assert core_errors(pod)


def _set(path, value):
    def change(job):
        *outer, last = path
        for key in outer:
            job = job[key]
        job[last] = value

    return change


CLUSTER = ("spec", "rayClusterSpec")
WRONG = {
    "a typing error": (_set(("spec", "backofLimit"), 2), "backofLimit"),
    "a word for a number": (_set(("spec", "backoffLimit"), "two"), "backoffLimit"),
    "a field of a later version": (_set((*CLUSTER, "idleTerminationOptions"), {}), "idleTerminationOptions"),
    "a quantity that is none": (
        _set((*CLUSTER, "headGroupSpec", "template", "spec", "containers", 0, "resources", "limits", "cpu"), "four"),
        "four",
    ),
    "no command": (_set((*CLUSTER, "headGroupSpec", "template"), None), "template"),
    "an owner that is none": (_set(("spec", "managedBy"), "me"), "managedBy"),
    "two conditions in one": (
        _set(("spec", "deletionStrategy", "deletionRules", 0, "condition", "jobDeploymentStatus"), "Failed"),
        "cannot be used together",
    ),
    "old and new rules": (_set(("spec", "deletionStrategy", "onSuccess"), {"policy": "DeleteSelf"}), "legacy"),
    "a policy that is none": (
        _set(("spec", "deletionStrategy", "deletionRules", 0, "policy"), "DeleteAll"),
        "DeleteAll",
    ),
    "a deadline of nothing": (_set(("spec", "preRunningDeadlineSeconds"), 0), "preRunningDeadlineSeconds"),
}


@pytest.mark.parametrize("what", WRONG)
def test_the_definition_of_a_rayjob_refuses(crds, what):
    change, said = WRONG[what]
    job = job_of("dev/generate")
    assert crds.errors(job) == []
    change(job)
    assert said in str(crds.errors(job))


def test_what_may_not_change_is_held(crds):
    job = job_of("dev/generate")
    job["spec"]["managedBy"] = "ray.io/kuberay-operator"
    changed = copy.deepcopy(job)
    changed["spec"]["managedBy"] = "kueue.x-k8s.io/multikueue"
    assert crds.errors(changed) == []
    assert "immutable" in str(crds.errors(changed, job))


QUEUE_WRONG = {
    "a resource left out": (lambda spec: spec["resourceGroups"][0]["flavors"][0]["resources"].pop(), "same number"),
    "borrowing from nobody": (
        lambda spec: (
            spec.pop("cohortName"),
            spec["resourceGroups"][0]["flavors"][0]["resources"][0].update(borrowingLimit="1"),
        ),
        "borrowingLimit",
    ),
    "a flavor twice": (
        lambda spec: spec["resourceGroups"][0]["flavors"].append(spec["resourceGroups"][0]["flavors"][0]),
        "twice",
    ),
}


@pytest.mark.parametrize("what", QUEUE_WRONG)
def test_the_definition_of_a_queue_refuses(crds, what):
    change, said = QUEUE_WRONG[what]
    (queue,) = parse((K8S / "queues/cluster-queue.yaml").read_text())
    assert crds.errors(queue) == []
    change(queue["spec"])
    assert said in str(crds.errors(queue))
