"""Names of objects that do not exist: the API server accepts them, and the pods then wait forever."""

from collections.abc import Iterator, Mapping
from typing import Any

from synthfer.k8s.lint.context import Finding, LintContext, Rule
from synthfer.k8s.lint.security import name_of
from synthfer.k8s.objects import of_kind, title

# What every cluster has.
_BUILT_IN = {("PriorityClass", "system-cluster-critical"), ("PriorityClass", "system-node-critical")}
_LABELS = {
    "kueue.x-k8s.io/queue-name": "LocalQueue",
    "kueue.x-k8s.io/priority-class": "WorkloadPriorityClass",
}


def missing(context: LintContext) -> Iterator[Finding]:
    """Objects that the job names and that exist nowhere. A missing Secret, often created by hand, is a warning."""
    existing = {(one["kind"], one["metadata"]["name"]) for one in context.everything} | _BUILT_IN
    for pod in context.pods:
        token = context.pods[0].manifest["metadata"]["labels"]["ray.io/cluster"]  # KubeRay makes this Secret itself
        for kind, name in named_objects(pod.manifest["spec"]):
            if (kind, name) not in existing and (kind, name) != ("Secret", token):
                what = f"there is no {kind} {name} in the job or the place"
                if kind == "Secret":
                    what += ": create it before the job"
                yield context.finding(f"{name_of(pod)} pod", what, warning=kind == "Secret")
    for label, kind in _LABELS.items():
        name = context.job["metadata"].get("labels", {}).get(label)
        if name and (kind, name) not in existing:
            yield context.finding(f"metadata.labels.{label}", f"there is no {kind} {name} in the place")
    yield from _queues(context, existing)


def _queues(context: LintContext, existing: set[tuple[str, str]]) -> Iterator[Finding]:
    """Queues and flavors that name what does not exist."""
    for local in of_kind(context.place, "LocalQueue"):
        wanted = local["spec"]["clusterQueue"]
        if ("ClusterQueue", wanted) not in existing:
            yield Finding(title(local), f"there is no ClusterQueue {wanted}")
    for queue in of_kind(context.place, "ClusterQueue"):
        flavors = [one["name"] for group in queue["spec"].get("resourceGroups", ()) for one in group["flavors"]]
        for wanted in flavors:
            if ("ResourceFlavor", wanted) not in existing:
                yield Finding(title(queue), f"there is no ResourceFlavor {wanted}")


def named_objects(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and name of every object that a pod spec needs; optional ones are left out."""
    if name := spec.get("serviceAccountName"):
        yield "ServiceAccount", name
    if name := spec.get("priorityClassName"):
        yield "PriorityClass", name
    for secret in spec.get("imagePullSecrets", ()):
        yield "Secret", secret["name"]
    for volume in spec.get("volumes", ()):
        yield from _of_volume(volume)
    for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
        for source in container.get("envFrom", ()):
            yield from _required(("ConfigMap", source.get("configMapRef")), ("Secret", source.get("secretRef")))
        for variable in container.get("env", ()):
            source = variable.get("valueFrom", {})
            yield from _required(("ConfigMap", source.get("configMapKeyRef")), ("Secret", source.get("secretKeyRef")))


def _of_volume(volume: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from _required(("ConfigMap", volume.get("configMap")))
    if (secret := volume.get("secret")) and not secret.get("optional"):
        yield "Secret", secret["secretName"]
    if claim := volume.get("persistentVolumeClaim"):
        yield "PersistentVolumeClaim", claim["claimName"]
    for source in volume.get("projected", {}).get("sources", ()):
        yield from _required(("ConfigMap", source.get("configMap")), ("Secret", source.get("secret")))


def _required(*sources: tuple[str, Mapping[str, Any] | None]) -> Iterator[tuple[str, str]]:
    for kind, source in sources:
        if source and not source.get("optional"):
            yield kind, source["name"]


RULES: tuple[Rule, ...] = (missing,)
