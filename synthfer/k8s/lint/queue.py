"""Whether Kueue would accept the job and ever admit it: the rules of its webhook, flavors, and quota at full scale.

Follows Kueue 0.19: a job is a set of pod sets (head, submitter, one for each group), each goes to the first flavor
whose taints it tolerates and whose labels its node selector allows, and its requests must fit the quota there.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from synthfer.k8s.lint.context import Finding, LintContext, Rule
from synthfer.k8s.lint.security import name_of
from synthfer.k8s.objects import Object, of_kind, quantity
from synthfer.k8s.pods import RayPod

QUEUE, ELASTIC = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/elastic-job"
MAX_POD_SETS = 18

Amounts = dict[str, Decimal]


def queued(context: LintContext) -> bool:
    """Whether the job goes through a queue of Kueue."""
    return QUEUE in context.job["metadata"].get("labels", {})


def webhook(context: LintContext) -> Iterator[Finding]:
    """What Kueue's webhook refuses, and what makes it count wrongly."""
    if not queued(context):
        return
    if not context.spec.get("shutdownAfterJobFinishes"):
        yield context.finding("spec.shutdownAfterJobFinishes", "must be true for a job in a queue (k8s/queues/job)")
    if context.spec.get("clusterSelector"):
        yield context.finding(
            "spec.clusterSelector", "Kueue does not manage such a job, so that it escapes the quota: remove it"
        )
    elastic = context.job["metadata"].get("annotations", {}).get(ELASTIC) == "true"
    if context.autoscaling and not elastic:
        yield context.finding(
            "metadata.annotations", f'autoscaling in a queue needs {ELASTIC}: "true" (k8s/queues/elastic)'
        )
    if len(context.groups) + 2 > MAX_POD_SETS:
        yield context.finding(
            "workerGroupSpecs", f"at most {MAX_POD_SETS - 2} groups: Kueue takes {MAX_POD_SETS} pod sets"
        )
    for i, group in enumerate(context.groups):
        if group.get("groupName") == "head":
            yield context.finding(
                f"workerGroupSpecs[{i}].groupName", "Kueue uses this name for the head: choose another"
            )
        if "replicas" not in group:
            yield context.finding(f"workerGroupSpecs[{i}].replicas", "Kueue counts 1 where it is missing: write 0")


def admission(context: LintContext) -> Iterator[Finding]:
    """Each pod set finds a flavor, the head one without GPUs, and all of them at full scale fit the quota."""
    queue = cluster_queue(context) if queued(context) else None
    if queue is None:
        return
    flavors = {one["metadata"]["name"]: one for one in of_kind(context.place, "ResourceFlavor")}
    needed: dict[str, Amounts] = defaultdict(lambda: defaultdict(Decimal))
    for pod in context.pods:
        flavor, why = flavor_of(pod, queue, flavors)
        if flavor is None:
            yield context.finding(
                name_of(pod), f"no flavor of ClusterQueue {queue['metadata']['name']} takes it: {why}"
            )
            continue
        for resource, amount in requests(pod.manifest["spec"]).items():
            needed[flavor][resource] += amount * pod.max_replicas
    for flavor, amounts in needed.items():
        quota = quota_of(queue, flavor)
        for resource, amount in amounts.items():
            if amount > quota.get(resource, 0):
                has = f"{quota[resource]:f}" if resource in quota else "none"
                what = f"at full scale it needs {amount:f} {resource} of flavor {flavor}, the quota has {has}"
                yield context.finding("spec", f"{what}: Kueue would never admit all of it")


def cluster_queue(context: LintContext) -> Object | None:
    """The ClusterQueue behind the job's LocalQueue, if the place has it."""
    wanted = context.job["metadata"]["labels"][QUEUE]
    for local in of_kind(context.place, "LocalQueue"):
        if local["metadata"]["name"] == wanted:
            target = local["spec"]["clusterQueue"]
            return next((q for q in of_kind(context.place, "ClusterQueue") if q["metadata"]["name"] == target), None)
    return None


def flavor_of(pod: RayPod, queue: Object, flavors: Mapping[str, Object]) -> tuple[str | None, str]:
    """The flavor that a pod set is charged to, or None and the reason."""
    spec, needed = pod.manifest["spec"], requests(pod.manifest["spec"])
    reasons = []
    for group in queue["spec"].get("resourceGroups", ()):
        if missing := needed.keys() - set(group["coveredResources"]):
            reasons.append(f"the queue does not cover {', '.join(sorted(missing))}")
            continue
        keys = {key for one in group["flavors"] for key in _labels(flavors.get(one["name"], {}))}
        for quota in group["flavors"]:
            flavor = flavors.get(quota["name"], {})
            if why := _refused(spec, needed, flavor, keys, quota):
                reasons.append(f"{quota['name']}: {why}")
            else:
                return str(quota["name"]), ""
    return None, "; ".join(reasons) or "it has no resource groups"


def _labels(flavor: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = flavor.get("spec", {}).get("nodeLabels") or {}
    return labels


def _refused(
    spec: Mapping[str, Any], needed: Amounts, flavor: Mapping[str, Any], keys: set[str], quota: Mapping[str, Any]
) -> str:
    """Why a flavor does not take a pod; empty if it does."""
    tolerations = [*spec.get("tolerations", ()), *flavor.get("spec", {}).get("tolerations", ())]
    for taint in flavor.get("spec", {}).get("nodeTaints", ()):
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(one, taint) for one in tolerations):
            return f"taint {taint['key']} is not tolerated"
    for key, value in (spec.get("nodeSelector") or {}).items():
        if key in keys and _labels(flavor).get(key) != value:
            return f"{key} is {_labels(flavor).get(key)}, the pod wants {value}"
    amounts = {one["name"]: quantity(one["nominalQuota"]) for one in quota["resources"]}
    for resource, amount in needed.items():
        if amount > amounts.get(resource, 0):
            return f"one pod needs {amount:f} {resource}, the quota has {amounts.get(resource, 0):f}"
    return ""


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", "")


def quota_of(queue: Object, flavor: str) -> Amounts:
    """How much of a flavor the queue may use, without what it may borrow."""
    quotas = (one for group in queue["spec"]["resourceGroups"] for one in group["flavors"])
    resources = next(one["resources"] for one in quotas if one["name"] == flavor)
    return {one["name"]: quantity(one["nominalQuota"]) for one in resources}


def requests(spec: Mapping[str, Any]) -> Amounts:
    """What the scheduler keeps free for a pod: the sum of its containers, or its largest init container."""
    total: Amounts = defaultdict(Decimal)
    for container in spec.get("containers", ()):
        for resource, amount in _requested(container).items():
            total[resource] += amount
    for container in spec.get("initContainers", ()):
        for resource, amount in _requested(container).items():
            total[resource] = max(total[resource], amount)
    return dict(total)


def _requested(container: Mapping[str, Any]) -> Amounts:
    resources = container.get("resources") or {}
    both = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {resource: quantity(amount) for resource, amount in both.items()}


RULES: tuple[Rule, ...] = (webhook, admission)
