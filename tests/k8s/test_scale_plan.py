"""Which pool Ray's own autoscaler starts for what our jobs ask for, in every overlay; and what wrong manifests cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from synthfer.config import load
from synthfer.engine.cluster import ClusterResources
from synthfer.engine.evaluate import EvaluateJob
from synthfer.engine.generate import GenerateConfig
from synthfer.engine.ingest import IngestConfig
from synthfer.engine.train import TrainJob
from tests.k8s.overlays import JOBS, job_of, rendered
from tests.k8s.scale_plan import Scaling, demand, gang, scaling

SCHEMAS = {"generate": GenerateConfig, "ingest": IngestConfig, "evaluate": EvaluateJob, "train": TrainJob}
POOLED = [name for name in JOBS if not name.endswith("/train")]
TRAINED = [name for name in JOBS if name.endswith("/train")]


def config_of(name: str, folder: Path) -> Any:
    """The config that the job of an overlay reads from its mounted file."""
    (keys,) = (
        one["data"]["job.yaml"] for one in rendered(name) if one["kind"] == "ConfigMap" and "job.yaml" in one["data"]
    )
    (folder / "job.yaml").write_text(keys)
    return load(SCHEMAS[name.rpartition("/")[2]], files=[folder / "job.yaml"])


def options_of(config: Any) -> dict[str, Any]:
    """Ray's options of one of the job's workers."""
    return dict(config.engine.worker_resources.resolved(ClusterResources()).ray_options)


def asked(*words: str, gpus: float = 1) -> Any:
    """What a worker of generation asks for."""
    config = load(GenerateConfig, ["out=x", f"engine.gpus_per_worker={gpus}", *words])
    return demand(config.engine.worker_resources.ray_options)


def groups_of(job: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {group["groupName"]: group for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]}


def without(job: dict[str, Any], group: str) -> dict[str, Any]:
    """The RayJob without one of its worker groups."""
    cluster = job["spec"]["rayClusterSpec"]
    cluster["workerGroupSpecs"] = [one for one in cluster["workerGroupSpecs"] if one["groupName"] != group]
    return job


@pytest.mark.parametrize("name", POOLED)
def test_every_worker_of_a_job_gets_a_pod_of_a_pool_that_it_names(name, tmp_path):
    job, config = job_of(name), config_of(name, tmp_path)
    workers = config.engine.max_workers or 1
    planned = scaling(job, [demand(options_of(config))] * workers)
    assert planned.launched and not planned.refused
    assert config.engine.nodes and all(
        config.engine.matches(groups_of(job)[pool]["labels"]) for pool in planned.launched
    )
    assert sum(planned.launched.values()) <= workers


@pytest.mark.parametrize("name", POOLED)
def test_a_job_whose_pool_is_not_there_is_told_so(name, tmp_path):
    job, config = job_of(name), config_of(name, tmp_path)
    for pool in scaling(job, [demand(options_of(config))]).launched:
        job = without(job, pool)
    job = without(job, "a100")  # the second choice of one of them
    assert scaling(job, [demand(options_of(config))]) == Scaling({}, refused=1)


PRODUCTION = "production/generate"


def spot_or_not(tmp_path: Path) -> Any:
    return demand(options_of(config_of(PRODUCTION, tmp_path)))


def test_spot_nodes_come_first_and_are_as_many_as_there_are_workers(tmp_path):
    worker = spot_or_not(tmp_path)
    assert scaling(job_of(PRODUCTION), [worker] * 5) == Scaling({"l4-spot": 5})


def test_nodes_on_demand_take_over_where_spot_nodes_cannot_be_had(tmp_path):
    worker = spot_or_not(tmp_path)
    assert scaling(job_of(PRODUCTION), [worker] * 5, failed=["l4-spot"]) == Scaling({"a100": 5})
    assert scaling(job_of(PRODUCTION), [worker] * 5, failed=["a100"]) == Scaling({"l4-spot": 5})
    assert scaling(job_of(PRODUCTION), [worker] * 5, full={"l4-spot": 64}) == Scaling({"a100": 5})


def test_no_pool_grows_beyond_its_limit_and_what_is_left_is_reported(tmp_path):
    worker = spot_or_not(tmp_path)
    assert scaling(job_of(PRODUCTION), [worker] * 100) == Scaling({"l4-spot": 64, "a100": 16}, refused=20)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(["engine.nodes=[{synthfer.io/pool: l4-spot}, {synthfer.io/pool: a100}]"], id="two alternatives"),
        pytest.param(10, id="other CPUs"),
        pytest.param(None, id="no priority"),
    ],
)
def test_what_would_keep_nodes_on_demand_from_taking_over(wrong, tmp_path):
    """The order of alternatives counts for more than failures do, and so does the share of a node that is in use."""
    job, worker = job_of(PRODUCTION), spot_or_not(tmp_path)
    if isinstance(wrong, list):
        worker = asked(*wrong)
    elif wrong:
        for kind in groups_of(job)["a100"]["template"]["spec"]["containers"][0]["resources"].values():
            kind["cpu"] = str(wrong)
    else:
        del groups_of(job)["l4-spot"]["priority"]
        assert scaling(job, [worker]) == Scaling({"a100": 1})  # the expensive one first
        return
    assert scaling(job, [worker] * 5, failed=["l4-spot"]) == Scaling({"l4-spot": 5})


def test_work_for_cpus_starts_no_node_with_a_gpu():
    cpu = asked("engine.nodes=[{synthfer.io/pool: cpu}]", gpus=0)
    assert scaling(job_of(PRODUCTION), [cpu] * 12) == Scaling({"cpu": 2})
    assert scaling(job_of(PRODUCTION), [cpu] * 100) == Scaling({"cpu": 8}, refused=36)
    assert scaling(job_of(PRODUCTION), [cpu], failed=["cpu"]) == Scaling({"cpu": 1})
    assert scaling(without(job_of(PRODUCTION), "cpu"), [cpu]) == Scaling({}, refused=1)


def test_work_for_cpus_that_names_no_nodes_would():
    """Where there is no pool for it, and as soon as that is full."""
    cpu = asked(gpus=0)
    assert scaling(without(job_of(PRODUCTION), "cpu"), [cpu]) == Scaling({"l4-spot": 1})
    assert scaling(job_of(PRODUCTION), [cpu] * 4, full={"cpu": 8}) == Scaling({"l4-spot": 1})


def test_what_ray_data_would_ask_for_starts_any_node():
    """Resources without labels, which is why `synthfer.engine` keeps it from asking."""
    planned = scaling(without(job_of(PRODUCTION), "l4-spot"), constraints=[{"CPU": 1, "GPU": 1}] * 2)
    assert planned == Scaling({"a100": 2})


def test_a_kind_of_gpu_by_rays_own_name_starts_no_node():
    """Ray learns it from a node that runs; labels are known before."""
    assert scaling(job_of(PRODUCTION), [asked("engine.accelerator_type=L4")]) == Scaling({}, refused=1)
    by_label = asked("engine.nodes=[{ray.io/accelerator-type: L4}]")
    assert scaling(job_of(PRODUCTION), [by_label]) == Scaling({"l4-spot": 1})


def gang_of(config: TrainJob, workers: int) -> Any:
    each = config.engine.worker_resources
    return gang(each.bundle, each.placement.get("label_selector"), workers)


@pytest.mark.parametrize("name", TRAINED)
def test_a_worker_group_fits_into_its_fixed_pool_and_a_larger_one_is_reported(name, tmp_path):
    job, config = job_of(name), config_of(name, tmp_path)
    (group,) = groups_of(job).values()
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    assert "enableInTreeAutoscaling" not in job["spec"]["rayClusterSpec"]
    whole = {group["groupName"]: group["replicas"]}
    assert scaling(job, gangs=[gang_of(config, config.engine.workers)]) == Scaling(whole)
    assert scaling(job, gangs=[gang_of(config, 1000)]) == Scaling(whole, refused=1)


@pytest.mark.parametrize("name", TRAINED)
def test_a_gang_on_growing_pools_is_started_whole_or_not_at_all(name, tmp_path):
    """As where somebody trains in a cluster that he keeps."""
    job, config = job_of(name), config_of(name, tmp_path)
    (group,) = groups_of(job).values()
    group["replicas"] = group["minReplicas"] = 0
    whole = {group["groupName"]: group["maxReplicas"]}
    assert scaling(job, gangs=[gang_of(config, config.engine.workers)]) == Scaling(whole)
    assert scaling(job, gangs=[gang_of(config, 1000)]) == Scaling({}, refused=1)
