"""The pods that KubeRay 1.7 makes of a RayJob, so that they can be checked, or played, before any cluster has them.

No linter and no dry run looks into a RayJob: it is a custom resource, and its pods only exist once it runs. Follows
KubeRay's builder of pods as far as anything here depends on it.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from synthfer.k8s.objects import Object, cluster_spec, groups, quantity, ray_container

GCS_PORT, DASHBOARD_PORT, AGENT_PORT, METRICS_PORT = 6379, 8265, 52365, 8080
_COPIED = ("image", "imagePullPolicy", "securityContext", "env", "envFrom", "volumeMounts")
"""What the waiting init container has of the Ray container."""


@dataclass(frozen=True)
class RayPod:
    """One kind of pod of a job: its manifest, how many of it there may be, and the words that start Ray in it."""

    role: str  # head, worker or submitter
    group: str
    manifest: dict[str, Any]
    start: tuple[str, ...] = ()
    replicas: int = 1
    min_replicas: int = 1
    max_replicas: int = 1


def pods_of(job: Object, cluster: str | None = None, submission: str | None = None) -> list[RayPod]:
    """Head, submitter and one pod of each worker group.

    `cluster` is the RayCluster's name and `submission` the id of the Ray job, else KubeRay's patterns of them.
    """
    name, submission = (given or f"{job['metadata']['name']}-xxxxx" for given in (cluster, submission))
    pods = [_head(job, name)]
    if job["spec"].get("submissionMode", "K8sJobMode") == "K8sJobMode":
        pods.append(_submitter(job, name, submission))
    return pods + [_worker(job, group, name) for group in groups(job)]


def start_words(group: Mapping[str, Any], head_address: str | None, autoscaling: bool) -> tuple[str, ...]:
    """What follows `ray start` for a group; without an address it is the head. KubeRay reads sizes from the limits."""
    params = {"block": "true", "metrics-export-port": METRICS_PORT, "dashboard-agent-listen-port": AGENT_PORT}
    if head_address:
        params["address"] = head_address
    else:
        params |= {"head": "true", "dashboard-host": "0.0.0.0"} | ({"no-monitor": "true"} if autoscaling else {})
    params |= _sizes(group) | dict(group.get("rayStartParams") or {})
    if labels := group.get("labels"):
        params["labels"] = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return tuple(f"--{key}" if value == "true" else f"--{key}={value}" for key, value in sorted(params.items()))


def _sizes(group: Mapping[str, Any]) -> dict[str, Any]:
    """CPUs, GPUs and memory that Ray is told: the group's `resources`, else the container's limits."""
    resources = ray_container(group["template"]["spec"]).get("resources", {})
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    sizes: dict[str, Any] = {}
    if cpu := limits.get("cpu", requests.get("cpu")):
        sizes["num-cpus"] = -(-quantity(cpu) // 1)
    if memory := limits.get("memory"):
        sizes["memory"] = int(quantity(memory))
    if gpus := sum(quantity(number) for key, number in limits.items() if key.endswith("gpu")):
        sizes["num-gpus"] = int(gpus)
    requested = group.get("resources") or {}
    for key, param in (("CPU", "num-cpus"), ("GPU", "num-gpus"), ("memory", "memory")):
        if key in requested:
            sizes[param] = int(quantity(requested[key]))
    return sizes


def _head(job: Object, name: str) -> RayPod:
    spec, group = cluster_spec(job), cluster_spec(job)["headGroupSpec"]
    autoscaling = bool(spec.get("enableInTreeAutoscaling"))
    words = start_words(group, None, autoscaling)
    manifest = _ray_pod(job, group, name, "head", "headgroup", words)
    if autoscaling:
        pod = manifest["spec"]
        pod["containers"].append(_autoscaler(job, pod, name))
        pod["restartPolicy"] = "Never"
        pod.setdefault("volumes", []).append({"name": "ray-logs", "emptyDir": {}})
        ray_container(pod)["volumeMounts"].append({"name": "ray-logs", "mountPath": "/tmp/ray"})
    return RayPod("head", "headgroup", manifest, words)


def _worker(job: Object, group: Mapping[str, Any], name: str) -> RayPod:
    spec = cluster_spec(job)
    words = start_words(group, f"{head_service(name, job)}:{GCS_PORT}", bool(spec.get("enableInTreeAutoscaling")))
    manifest = _ray_pod(job, group, name, "worker", group["groupName"], words)
    pod = manifest["spec"]
    if spec.get("enableInTreeAutoscaling"):
        pod["restartPolicy"] = "Never"
    container = ray_container(pod)
    copied = {key: container[key] for key in _COPIED if key in container}
    small = {"cpu": "200m", "memory": "256Mi"}
    pod["initContainers"] = [
        *pod.get("initContainers", []),
        {
            "name": "wait-gcs-ready",
            **copy.deepcopy(copied),
            "command": ["/bin/bash", "-c", "--"],
            "args": [f"until ray health-check --address {head_service(name, job)}:{GCS_PORT}; do sleep 5; done"],
            "resources": {"limits": small, "requests": small},
        },
    ]
    hosts = int(group.get("numOfHosts", 1))
    counts = (int(group.get(key, 0)) * hosts for key in ("replicas", "minReplicas", "maxReplicas"))
    return RayPod("worker", group["groupName"], manifest, words, *counts)


def head_service(name: str, job: Object) -> str:
    """The name by which workers and submitter find the head."""
    return f"{name[:50]}-head-svc.{job['metadata'].get('namespace', 'default')}.svc.cluster.local"


def _ray_pod(
    job: Object, group: Mapping[str, Any], name: str, kind: str, group_name: str, words: tuple[str, ...]
) -> dict[str, Any]:
    template = copy.deepcopy(dict(group["template"]))
    pod = template["spec"]
    container = ray_container(pod)
    container["command"] = ["/bin/bash", "-c", "--"]
    container["args"] = [f"ulimit -n 65536; ray start {' '.join(words)}"]
    variables = container.setdefault("env", [])
    existing = {variable["name"] for variable in variables}
    variables.extend(one for one in _environment(job, name, kind, group_name) if one["name"] not in existing)
    container.setdefault("volumeMounts", []).append({"name": "shared-mem", "mountPath": "/dev/shm"})
    memory = container.get("resources", {}).get("requests", {}).get("memory")
    size = {"sizeLimit": memory} if memory else {}
    pod.setdefault("volumes", []).append({"name": "shared-mem", "emptyDir": {"medium": "Memory", **size}})
    healthy = {"httpGet": {"path": "/api/healthz", "port": AGENT_PORT}}
    container.setdefault("readinessProbe", {**healthy, "periodSeconds": 5, "failureThreshold": 10})
    container.setdefault("livenessProbe", {**healthy, "periodSeconds": 5, "failureThreshold": 120})
    labels = {
        **template.get("metadata", {}).get("labels", {}),
        **(group.get("labels") or {}),
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": "kuberay-operator",
        "ray.io/is-ray-node": "yes",
        "ray.io/cluster": name,
        "ray.io/node-type": kind,
        "ray.io/group": group_name,
        "ray.io/identifier": f"{name}-{kind}",
    }
    return _pod(f"{name}-{group_name}-{kind}-xxxxx", job, template, labels)


def _pod(name: str, job: Object, template: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name[-63:].lstrip("-"), "labels": dict(labels)}
    if namespace := job["metadata"].get("namespace"):
        metadata["namespace"] = namespace
    if annotations := template.get("metadata", {}).get("annotations"):
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _environment(job: Object, name: str, kind: str, group_name: str) -> Iterator[dict[str, Any]]:
    """The variables that KubeRay adds to Ray's container."""
    address = f"127.0.0.1:{GCS_PORT}" if kind == "head" else f"{head_service(name, job)}:{GCS_PORT}"
    yield {"name": "RAY_CLUSTER_NAME", "value": name}
    yield {"name": "RAY_CLOUD_INSTANCE_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    yield {"name": "RAY_NODE_TYPE_NAME", "value": group_name}
    yield {"name": "RAY_PORT", "value": str(GCS_PORT)}
    yield {"name": "RAY_ADDRESS", "value": address}
    yield {"name": "RAY_USAGE_STATS_KUBERAY_IN_USE", "value": "1"}
    yield {"name": "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE", "value": "1"}
    yield from _token(job, name)


def _token(job: Object, name: str) -> Iterator[dict[str, Any]]:
    if (cluster_spec(job).get("authOptions") or {}).get("mode") == "token":
        secret = cluster_spec(job)["authOptions"].get("secretName") or name
        yield {"name": "RAY_AUTH_MODE", "value": "token"}
        yield {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "auth_token"}}}


