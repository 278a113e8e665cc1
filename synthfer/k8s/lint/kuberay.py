"""What KubeRay 1.7 refuses in its controller alone: the API server takes it, and the job then ends ValidationFailed."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from synthfer.k8s.lint.case import Case, Finding, Rule
from synthfer.k8s.objects import ray_container, walk

MAX_JOB_NAME = 47
_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
TOKEN_SINCE = (2, 52)


def names(case: Case) -> Iterator[Finding]:
    """Names that become parts of longer ones."""
    name = case.job["metadata"]["name"]
    if len(name) > MAX_JOB_NAME or not _DNS_LABEL.fullmatch(name):
        what = f"{name!r} must be at most {MAX_JOB_NAME} small letters, digits and dashes and begin with a letter"
        yield case.finding("metadata.name", what)
    seen: set[str] = set()
    for i, group in enumerate(case.groups):
        where, name = f"workerGroupSpecs[{i}].groupName", group.get("groupName", "")
        if not _DNS_LABEL.fullmatch(name):
            yield case.finding(where, f"{name!r} is no DNS label")
        if name in seen:
            yield case.finding(where, f"{name!r} stands there twice: give each group a name of its own")
        seen.add(name)


def ending(case: Case) -> Iterator[Finding]:
    """How the cluster goes: by `shutdownAfterJobFinishes` or by rules, never both."""
    spec = case.spec
    shutdown, rules = bool(spec.get("shutdownAfterJobFinishes")), deletion_rules(case)
    if shutdown and rules:
        yield case.finding(
            "spec.deletionStrategy",
            "deletionRules and shutdownAfterJobFinishes exclude each other: take k8s/cleanup without Kueue, "
            "k8s/queues/job with it",
        )
    for field in ("ttlSecondsAfterFinished", "suspend"):
        if spec.get(field) and not shutdown:
            yield case.finding(f"spec.{field}", "needs shutdownAfterJobFinishes: true")
    if case.autoscaling and any(rule["policy"] == "DeleteWorkers" for rule in rules):
        yield case.finding("spec.deletionStrategy", "DeleteWorkers cannot be had with autoscaling: take DeleteCluster")
    yield from _order(case, rules)


def deletion_rules(case: Case) -> list[Mapping[str, Any]]:
    """The deletion rules of a job."""
    return list((case.spec.get("deletionStrategy") or {}).get("deletionRules") or ())


def _order(case: Case, rules: list[Mapping[str, Any]]) -> Iterator[Finding]:
    """For each condition workers go before the cluster and the cluster before the job, each once."""
    last: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for rule in rules:
        if rule["policy"] not in _ORDER:
            continue
        for key in ("jobStatus", "jobDeploymentStatus"):
            if state := rule["condition"].get(key):
                step = (_ORDER.index(rule["policy"]), rule["condition"].get("ttlSeconds", 0))
                last.setdefault((key, state), []).append(step)
    for (key, state), steps in last.items():
        places = [place for place, _ in steps]
        if len(places) != len(set(places)):
            yield case.finding("spec.deletionStrategy", f"two rules of one policy for {key}={state}: leave one")
        waits = [seconds for _, seconds in sorted(steps)]
        if waits != sorted(waits):
            yield case.finding(
                "spec.deletionStrategy", f"for {key}={state} ttlSeconds must grow from workers over cluster to job"
            )


def submission(case: Case) -> Iterator[Finding]:
    """What goes with a mode of submission, and with a cluster that is there already."""
    mode = case.spec.get("submissionMode", "K8sJobMode")
    if mode not in _MODES:
        yield case.finding("spec.submissionMode", f"{mode!r} is none of {', '.join(_MODES)}")
    if mode == "SidecarMode":
        for field in ("submitterPodTemplate", "submitterConfig"):
            if field in case.spec:
                yield case.finding(f"spec.{field}", "cannot be had with SidecarMode: take K8sJobMode")
    if case.spec.get("clusterSelector"):
        for field in ("backoffLimit", "deletionStrategy"):
            if case.spec.get(field):
                yield case.finding(f"spec.{field}", "cannot be had with clusterSelector")
    try:
        environment = yaml.safe_load(case.spec.get("runtimeEnvYAML") or "")
    except yaml.YAMLError as error:
        environment = {}
        yield case.finding("spec.runtimeEnvYAML", f"is no YAML: {str(error).splitlines()[0]}")
    if not isinstance(environment, (dict, type(None))):
        yield case.finding("spec.runtimeEnvYAML", "must be a mapping")


def autoscaler(case: Case) -> Iterator[Finding]:
    """Version 2 of the autoscaler, and what only it knows."""
    v2 = case.autoscaling and (case.cluster.get("autoscalerOptions") or {}).get("version") == "v2"
    for i, group in enumerate(case.groups):
        where = f"workerGroupSpecs[{i}]"
        for field in ("idleTimeoutSeconds", "priority"):
            if field in group and not v2:
                yield case.finding(
                    f"{where}.{field}", "needs enableInTreeAutoscaling and autoscalerOptions.version: v2"
                )
        if v2 and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            yield case.finding(f"{where}.template.spec.restartPolicy", "must be Never or left out with autoscaler v2")
    if v2 and case.head.get("restartPolicy", "Never") != "Never":
        yield case.finding("headGroupSpec.template.spec.restartPolicy", "must be Never or left out with autoscaler v2")


def sizes(case: Case) -> Iterator[Finding]:
    """Counts of workers, and one place only for what Ray is told of them."""
    for i, group in enumerate(case.groups):
        where = f"workerGroupSpecs[{i}]"
        least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if not least <= group.get("replicas", least) <= most:
            yield case.finding(f"{where}.replicas", f"must lie between minReplicas {least} and maxReplicas {most}")
        yield from _told_twice(case, group, where)
    yield from _told_twice(case, case.cluster["headGroupSpec"], "headGroupSpec")


def _told_twice(case: Case, group: Mapping[str, Any], where: str) -> Iterator[Finding]:
    params = group.get("rayStartParams") or {}
    if "labels" in params:
        yield case.finding(f"{where}.rayStartParams.labels", "is refused: write the group's own `labels`")
    if group.get("resources"):
        for key in sorted(params.keys() & {"num-cpus", "num-gpus", "memory", "resources"}):
            yield case.finding(f"{where}.rayStartParams.{key}", "excludes the group's `resources`: leave one of them")


def authentication(case: Case) -> Iterator[Finding]:
    """Tokens need a Ray that knows them, and KubeRay believes only what is written out."""
    if (case.cluster.get("authOptions") or {}).get("mode") == "token":
        version = str(case.cluster.get("rayVersion", ""))
        if not re.match(r"\d+\.\d+", version) or tuple(map(int, version.split(".")[:2])) < TOKEN_SINCE:
            yield case.finding(
                "rayClusterSpec.rayVersion", f"{version or 'unset'}: token needs 2.52 or newer, written out"
            )


def redis(case: Case) -> Iterator[Finding]:
    """Redis for the head's state is configured in one place."""
    if case.cluster.get("gcsFaultToleranceOptions"):
        for path, value in walk(ray_container(case.head).get("env", [])):
            if value in ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD"):
                yield case.finding(f"headGroupSpec env{path}", f"{value} excludes gcsFaultToleranceOptions")


RULES: tuple[Rule, ...] = (names, ending, submission, autoscaler, sizes, authentication, redis)
