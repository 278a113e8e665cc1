"""Which pods Ray's own autoscaler would start for a rendered RayJob: its parser, its scheduler, and no process.

What a job asks for is taken from its config, as the options by which the engine starts its workers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.schema import AutoscalerInstance
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import (
    BundleSelector,
    ClusterResourceConstraint,
    GangResourceRequest,
    NodeState,
    ResourceRequest,
    ResourceRequestByCount,
)
from ray.core.generated.common_pb2 import LabelSelectorOperator
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent, NodeKind

from synthfer.label_selectors import parse_value

HEAD = "headgroup"


@dataclass(frozen=True)
class Scaling:
    """What the autoscaler would do: pods to start by worker group, and how many demands no group can meet."""

    launched: Mapping[str, int] = field(default_factory=dict)
    refused: int = 0


def demand(options: Mapping[str, Any]) -> ResourceRequest:
    """What an actor or task with these options of Ray asks the autoscaler for while it has no node."""
    wanted = {"CPU": options.get("num_cpus", 1), "GPU": options.get("num_gpus", 0)}
    if kind := options.get("accelerator_type"):
        wanted[f"accelerator_type:{kind}"] = 0.001
    others = [other["label_selector"] for other in options.get("fallback_strategy", ())]
    selectors = [options["label_selector"], *others] if "label_selector" in options else []
    return _request({kind: amount for kind, amount in wanted.items() if amount}, selectors)


def gang(resources: Mapping[str, float], selector: Mapping[str, str] | None, workers: int) -> GangResourceRequest:
    """What the placement group of so many workers of a training job asks for."""
    requests = [_request(resources, [selector] if selector else [])] * workers
    return GangResourceRequest(requests=requests, bundle_selectors=[BundleSelector(resource_requests=requests)])


def _request(resources: Mapping[str, float], selectors: Sequence[Mapping[str, str]]) -> ResourceRequest:
    return ResourceRequestUtil.make(dict(resources), label_selectors=[_constraints(one) for one in selectors])


def _constraints(selector: Mapping[str, str]) -> list[tuple[str, int, list[str]]]:
    read = {key: parse_value(value) for key, value in selector.items()}
    kinds = LabelSelectorOperator.LABEL_OPERATOR_NOT_IN, LabelSelectorOperator.LABEL_OPERATOR_IN
    return [(key, kinds[positive], values) for key, (positive, values) in read.items()]


def scaling(
    job: Mapping[str, Any],
    demands: Sequence[ResourceRequest] = (),
    gangs: Sequence[GangResourceRequest] = (),
    *,
    constraints: Sequence[Mapping[str, float]] = (),
    failed: Sequence[str] = (),
    full: Mapping[str, int] | None = None,
) -> Scaling:
    """What the autoscaler would do for a RayJob whose head runs.

    `constraints`: resources that `ray.autoscaler.sdk.request_resources` asks for. `failed`: groups of which a pod could
    not be started a moment ago. `full`: pods by group that run and have nothing free.
    """
    cluster = {"metadata": {"name": "job", "namespace": "synthfer"}, "spec": job["spec"]["rayClusterSpec"]}
    config = AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(cluster), skip_content_hash=True)
    monitor = CloudResourceMonitor()
    monitor.notify(
        [InstanceUpdateEvent(new_instance_status=Instance.ALLOCATION_TIMEOUT, instance_type=one) for one in failed]
    )
    running = [HEAD, *(name for name, number in (full or {}).items() for _ in range(number))]
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=config.disable_launch_config_check(),
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            idle_timeout_s=config.get_idle_timeout_s(),
            resource_requests=[ResourceRequestByCount(request=one, count=1) for one in demands],
            gang_resource_requests=list(gangs),
            cluster_resource_constraints=_constraint(constraints),
            current_instances=[_running(name, number, config) for number, name in enumerate(running)],
            cloud_resource_availabilities=monitor.get_resource_availabilities(),
            recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities(),
        )
    )
    assert not reply.to_terminate
    refused = [
        *reply.infeasible_resource_requests,
        *reply.infeasible_gang_resource_requests,
        *reply.infeasible_cluster_resource_constraints,
    ]
    return Scaling({one.instance_type: one.count for one in reply.to_launch}, len(refused))


def _constraint(resources: Sequence[Mapping[str, float]]) -> list[ClusterResourceConstraint]:
    requests = [ResourceRequestByCount(request=_request(one, []), count=1) for one in resources]
    return [ClusterResourceConstraint(resource_requests=requests)] if requests else []


def _running(group: str, number: int, config: AutoscalingConfig) -> AutoscalerInstance:
    """A pod that runs Ray and whose resources are all taken."""
    kind, name = config.get_node_type_configs()[group], f"{group}-{number}"
    instance = Instance(
        instance_id=name, cloud_instance_id=name, node_id=name, instance_type=group, status=Instance.RAY_RUNNING,
        node_kind=NodeKind.HEAD if group == HEAD else NodeKind.WORKER,
    )  # fmt: skip
    state = NodeState(
        node_id=name.encode(), ray_node_type_name=group, total_resources=kind.resources, labels=kind.labels,
        available_resources=dict.fromkeys(kind.resources, 0.0),
    )  # fmt: skip
    return AutoscalerInstance(im_instance=instance, ray_node=state, cloud_instance_id=name)