def _autoscaler(job: Object, pod: Mapping[str, Any], name: str) -> dict[str, Any]:
    options = cluster_spec(job).get("autoscalerOptions") or {}
    size = {"cpu": "500m", "memory": "512Mi"}
    own = {key: options[key] for key in ("securityContext", "envFrom") if key in options}
    own |= {key: value for key, value in ray_container(pod).items() if key == "imagePullPolicy"}
    return {
        "name": "autoscaler",
        "image": options.get("image") or ray_container(pod)["image"],
        "command": ["/bin/bash", "-c", "--"],
        "args": [
            "ray kuberay-autoscaler --cluster-name $(RAY_CLUSTER_NAME) --cluster-namespace $(RAY_CLUSTER_NAMESPACE)"
        ],
        "env": [
            {"name": "RAY_CLUSTER_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['ray.io/cluster']"}}},
            {"name": "RAY_CLUSTER_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "RAY_HEAD_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "KUBERAY_CRD_VER", "value": "v1"},
            *_token(job, name),
            *options.get("env", []),
        ],
        "resources": options.get("resources") or {"limits": size, "requests": size},
        "volumeMounts": [*options.get("volumeMounts", []), {"name": "ray-logs", "mountPath": "/tmp/ray"}],
        **copy.deepcopy(own),
    }


