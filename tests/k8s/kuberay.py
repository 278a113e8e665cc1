"""KubeRay's operator: from RayJobs to RayClusters, from these to pods, and back to the states that users see.

Follows the controllers of KubeRay 1.7 step by step, as far as a job in K8sJobMode goes. Not played: services, roles,
clusters of other jobs, and the failure that follows after 300 s in which the dashboard gave no answer.
"""

import base64
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from synthfer.k8s.lint.context import LintContext
from synthfer.k8s.lint.kuberay import RULES, deletion_rules
from synthfer.k8s.pods import RayPod, pods_of
from tests.k8s.api_objects import Object, Objects, now

JOB, CLUSTER, POD = "ray.io/v1/RayJob", "ray.io/v1/RayCluster", "v1/Pod"
_OVER = ("Succeeded", "Failed")
_BACKOFF_SECONDS = 10
"""What a Kubernetes Job waits before its second pod; twice as long before each further one."""


@dataclass
class Submitter:
    """The Kubernetes Job that submits an entrypoint: at most `backoffLimit` pods more than one."""

    limit: int
    failures: int = 0
    next_at: float = 0.0
    ended: str = ""


@dataclass
class KubeRay:
    """The operator. `dashboard(cluster)` is where a cluster's dashboard answers; `report` gets what happens."""

    objects: Objects
    dashboard: Callable[[str], str]
    report: Callable[[str], None] = lambda _: None
    submitters: dict[str, Submitter] = field(default_factory=dict)
    created: dict[str, str] = field(default_factory=dict)
    """All pods that were created, in their order: name -> group, `headgroup` or `submitter`."""

    def step(self) -> None:
        """Looks once at every job and at every cluster."""
        for job in self.objects.select(JOB):
            self._job(job)
        for cluster in self.objects.select(CLUSTER):
            self._cluster(cluster)

    def _job(self, job: Object) -> None:
        status = job.get("status", {})
        state = status.get("jobDeploymentStatus", "")
        steps = {
            "": self._new, "Initializing": self._initializing, "Running": self._running, "Suspending": self._clearing,
            "Retrying": self._clearing, "Suspended": self._suspended, "Complete": self._over, "Failed": self._over,
        }  # fmt: skip
        if state not in steps or not (change := steps[state](job, status)):
            return
        if change.get("jobDeploymentStatus") == "Failed":
            change |= _retried(job, status, change)
        if change.get("jobDeploymentStatus") in ("Complete", "Failed"):
            change["endTime"] = now()
        self.objects.set_status(JOB, job["metadata"]["name"], job["metadata"]["namespace"], change)
        shown = ("jobDeploymentStatus", "jobStatus", "reason", "rayClusterName")
        self.report(f"{job['metadata']['name']}: {' '.join(str(change.get(key) or '-') for key in shown)}")

    def _new(self, job: Object, status: Mapping[str, Any]) -> dict[str, Any]:
        if wrong := [str(finding) for rule in RULES for finding in rule(LintContext(job, []))]:
            reason = "ValidationFailed"
            return {"jobDeploymentStatus": reason, "reason": reason, "message": "; ".join(wrong)}
        ids = {key: f"{job['metadata']['name']}-{secrets.token_hex(3)[:5]}" for key in ("jobId", "rayClusterName")}
        return {"jobDeploymentStatus": "Initializing", "startTime": now(), **ids}

    def _initializing(self, job: Object, status: Mapping[str, Any]) -> dict[str, Any]:
        spec = job["spec"]
        if spec.get("suspend"):
            return {"jobDeploymentStatus": "Suspending"}
        if late := _late(spec, status):
            return late
        name, namespace = status["rayClusterName"], job["metadata"]["namespace"]
        cluster = self.objects.find(CLUSTER, name, namespace)
        if cluster is None:
            cluster = self.objects.create(_cluster_of(job, name), "kuberay")
        if cluster.get("status", {}).get("state") != "ready":
            return {}
        limit = (spec.get("submitterConfig") or {}).get("backoffLimit", 2)
        self.submitters[status["jobId"]] = Submitter(limit)
        return {"jobDeploymentStatus": "Running"}

    def _running(self, job: Object, status: Mapping[str, Any]) -> dict[str, Any]:
        if job["spec"].get("suspend"):
            return {"jobDeploymentStatus": "Suspending"}
        if late := _late(job["spec"], status):
            return late
        submitter = self.submitters[status["jobId"]]
        self._submit(job, status, submitter)
        info = self.ask(status["rayClusterName"], f"jobs/{status['jobId']}", job["metadata"]["namespace"])
        job_status = (info or {}).get("status", status.get("jobStatus", ""))
        if submitter.ended == "Failed":
            reason = "AppFailed" if job_status == "FAILED" else "SubmissionFailed"
            return {"jobDeploymentStatus": "Failed", "reason": reason, "jobStatus": job_status}
        if submitter.ended and job_status in ("SUCCEEDED", "FAILED", "STOPPED"):
            ended = {"SUCCEEDED": "Complete", "STOPPED": "Complete", "FAILED": "Failed"}[job_status]
            reason = {"reason": "AppFailed"} if ended == "Failed" else {"succeeded": 1}
            return {"jobDeploymentStatus": ended, "jobStatus": job_status, **reason}
        return {"jobStatus": job_status} if job_status != status.get("jobStatus", "") else {}

    def _clearing(self, job: Object, status: Mapping[str, Any]) -> dict[str, Any]:
        """Suspending and Retrying: the cluster goes, its pods may still be ending when the next one begins."""
        namespace = job["metadata"]["namespace"]
        self._delete(CLUSTER, status.get("rayClusterName"), namespace)
        for pod in self._submitter_pods(job, status):
            self._delete(POD, pod["metadata"]["name"], namespace)
        after = {"Suspending": "Suspended", "Retrying": ""}[status["jobDeploymentStatus"]]
        names = ("jobId", "rayClusterName", "jobStatus", "reason", "message")
        return {"jobDeploymentStatus": after, **dict.fromkeys(names, "")}

    def _suspended(self, job: Object, status: Mapping[str, Any]) -> dict[str, Any]:
        return {} if job["spec"].get("suspend") else {"jobDeploymentStatus": ""}

    def _over(self, job: Object, status: Mapping[str, Any]) -> dict[str, Any]:
        spec, namespace = job["spec"], job["metadata"]["namespace"]
        due = [
            rule["policy"]
            for rule in deletion_rules(LintContext(job, []))
            if all(status.get(key) == value for key, value in rule["condition"].items() if key != "ttlSeconds")
            and _since(status["endTime"]) >= rule["condition"].get("ttlSeconds", 0)
        ]
        if spec.get("shutdownAfterJobFinishes") and _since(status["endTime"]) >= spec.get("ttlSecondsAfterFinished", 0):
            due.append("DeleteCluster")
        if "DeleteSelf" in due:
            self._delete(JOB, job["metadata"]["name"], namespace)
        elif "DeleteCluster" in due:
            self._delete(CLUSTER, status["rayClusterName"], namespace)
        return {}

    def _submit(self, job: Object, status: Mapping[str, Any], submitter: Submitter) -> None:
        pods = self._submitter_pods(job, status)
        failed = [pod for pod in pods if phase(pod) == "Failed"]
        if len(failed) > submitter.failures:
            submitter.failures = len(failed)
            submitter.next_at = time.monotonic() + _BACKOFF_SECONDS * 2 ** (len(failed) - 1)
        if any(phase(pod) == "Succeeded" for pod in pods):
            submitter.ended = "Succeeded"
        elif len(failed) > submitter.limit:
            submitter.ended = "Failed"
        elif len(pods) == len(failed) and time.monotonic() >= submitter.next_at:
            pods_by_role = {pod.role: pod for pod in pods_of(job, status["rayClusterName"], status["jobId"])}
            self._create_pod(pods_by_role["submitter"], job)

    def _submitter_pods(self, job: Object, status: Mapping[str, Any]) -> list[Object]:
        pods = self.objects.select(POD, job["metadata"]["namespace"], {"job-name": job["metadata"]["name"]})
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def ask(self, cluster: str, path: str, namespace: str) -> Any:
        """What a cluster's dashboard says under a path of its API; None where there is no answer, or no such thing."""
        token = ""
        if secret := self.objects.find("v1/Secret", cluster, namespace):
            token = base64.b64decode(secret["data"]["auth_token"]).decode()
        request = urllib.request.Request(f"{self.dashboard(cluster)}/api/{path}")
        request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError):
            return None

    def _cluster(self, cluster: Object) -> None:
        name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
        job = _as_job(cluster)
        self._make_token(cluster)
        pods = self.objects.select(POD, namespace, {"ray.io/cluster": name})
        alive = []
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"]:
                continue
            if _lost(pod):
                self.report(f"lost: {pod['metadata']['name']}")
                self._delete(POD, pod["metadata"]["name"], namespace)
            else:
                alive.append(pod)
        by_group = {pod.group: pod for pod in pods_of(job, name) if pod.role != "submitter"}
        heads = [pod for pod in pods if pod["metadata"]["labels"]["ray.io/node-type"] == "head"]
        if not heads:
            self._create_pod(by_group["headgroup"], cluster)
        for group in cluster["spec"].get("workerGroupSpecs", ()):
            self._workers(group, by_group[group["groupName"]], alive, cluster)
        if alive and all(ready(pod) for pod in alive) and cluster.get("status", {}).get("state") != "ready":
            self.objects.set_status(CLUSTER, name, namespace, {"state": "ready"})

    def _workers(self, group: Mapping[str, Any], template: RayPod, alive: list[Object], cluster: Object) -> None:
        doomed = (group.get("scaleStrategy") or {}).get("workersToDelete") or ()
        here = [pod for pod in alive if pod["metadata"]["labels"]["ray.io/group"] == group["groupName"]]
        for pod in here:
            if pod["metadata"]["name"] in doomed:
                self.report(f"idle: {pod['metadata']['name']}")
                self._delete(POD, pod["metadata"]["name"], cluster["metadata"]["namespace"])
        there = sum(pod["metadata"]["name"] not in doomed for pod in here)
        wanted = min(max(group.get("replicas", 0), group.get("minReplicas", 0)), group.get("maxReplicas", 2**31))
        for _ in range(wanted - there):
            self._create_pod(template, cluster)

    def _make_token(self, cluster: Object) -> None:
        name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
        asked = (cluster["spec"].get("authOptions") or {}).get("mode") == "token"
        if asked and self.objects.find("v1/Secret", name, namespace) is None:
            token = base64.b64encode(secrets.token_hex(32).encode()).decode()
            metadata = {"name": name, "namespace": namespace, "ownerReferences": [_owner(cluster)]}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"auth_token": token}}
            self.objects.create(secret, "kuberay")

    def _create_pod(self, template: RayPod, owner: Object) -> None:
        metadata = template.manifest["metadata"]
        labels = {
            **metadata["labels"],
            **({"job-name": owner["metadata"]["name"]} if template.role == "submitter" else {}),
        }
        new_metadata = {
            "generateName": metadata["name"].removesuffix("xxxxx"), "namespace": owner["metadata"]["namespace"],
            "labels": labels, "ownerReferences": [_owner(owner)],
        }  # fmt: skip
        pod = self.objects.create({**template.manifest, "metadata": new_metadata}, "kuberay")
        self.created[pod["metadata"]["name"]] = template.group
        self.report(f"{template.role}: {pod['metadata']['name']}")

    def _delete(self, kind: str, name: str | None, namespace: str) -> None:
        if name and self.objects.find(kind, name, namespace):
            self.objects.delete(kind, name, namespace)


