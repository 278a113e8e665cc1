"""What we hold to be right for every job: it ends, it resumes, it can be reproduced, and it tells no secret."""

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from synthfer.k8s.lint.case import Case, Finding, Rule
from synthfer.k8s.lint.kuberay import deletion_rules
from synthfer.k8s.lint.security import name_of
from synthfer.k8s.objects import of_kind, quantity, ray_container, walk

DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
DEFAULT_DRAIN_SECONDS, DEFAULT_GRACE_SECONDS = 30, 30
_DIGEST = re.compile(r"@sha256:(?!0{64})[0-9a-f]{64}$")
_SIZED = ("cpu", "memory", "ephemeral-storage")
_SECRET = re.compile(r"SECRET|PASSWORD|TOKEN(?!_FILE|_PATH)|ACCESS_KEY", re.IGNORECASE)


def life(case: Case) -> Iterator[Finding]:
    """The job is suspended by nobody but Kueue, and it and its cluster come to an end."""
    for path, value in walk(case.job["spec"]):
        if path.rpartition(".")[2] == "suspend" and value is not None:
            what = "applied again it would stop a job that runs: leave it out, Kueue sets it by itself"
            yield case.finding(f"spec.{path}", what)
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if not case.spec.get(field):
            yield case.finding(f"spec.{field}", "is missing: a job that hangs would hold its nodes for ever")
    if not case.spec.get("backoffLimit"):
        yield case.finding("spec.backoffLimit", "is 0: a lost head would end the job, and running it again resumes")
    ends = any(rule["condition"].get("jobDeploymentStatus") == "Failed" for rule in deletion_rules(case))
    if not case.spec.get("shutdownAfterJobFinishes") and not ends:
        what = "nothing deletes the cluster of a failed job: take k8s/cleanup, or k8s/queues/job with Kueue"
        yield case.finding("spec", what)


def identity(case: Case) -> Iterator[Finding]:
    """The name is the content's, and the images are what they were."""
    name = case.job["metadata"]["name"]
    mounted = {volume.get("configMap", {}).get("name") for volume in case.head.get("volumes", ())}
    made = {one["metadata"]["name"] for one in of_kind(case.objects, "ConfigMap")}
    if name not in mounted & made:
        what = "is not the name of the ConfigMap with its keys: the same job submitted twice would be two jobs"
        yield case.finding("metadata.name", what)
    for image in sorted({image for pod in case.pods for image in _images(pod.manifest["spec"])}):
        if not _DIGEST.search(image):
            what = "has no digest (or only zeros): write that of your build, as the registry shows it"
            yield case.finding("images", f"{image.split('@')[0]} {what}")


def _images(spec: Mapping[str, Any]) -> Iterator[str]:
    """Images that a pod pulls; one that is never pulled is what the node has under that name."""
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        if container.get("imagePullPolicy") != "Never":
            yield container["image"]
    for volume in spec.get("volumes", ()):
        if "image" in volume:
            yield volume["image"]["reference"]


def ray(case: Case) -> Iterator[Finding]:
    """Ray is the one that this package was made for, guarded by a token, and keeps work off the head."""
    told, here = case.cluster.get("rayVersion"), _installed("ray")
    if here and told != here:
        yield case.finding("rayClusterSpec.rayVersion", f"is {told}, this package goes with {here}")
    if (case.cluster.get("authOptions") or {}).get("mode") != "token":
        yield case.finding(
            "rayClusterSpec.authOptions.mode", "must be written out as token: KubeRay sets none by itself"
        )
    params = case.cluster["headGroupSpec"].get("rayStartParams") or {}
    if str(params.get("num-cpus")) != "0":
        what = 'must be "0": a unit on the head can take driver and cluster down with it'
        yield case.finding("headGroupSpec.rayStartParams.num-cpus", what)
    limits = ray_container(case.head).get("resources", {}).get("limits", {})
    if any(key.endswith("gpu") for key in limits):
        yield case.finding("headGroupSpec resources", "the head holds a GPU and never uses it")
    if re.search(r"^\s*(pip|uv|conda)\s*:", case.spec.get("runtimeEnvYAML") or "", re.MULTILINE):
        what = "installs packages on every node at every start: bake them into the image"
        yield case.finding("spec.runtimeEnvYAML", what)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def resources(case: Case) -> Iterator[Finding]:
    """Each container of ours says its size, once, and what it may write fits the disk that it asks for."""
    for pod in case.pods:
        spec = pod.manifest["spec"]
        container = ray_container(spec)
        sizes = container.get("resources") or {}
        limits, requests = sizes.get("limits") or {}, sizes.get("requests") or {}
        where = f"{name_of(pod)} container {container['name']} resources"
        for resource in _SIZED:
            if resource not in limits or quantity(limits[resource]) != quantity(requests.get(resource, -1)):
                yield case.finding(where, f"{resource}: write the same limit and request, Ray plans by the limit")
        disk = quantity(limits.get("ephemeral-storage", 0))
        for volume in spec.get("volumes", ()):
            empty = volume.get("emptyDir")
            if empty is None or empty.get("medium") == "Memory" or volume["name"] == "ray-logs":
                continue  # KubeRay's own lies within the one on /tmp
            if "sizeLimit" not in empty:
                yield case.finding(
                    f"{name_of(pod)} volume {volume['name']}", "emptyDir without sizeLimit fills the node's disk"
                )
            disk -= quantity(empty.get("sizeLimit", 0))
        if disk < 0:
            yield case.finding(
                where, f"the emptyDirs may hold {-disk / 2**30:.0f}Gi more than the limit of ephemeral-storage"
            )


def drain(case: Case) -> Iterator[Finding]:
    """Ray's drain ends before the kubelet's patience: SIGKILL would win the race otherwise."""
    for pod in case.pods:
        if pod.role == "submitter":
            continue
        spec = pod.manifest["spec"]
        told = {one["name"]: one.get("value") for one in ray_container(spec).get("env", ())}
        drain_s = float(told.get(DRAIN) or DEFAULT_DRAIN_SECONDS)
        grace = spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
        if grace <= drain_s:
            what = f"{grace} s is not longer than Ray's drain of {drain_s:g} s ({DRAIN})"
            yield case.finding(f"{name_of(pod)} pod terminationGracePeriodSeconds", what)


def secrets(case: Case) -> Iterator[Finding]:
    """No secret stands in a manifest as it is."""
    for path, value in walk(case.job["spec"]):
        if isinstance(value, Mapping) and _SECRET.search(str(value.get("name", ""))) and value.get("value"):
            yield case.finding(f"spec.{path}", f"{value['name']} stands there in the clear: take it from a Secret")
    if _SECRET.search(case.spec.get("runtimeEnvYAML") or ""):
        yield case.finding("spec.runtimeEnvYAML", "is shown by Ray's dashboard: no secrets in it")
    for word in str(case.spec.get("entrypoint", "")).split():
        if _SECRET.search(word.partition("=")[0]) and "=" in word:
            yield case.finding("spec.entrypoint", "is shown by Ray's dashboard and in the pod: no secrets in it")


RULES: tuple[Rule, ...] = (life, identity, ray, resources, drain, secrets)