def _submitter(job: Object, name: str, submission: str) -> RayPod:
    """The pod that submits the entrypoint; KubeRay asks first whether the id is there, so that it runs once."""
    default = {
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "ray-job-submitter",
                    "image": ray_container(cluster_spec(job)["headGroupSpec"]["template"]["spec"])["image"],
                    "resources": {
                        "limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "200Mi"}
                    },
                }
            ],
        }
    }  # fmt: skip
    template = copy.deepcopy(dict(job["spec"].get("submitterPodTemplate") or default))
    container = ray_container(template["spec"])
    address = f"http://{head_service(name, job)}:{DASHBOARD_PORT}"
    container.setdefault("command", ["/bin/bash", "-ce", "--"])
    container.setdefault("args", [submit_script(job, address, submission)])
    container.setdefault("env", []).extend(
        [
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            {"name": "RAY_DASHBOARD_ADDRESS", "value": address},
            {"name": "RAY_JOB_SUBMISSION_ID", "value": submission},
            *_token(job, name),
        ]
    )
    labels = template.get("metadata", {}).get("labels", {})
    return RayPod("submitter", "submitter", _pod(f"{job['metadata']['name']}-xxxxx", job, template, labels))


def submit_script(job: Object, address: str, submission: str) -> str:
    """The submitter's shell: a second one on the same cluster finds the job and only follows its log."""
    there = f"ray job status --address {address} {submission} >/dev/null 2>&1"
    submit = f"ray job submit --address {address} --no-wait --submission-id {submission} -- {job['spec']['entrypoint']}"
    return f"if ! {there} ; then {submit} ; fi ; ray job logs --address {address} --follow {submission}"