def _retried(job: Object, status: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A failure as it stands in the end: counted, and tried again as long as there are tries, but for deadlines."""
    failed = status.get("failed", 0) + 1
    again = failed <= job["spec"].get("backoffLimit", 0) and change.get("reason") != "DeadlineExceeded"
    return {"failed": failed, **({"jobDeploymentStatus": "Retrying"} if again else {})}


def _late(spec: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
    """The failure of a try that takes longer than it may; each try has the whole time."""
    limits = {"activeDeadlineSeconds": "DeadlineExceeded"}
    if status["jobDeploymentStatus"] == "Initializing":
        limits["preRunningDeadlineSeconds"] = "PreRunningDeadlineExceeded"
    for key, reason in limits.items():
        if key in spec and _since(status["startTime"]) >= spec[key]:
            return {"jobDeploymentStatus": "Failed", "reason": reason}
    return {}


def _since(timestamp: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()


def _cluster_of(job: Object, name: str) -> Object:
    spec = json.loads(json.dumps(job["spec"]["rayClusterSpec"]))
    for group in spec.get("workerGroupSpecs", ()):
        group.setdefault("scaleStrategy", {})  # Go writes it out; Ray's autoscaler replaces what is there
    metadata = {
        "name": name, "namespace": job["metadata"]["namespace"], "ownerReferences": [_owner(job)],
        "labels": {**job["metadata"].get("labels", {}), "ray.io/originated-from-cr-name": job["metadata"]["name"]},
    }  # fmt: skip
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata, "spec": spec}


def _as_job(cluster: Object) -> Object:
    """A cluster as the part of a job from which pods come."""
    metadata = {**cluster["metadata"], "name": cluster["metadata"]["labels"]["ray.io/originated-from-cr-name"]}
    return {"metadata": metadata, "spec": {"rayClusterSpec": cluster["spec"], "entrypoint": ""}}


def _owner(one: Object) -> Object:
    metadata = one["metadata"]
    return {
        "apiVersion": one["apiVersion"], "kind": one["kind"], "name": metadata["name"], "uid": metadata["uid"],
        "controller": True,
    }  # fmt: skip


def phase(pod: Object) -> str:
    """Pending, Running, Succeeded or Failed."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def _lost(pod: Object) -> bool:
    """Whether Ray in it has ended: a pod that is never restarted is good for nothing then."""
    first = pod.get("status", {}).get("containerStatuses", [{}])[0]
    return phase(pod) in _OVER or "terminated" in first.get("state", {})


def ready(pod: Object) -> bool:
    """Whether its readiness probe has passed."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
