"""Whether the job's own keys and its worker groups fit: labels, GPUs, numbers, and groups of a fixed size."""

from collections.abc import Iterator, Mapping
from typing import Any

from synthfer.k8s.lint.context import Finding, LintContext, Rule
from synthfer.k8s.objects import of_kind, quantity, ray_container
from synthfer.label_selectors import matches, parse_value

POOL = "synthfer.io/pool"
GPU = "nvidia.com/gpu"


def pools(context: LintContext) -> Iterator[Finding]:
    """A group's labels say what its nodes are, and only GPU groups are let onto GPU nodes."""
    for i, group in enumerate(context.groups):
        where, spec = f"workerGroupSpecs[{i}]", group["template"]["spec"]
        label, node = (group.get("labels") or {}).get(POOL), (spec.get("nodeSelector") or {}).get(POOL)
        if not label or label != node:
            what = f"label {POOL}={label} and nodeSelector {POOL}={node}: write the same in both"
            yield context.finding(where, what)
        tolerates = any(one.get("key") in (GPU, None) for one in spec.get("tolerations", ()))
        if gpus_of(group) and not tolerates:
            yield context.finding(f"{where}.template.spec.tolerations", f"must tolerate {GPU}: GPU nodes are tainted")
        if not gpus_of(group) and tolerates:
            yield context.finding(f"{where}.template.spec.tolerations", f"a group without GPUs may not tolerate {GPU}")
        yield from _devices(context, group, where)


def _devices(context: LintContext, group: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """KubeRay counts any resource that ends in gpu; Ray's autoscaler wants a number where the name is another."""
    limits = ray_container(group["template"]["spec"]).get("resources", {}).get("limits", {})
    for key in limits:
        if key.startswith("nvidia.com/mig-") and "GPU" not in (group.get("resources") or {}):
            what = f'{key}: the autoscaler does not see a GPU in it, write `resources: {{GPU: "1"}}` in the group'
            yield context.finding(f"{where}.resources", what)
    if context.autoscaling and gpus_of(group) and (group.get("replicas") or group.get("minReplicas")):
        yield context.finding(f"{where}.replicas", "GPU nodes would be held before there is work: write 0")


def demand(context: LintContext) -> Iterator[Finding]:
    """What the job's workers ask for exists: labels that a group has, and no more GPUs than its groups may have."""
    engine = context.config.get("engine") or {}
    nodes = engine.get("nodes") or []
    for selector in nodes:
        if not _matching(context, selector):
            labels = ", ".join(f"{key}={value}" for key, value in selector.items())
            yield context.finding(
                "engine.nodes", f"no worker group has the labels {labels}: workers would wait forever"
            )
        for name in _unknown(context, selector):
            yield context.finding(
                "engine.nodes", f"no worker group has the label {name}: list its pool, or leave it out"
            )
    if not nodes:
        what = "is not set: without it CPU work may start GPU nodes, and GPU work the most expensive ones"
        yield context.finding("engine.nodes", what)
        return
    most, each = engine.get("max_workers"), engine.get("gpus_per_worker")
    if each is None and context.autoscaling and any(gpus_of(group) for group in context.groups):
        yield context.finding("engine.gpus_per_worker", "must be set: the cluster has no GPU yet when the job starts")
    available = sum(gpus_of(group) * group["maxReplicas"] for group in _any_of(context, nodes))
    if most and each and most * each > available:
        what = f"{most} workers of {each:g} GPUs are more than the {available:g} GPUs that their pools may have"
        yield context.finding("engine.max_workers", what)
    quota = [one["spec"]["hard"].get(f"requests.{GPU}") for one in of_kind(context.place, "ResourceQuota")]
    needed = sum(gpus_of(group) * group["maxReplicas"] for group in context.groups)
    for limit in quota:
        if limit is not None and needed > quantity(limit):
            yield context.finding("workerGroupSpecs", f"may ask for {needed:g} GPUs, the ResourceQuota allows {limit}")


def fixed_size(context: LintContext) -> Iterator[Finding]:
    """Without autoscaling all workers start together, and their number is exactly what the job uses."""
    if context.autoscaling:
        return
    for i, group in enumerate(context.groups):
        if len({group.get(key) for key in ("replicas", "minReplicas", "maxReplicas")}) != 1:
            yield context.finding(
                f"workerGroupSpecs[{i}]",
                "without autoscaling a group has one size: replicas, minReplicas, maxReplicas",
            )
    engine = context.config.get("engine") or {}
    workers, each = engine.get("workers"), engine.get("gpus_per_worker")
    available = sum(gpus_of(group) * group.get("replicas", 0) for group in _any_of(context, engine.get("nodes") or []))
    if workers and each and workers * each != available:
        what = f"{workers} workers of {each:g} GPUs are {workers * each:g} GPUs, the groups have {available:g}"
        yield context.finding("engine.workers", what)


def gpus_of(group: Mapping[str, Any]) -> int:
    """GPUs of one pod of a group."""
    limits = ray_container(group["template"]["spec"]).get("resources", {}).get("limits", {})
    return int(sum(quantity(amount) for key, amount in limits.items() if key.endswith("gpu") or ".com/mig-" in key))


def _unknown(context: LintContext, selector: Mapping[str, str]) -> Iterator[str]:
    """Labels in a list of several that no group has."""
    for key, wanted in selector.items():
        existing = {(group.get("labels") or {}).get(key) for group in context.groups}
        positive, values = parse_value(wanted)
        if positive and len(values) > 1:
            yield from (f"{key}={value}" for value in values if value not in existing)


def _matching(context: LintContext, selector: Mapping[str, str]) -> list[dict[str, Any]]:
    """The groups that a selector chooses."""
    return [group for group in context.groups if matches(group.get("labels") or {}, selector)]


def _any_of(context: LintContext, nodes: list[Mapping[str, str]]) -> list[dict[str, Any]]:
    return [group for group in context.groups if any(group in _matching(context, selector) for selector in nodes)]


RULES: tuple[Rule, ...] = (pools, demand, fixed_size)
