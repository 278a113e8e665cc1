"""This project's rules for every job: it ends, it can be resumed and reproduced, and it reveals no secret."""

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from synthfer.k8s.lint.context import Finding, LintContext, Rule
from synthfer.k8s.lint.kuberay import deletion_rules
from synthfer.k8s.lint.security import name_of
from synthfer.k8s.objects import of_kind, quantity, ray_container, walk

DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
DEFAULT_DRAIN_SECONDS, DEFAULT_GRACE_SECONDS = 30, 30
_DIGEST = re.compile(r"@sha256:(?!0{64})[0-9a-f]{64}$")
_SIZED = ("cpu", "memory", "ephemeral-storage")
_SECRET = re.compile(r"SECRET|PASSWORD|TOKEN(?!_FILE|_PATH)|ACCESS_KEY", re.IGNORECASE)


def lifecycle(context: LintContext) -> Iterator[Finding]:
    """Only Kueue may suspend the job, and the job and its cluster must come to an end."""
    for path, value in walk(context.job["spec"]):
        if path.rpartition(".")[2] == "suspend" and value is not None:
            what = "applied again it would stop a job that runs: leave it out, Kueue sets it by itself"
            yield context.finding(f"spec.{path}", what)
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if not context.spec.get(field):
            yield context.finding(f"spec.{field}", "is missing: without it a job that hangs keeps its nodes forever")
    if not context.spec.get("backoffLimit"):
        yield context.finding(
            "spec.backoffLimit",
            "is 0: set 1 or more, so that a job that loses its head starts again",
        )
    ends = any(rule["condition"].get("jobDeploymentStatus") == "Failed" for rule in deletion_rules(context))
    if not context.spec.get("shutdownAfterJobFinishes") and not ends:
        what = "nothing deletes the cluster of a failed job: take k8s/cleanup, or k8s/queues/job with Kueue"
        yield context.finding("spec", what)


def identity(context: LintContext) -> Iterator[Finding]:
    """The job's name is that of its content, and images are pinned by digest."""
    name = context.job["metadata"]["name"]
    mounted = {volume.get("configMap", {}).get("name") for volume in context.head.get("volumes", ())}
    rendered = {one["metadata"]["name"] for one in of_kind(context.objects, "ConfigMap")}
    if name not in mounted & rendered:
        what = "is not the name of the ConfigMap with its keys: the same job submitted twice would be two jobs"
        yield context.finding("metadata.name", what)
    for image in sorted({image for pod in context.pods for image in _images(pod.manifest["spec"])}):
        if not _DIGEST.search(image):
            what = "has no digest (or only zeros): write that of your build, as the registry shows it"
            yield context.finding("images", f"{image.split('@')[0]} {what}")


def _images(spec: Mapping[str, Any]) -> Iterator[str]:
    """Images that a pod pulls; one that is never pulled is what the node has under that name."""
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        if container.get("imagePullPolicy") != "Never":
            yield container["image"]
    for volume in spec.get("volumes", ()):
        if "image" in volume:
            yield volume["image"]["reference"]


def ray(context: LintContext) -> Iterator[Finding]:
    """Ray has the version of this package, is protected by a token, and runs no work on the head."""
    version_there, here = context.cluster.get("rayVersion"), _installed("ray")
    if here and version_there != here:
        yield context.finding("rayClusterSpec.rayVersion", f"is {version_there}, this package needs {here}")
    if (context.cluster.get("authOptions") or {}).get("mode") != "token":
        yield context.finding(
            "rayClusterSpec.authOptions.mode", "must be written out as token: KubeRay sets none by itself"
        )
    params = context.cluster["headGroupSpec"].get("rayStartParams") or {}
    if str(params.get("num-cpus")) != "0":
        what = 'must be "0": a unit on the head can take driver and cluster down with it'
        yield context.finding("headGroupSpec.rayStartParams.num-cpus", what)
    limits = ray_container(context.head).get("resources", {}).get("limits", {})
    if any(key.endswith("gpu") for key in limits):
        yield context.finding("headGroupSpec resources", "the head holds a GPU and never uses it")
    if re.search(r"^\s*(pip|uv|conda)\s*:", context.spec.get("runtimeEnvYAML") or "", re.MULTILINE):
        what = "installs packages on every node at every start: bake them into the image"
        yield context.finding("spec.runtimeEnvYAML", what)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def resources(context: LintContext) -> Iterator[Finding]:
    """Each container has one size (request = limit), and its emptyDirs fit the disk that it asks for."""
    for pod in context.pods:
        spec = pod.manifest["spec"]
        container = ray_container(spec)
        sizes = container.get("resources") or {}
        limits, requests = sizes.get("limits") or {}, sizes.get("requests") or {}
        where = f"{name_of(pod)} container {container['name']} resources"
        for resource in _SIZED:
            if resource not in limits or quantity(limits[resource]) != quantity(requests.get(resource, -1)):
                yield context.finding(where, f"{resource}: write the same limit and request, Ray plans by the limit")
        disk = quantity(limits.get("ephemeral-storage", 0))
        for volume in spec.get("volumes", ()):
            empty = volume.get("emptyDir")
            if empty is None or empty.get("medium") == "Memory" or volume["name"] == "ray-logs":
                continue  # KubeRay's own lies within the one on /tmp
            if "sizeLimit" not in empty:
                yield context.finding(
                    f"{name_of(pod)} volume {volume['name']}", "emptyDir without sizeLimit fills the node's disk"
                )
            disk -= quantity(empty.get("sizeLimit", 0))
        if disk < 0:
            yield context.finding(
                where, f"the emptyDirs may hold {-disk / 2**30:.0f}Gi more than the limit of ephemeral-storage"
            )


def drain(context: LintContext) -> Iterator[Finding]:
    """Ray's drain ends before the grace period of the pod, after which the kubelet sends SIGKILL."""
    for pod in context.pods:
        if pod.role == "submitter":
            continue
        spec = pod.manifest["spec"]
        variables = {one["name"]: one.get("value") for one in ray_container(spec).get("env", ())}
        drain_s = float(variables.get(DRAIN) or DEFAULT_DRAIN_SECONDS)
        grace = spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
        if grace <= drain_s:
            what = f"{grace} s is not longer than Ray's drain of {drain_s:g} s ({DRAIN})"
            yield context.finding(f"{name_of(pod)} pod terminationGracePeriodSeconds", what)


def secrets(context: LintContext) -> Iterator[Finding]:
    """No secret is written into a manifest."""
    for path, value in walk(context.job["spec"]):
        if isinstance(value, Mapping) and _SECRET.search(str(value.get("name", ""))) and value.get("value"):
            yield context.finding(f"spec.{path}", f"{value['name']} is written in clear text: take it from a Secret")
    if _SECRET.search(context.spec.get("runtimeEnvYAML") or ""):
        yield context.finding("spec.runtimeEnvYAML", "is shown by Ray's dashboard: remove the secret from it")
    for word in str(context.spec.get("entrypoint", "")).split():
        if _SECRET.search(word.partition("=")[0]) and "=" in word:
            yield context.finding(
                "spec.entrypoint", "is shown by Ray's dashboard and in the pod: remove the secret from it"
            )


RULES: tuple[Rule, ...] = (lifecycle, identity, ray, resources, drain, secrets)
