"""Whether the job's own keys and its worker groups fit: labels, GPUs, numbers, and gangs of one size."""

from collections.abc import Iterator, Mapping
from typing import Any

from synthfer.k8s.lint.case import Case, Finding, Rule
from synthfer.k8s.objects import of_kind, quantity, ray_container
from synthfer.label_selectors import fits, values_of

POOL = "synthfer.io/pool"
GPU = "nvidia.com/gpu"


def pools(case: Case) -> Iterator[Finding]:
    """A group's labels say what its nodes are, and only GPU groups are let onto GPU nodes."""
    for i, group in enumerate(case.groups):
        where, spec = f"workerGroupSpecs[{i}]", group["template"]["spec"]
        label, node = (group.get("labels") or {}).get(POOL), (spec.get("nodeSelector") or {}).get(POOL)
        if not label or label != node:
            what = f"label {POOL}={label} and nodeSelector {POOL}={node}: write the same in both"
            yield case.finding(where, what)
        tolerates = any(one.get("key") in (GPU, None) for one in spec.get("tolerations", ()))
        if gpus_of(group) and not tolerates:
            yield case.finding(f"{where}.template.spec.tolerations", f"must tolerate {GPU}: GPU nodes are tainted")
        if not gpus_of(group) and tolerates:
            yield case.finding(f"{where}.template.spec.tolerations", f"a group without GPUs may not tolerate {GPU}")
        yield from _devices(case, group, where)


def _devices(case: Case, group: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """KubeRay counts any resource that ends in gpu; Ray's autoscaler wants a number where the name is another."""
    limits = ray_container(group["template"]["spec"]).get("resources", {}).get("limits", {})
    for key in limits:
        if key.startswith("nvidia.com/mig-") and "GPU" not in (group.get("resources") or {}):
            what = f'{key}: the autoscaler does not see a GPU in it, write `resources: {{GPU: "1"}}` in the group'
            yield case.finding(f"{where}.resources", what)
    if case.autoscaling and gpus_of(group) and (group.get("replicas") or group.get("minReplicas")):
        yield case.finding(f"{where}.replicas", "GPU nodes would be held before there is work: write 0")


def demand(case: Case) -> Iterator[Finding]:
    """What the job's workers ask for can be had: labels that a group has, and no more GPUs than there may be."""
    engine = case.config.get("engine") or {}
    nodes = engine.get("nodes") or []
    for selector in nodes:
        if not _matching(case, selector):
            told = ", ".join(f"{key}={value}" for key, value in selector.items())
            yield case.finding("engine.nodes", f"no worker group has the labels {told}: workers would wait for ever")
        for name in _unknown(case, selector):
            yield case.finding("engine.nodes", f"no worker group has the label {name}: list its pool, or leave it out")
    if not nodes:
        what = "is not set: without it CPU work may start GPU nodes, and GPU work the dearest ones"
        yield case.finding("engine.nodes", what)
        return
    most, each = engine.get("max_workers"), engine.get("gpus_per_worker")
    if each is None and case.autoscaling and any(gpus_of(group) for group in case.groups):
        yield case.finding("engine.gpus_per_worker", "must be set: the cluster has no GPU yet when the job starts")
    there = sum(gpus_of(group) * group["maxReplicas"] for group in _any_of(case, nodes))
    if most and each and most * each > there:
        what = f"{most} workers of {each:g} GPUs are more than the {there:g} GPUs that their pools may have"
        yield case.finding("engine.max_workers", what)
    quota = [one["spec"]["hard"].get(f"requests.{GPU}") for one in of_kind(case.place, "ResourceQuota")]
    asked = sum(gpus_of(group) * group["maxReplicas"] for group in case.groups)
    for limit in quota:
        if limit is not None and asked > quantity(limit):
            yield case.finding("workerGroupSpecs", f"may ask for {asked:g} GPUs, the ResourceQuota allows {limit}")


def gang(case: Case) -> Iterator[Finding]:
    """Without autoscaling the workers are a gang: all there from the start, and exactly those that the job uses."""
    if case.autoscaling:
        return
    for i, group in enumerate(case.groups):
        if len({group.get(key) for key in ("replicas", "minReplicas", "maxReplicas")}) != 1:
            yield case.finding(f"workerGroupSpecs[{i}]", "a gang has one size: replicas, minReplicas, maxReplicas")
    engine = case.config.get("engine") or {}
    workers, each = engine.get("workers"), engine.get("gpus_per_worker")
    there = sum(gpus_of(group) * group.get("replicas", 0) for group in _any_of(case, engine.get("nodes") or []))
    if workers and each and workers * each != there:
        what = f"{workers} workers of {each:g} GPUs are {workers * each:g} GPUs, the gang has {there:g}"
        yield case.finding("engine.workers", what)


def gpus_of(group: Mapping[str, Any]) -> int:
    """GPUs of one pod of a group."""
    limits = ray_container(group["template"]["spec"]).get("resources", {}).get("limits", {})
    return int(sum(quantity(amount) for key, amount in limits.items() if key.endswith("gpu") or ".com/mig-" in key))


def _unknown(case: Case, selector: Mapping[str, str]) -> Iterator[str]:
    """Labels that stand in a list of several and that no group has."""
    for key, wanted in selector.items():
        there = {(group.get("labels") or {}).get(key) for group in case.groups}
        positive, values = values_of(wanted)
        if positive and len(values) > 1:
            yield from (f"{key}={value}" for value in values if value not in there)


def _matching(case: Case, selector: Mapping[str, str]) -> list[dict[str, Any]]:
    """The groups that a selector means."""
    return [group for group in case.groups if fits(group.get("labels") or {}, selector)]


def _any_of(case: Case, nodes: list[Mapping[str, str]]) -> list[dict[str, Any]]:
    return [group for group in case.groups if any(group in _matching(case, selector) for selector in nodes)]


RULES: tuple[Rule, ...] = (pools, demand, gang)
