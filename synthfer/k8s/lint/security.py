"""Pod Security "restricted" for the pods that KubeRay would make.

The namespace enforces it, so a pod that breaks it is never created and the job waits until its deadline. Follows the
Pod Security Standards of Kubernetes, profile restricted.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from synthfer.k8s.lint.context import Finding, LintContext, Rule
from synthfer.k8s.pods import RayPod

_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"
}  # fmt: skip
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range", "net.ipv4.tcp_syncookies",
}  # fmt: skip
_PROFILES = {"RuntimeDefault", "Localhost"}


def restricted(context: LintContext) -> Iterator[Finding]:
    """Every pod of the job against the profile."""
    if context.spec.get("submissionMode") == "SidecarMode":
        yield context.finding(
            "spec.submissionMode", "SidecarMode adds a container that Pod Security refuses: use K8sJobMode"
        )
    for pod in context.pods:
        for field, what in violations(pod.manifest["spec"]):
            yield context.finding(f"{name_of(pod)} pod {field}", f"Pod Security restricted: {what}")


def name_of(pod: RayPod) -> str:
    """How a pod is called in messages."""
    return pod.group if pod.role == "worker" else pod.role


def violations(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields of a pod spec that the profile refuses, each with the reason."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field, "must be false"
    for i, volume in enumerate(spec.get("volumes", ())):
        for kind in volume.keys() - {"name"} - _VOLUMES:
            yield f"volumes[{i}]", f"{kind} is not among the allowed kinds of volumes"
    pod = spec.get("securityContext") or {}
    for one in pod.get("sysctls", ()):
        if one["name"] not in _SYSCTLS:
            yield "securityContext.sysctls", f"{one['name']} is not allowed"
    for list_name in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(list_name, ()):
            for field, what in _of_container(container, pod):
                yield f"container {container['name']} {field}", what


def _of_container(container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    own = container.get("securityContext") or {}
    if own.get("privileged"):
        yield "securityContext.privileged", "must be false"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "securityContext.allowPrivilegeEscalation", "must be false"
    capabilities = own.get("capabilities") or {}
    if "ALL" not in capabilities.get("drop", ()):
        yield "securityContext.capabilities.drop", "must hold ALL"
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield "securityContext.capabilities.add", "may hold NET_BIND_SERVICE only"
    if not own.get("runAsNonRoot", pod.get("runAsNonRoot")):
        yield "securityContext.runAsNonRoot", "must be true, here or for the pod"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "securityContext.runAsUser", "must not be 0"
    if (own.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type") not in _PROFILES:
        yield "securityContext.seccompProfile.type", "must be RuntimeDefault or Localhost, here or for the pod"
    if own.get("procMount", "Default") != "Default":
        yield "securityContext.procMount", "must be Default"
    for port in container.get("ports", ()):
        if port.get("hostPort"):
            yield "ports", f"hostPort {port['hostPort']} is not allowed"


RULES: tuple[Rule, ...] = (restricted,)
