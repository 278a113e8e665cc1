"""Submit a job to the cluster once: as `kubectl create`, but linted first, and without error where it exists."""

import json
import logging
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from synthfer.k8s.objects import Object, dump, kubectl, rayjobs
from synthfer.schema import ConfigError

log = logging.getLogger(__name__)


def submit(objects: Sequence[Object]) -> dict[str, Any]:
    """Creates the one RayJob among the objects and what was rendered with it; name, state, and whether it is new.

    Its name is its content's, so that a second call finds the first one's job. The job owns the ConfigMap with its
    keys, which is deleted with it. `ConfigError` with kubectl's message where the cluster refuses.
    """
    jobs = rayjobs(objects)
    if len(jobs) != 1:
        raise ConfigError(
            f"there are {len(jobs)} RayJobs in it: name the folder of one job, as k8s/overlays/dev/generate"
        )
    job = jobs[0]
    name, namespace = job["metadata"]["name"], job["metadata"].get("namespace", "default")
    current = state(name, namespace)
    if current is None:
        others = [one for one in objects if one is not job]
        if others:
            call("apply", "--server-side", "--field-manager=synthfer", "-f", "-", given=others)
        answer = call("create", "-f", "-", given=[job])
        if "AlreadyExists" not in answer:
            own(name, namespace, [one for one in others if one["kind"] == "ConfigMap"])
    return {
        "job": name,
        "namespace": namespace,
        "created": current is None,
        "state": current or "New",
        "watch": f"kubectl -n {namespace} get rayjob {name} --watch",
        **_advice(current, name, namespace),
    }


def _advice(current: str | None, name: str, namespace: str) -> dict[str, str]:
    """What to do about a job that is there and has ended badly."""
    if current is None or not current.startswith(("Failed", "ValidationFailed")):
        return {}
    again = f"kubectl -n {namespace} delete rayjob {name}, then submit again: it goes on from its shards"
    return {"again": again}


def state(name: str, namespace: str) -> str | None:
    """The state that KubeRay gives of a job (New before it has seen it), None where there is no such job."""
    answer = call("get", "rayjob", name, "-n", namespace, "-o", "json", "--ignore-not-found")
    if not answer.strip():
        return None
    status: Mapping[str, Any] = json.loads(answer).get("status") or {}
    words = [status.get("jobDeploymentStatus") or "New", status.get("reason") or ""]
    return " ".join(word for word in words if word)


def own(name: str, namespace: str, maps: Sequence[Object]) -> None:
    """Makes the ConfigMaps the job's own, so that they are deleted with it."""
    job = json.loads(call("get", "rayjob", name, "-n", namespace, "-o", "json"))
    owner = {"apiVersion": job["apiVersion"], "kind": "RayJob", "name": name, "uid": job["metadata"]["uid"]}
    for one in maps:
        patch = json.dumps({"metadata": {"ownerReferences": [owner]}})
        call("patch", "configmap", one["metadata"]["name"], "-n", namespace, "--type=merge", "-p", patch)


def call(*words: str, given: Sequence[Object] = ()) -> str:
    """What kubectl prints; `ConfigError` with its message where it fails. An object that exists is no failure."""
    text = dump(given) if given else None
    done = subprocess.run([kubectl(), *words], input=text, capture_output=True, text=True, check=False)
    if done.returncode and "AlreadyExists" not in done.stderr:
        raise ConfigError(f"kubectl {words[0]}: {done.stderr.strip()}")
    return done.stdout or done.stderr
