"""What only KubeRay 1.7's controller refuses: the API server accepts it, and the job then ends ValidationFailed."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from synthfer.documents import DocumentError, read_yaml
from synthfer.k8s.lint.context import Finding, LintContext, Rule
from synthfer.k8s.objects import ray_container, walk

MAX_JOB_NAME = 47
_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_ORDER = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
TOKEN_SINCE = (2, 52)


def names(context: LintContext) -> Iterator[Finding]:
    """Names that become parts of longer ones."""
    name = context.job["metadata"]["name"]
    if len(name) > MAX_JOB_NAME or not _DNS_LABEL.fullmatch(name):
        what = f"{name!r} must be at most {MAX_JOB_NAME} small letters, digits and dashes and begin with a letter"
        yield context.finding("metadata.name", what)
    earlier: set[str] = set()
    for i, group in enumerate(context.groups):
        where, name = f"workerGroupSpecs[{i}].groupName", group.get("groupName", "")
        if not _DNS_LABEL.fullmatch(name):
            yield context.finding(where, f"{name!r} is not a DNS label: small letters, digits and dashes")
        if name in earlier:
            yield context.finding(where, f"{name!r} is the name of two groups: give each a name of its own")
        earlier.add(name)


def ending(context: LintContext) -> Iterator[Finding]:
    """How the cluster is deleted: by `shutdownAfterJobFinishes` or by rules, never both."""
    spec = context.spec
    shutdown, rules = bool(spec.get("shutdownAfterJobFinishes")), deletion_rules(context)
    if shutdown and rules:
        yield context.finding(
            "spec.deletionStrategy",
            "deletionRules and shutdownAfterJobFinishes exclude each other: take k8s/cleanup without Kueue, "
            "k8s/queues/job with it",
        )
    for field in ("ttlSecondsAfterFinished", "suspend"):
        if spec.get(field) and not shutdown:
            yield context.finding(f"spec.{field}", "needs shutdownAfterJobFinishes: true")
    if context.autoscaling and any(rule["policy"] == "DeleteWorkers" for rule in rules):
        yield context.finding(
            "spec.deletionStrategy", "DeleteWorkers does not work with autoscaling: use DeleteCluster"
        )
    yield from _order(context, rules)


def deletion_rules(context: LintContext) -> list[Mapping[str, Any]]:
    """The deletion rules of a job."""
    return list((context.spec.get("deletionStrategy") or {}).get("deletionRules") or ())


def _order(context: LintContext, rules: list[Mapping[str, Any]]) -> Iterator[Finding]:
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
        stages = [stage for stage, _ in steps]
        if len(stages) != len(set(stages)):
            yield context.finding("spec.deletionStrategy", f"two rules of one policy for {key}={state}: leave one")
        waits = [seconds for _, seconds in sorted(steps)]
        if waits != sorted(waits):
            yield context.finding(
                "spec.deletionStrategy", f"for {key}={state} ttlSeconds must grow from workers over cluster to job"
            )


def submission(context: LintContext) -> Iterator[Finding]:
    """What goes with a mode of submission, and with a cluster that is there already."""
    mode = context.spec.get("submissionMode", "K8sJobMode")
    if mode not in _MODES:
        yield context.finding("spec.submissionMode", f"{mode!r} is not a mode; there are {', '.join(_MODES)}")
    if mode == "SidecarMode":
        for field in ("submitterPodTemplate", "submitterConfig"):
            if field in context.spec:
                yield context.finding(f"spec.{field}", "does not work with SidecarMode: use K8sJobMode")
    if context.spec.get("clusterSelector"):
        for field in ("backoffLimit", "deletionStrategy"):
            if context.spec.get(field):
                yield context.finding(f"spec.{field}", "does not work with clusterSelector: remove one of them")
    try:
        environment = read_yaml(str(context.spec.get("runtimeEnvYAML") or ""), "it")
    except DocumentError as error:
        environment = {}
        yield context.finding("spec.runtimeEnvYAML", f"is not YAML: {error}")
    if not isinstance(environment, (dict, type(None))):
        yield context.finding("spec.runtimeEnvYAML", "must be a mapping")


def autoscaler(context: LintContext) -> Iterator[Finding]:
    """Version 2 of the autoscaler, and the fields that only it supports."""
    v2 = context.autoscaling and (context.cluster.get("autoscalerOptions") or {}).get("version") == "v2"
    for i, group in enumerate(context.groups):
        where = f"workerGroupSpecs[{i}]"
        for field in ("idleTimeoutSeconds", "priority"):
            if field in group and not v2:
                yield context.finding(
                    f"{where}.{field}", "needs enableInTreeAutoscaling and autoscalerOptions.version: v2"
                )
        if v2 and group["template"]["spec"].get("restartPolicy", "Never") != "Never":
            yield context.finding(
                f"{where}.template.spec.restartPolicy", "must be Never or left out with autoscaler v2"
            )
    if v2 and context.head.get("restartPolicy", "Never") != "Never":
        yield context.finding(
            "headGroupSpec.template.spec.restartPolicy", "must be Never or left out with autoscaler v2"
        )


def sizes(context: LintContext) -> Iterator[Finding]:
    """Counts of workers, and their sizes, which may be written in one place only."""
    for i, group in enumerate(context.groups):
        where = f"workerGroupSpecs[{i}]"
        least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if not least <= group.get("replicas", least) <= most:
            yield context.finding(f"{where}.replicas", f"must lie between minReplicas {least} and maxReplicas {most}")
        yield from _written_twice(context, group, where)
    yield from _written_twice(context, context.cluster["headGroupSpec"], "headGroupSpec")


def _written_twice(context: LintContext, group: Mapping[str, Any], where: str) -> Iterator[Finding]:
    params = group.get("rayStartParams") or {}
    if "labels" in params:
        yield context.finding(f"{where}.rayStartParams.labels", "is refused by KubeRay: use the group's own `labels`")
    if group.get("resources"):
        for key in sorted(params.keys() & {"num-cpus", "num-gpus", "memory", "resources"}):
            yield context.finding(
                f"{where}.rayStartParams.{key}", "excludes the group's `resources`: leave one of them"
            )


def authentication(context: LintContext) -> Iterator[Finding]:
    """Tokens need a Ray version that supports them, written out in the manifest for KubeRay to read."""
    if (context.cluster.get("authOptions") or {}).get("mode") == "token":
        version = str(context.cluster.get("rayVersion", ""))
        if not re.match(r"\d+\.\d+", version) or tuple(map(int, version.split(".")[:2])) < TOKEN_SINCE:
            yield context.finding(
                "rayClusterSpec.rayVersion", f"{version or 'unset'}: token needs 2.52 or newer, written out"
            )


def redis(context: LintContext) -> Iterator[Finding]:
    """Redis for the head's state is configured in one place."""
    if context.cluster.get("gcsFaultToleranceOptions"):
        for path, value in walk(ray_container(context.head).get("env", [])):
            if value in ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD"):
                yield context.finding(f"headGroupSpec env{path}", f"{value} excludes gcsFaultToleranceOptions")


RULES: tuple[Rule, ...] = (names, ending, submission, autoscaler, sizes, authentication, redis)
