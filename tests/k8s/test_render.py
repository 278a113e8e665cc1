"""Every overlay renders, says what the code can read, and names its jobs by their content."""

import re
from importlib.metadata import version

import pytest
import yaml

from synthfer.config import load
from synthfer.engine.evaluate import EvaluateJob
from synthfer.engine.generate import GenerateConfig
from synthfer.engine.ingest import IngestConfig
from synthfer.engine.train import TrainJob
from synthfer.k8s.objects import job_config, of_kind, render
from tests.k8s.overlays import JOBS, K8S, OVERLAYS, copied, job_of, rendered
from tests.ray_sessions import ROOT

SCHEMAS = {"generate": GenerateConfig, "train": TrainJob, "evaluate": EvaluateJob, "ingest": IngestConfig}


def test_there_are_four_jobs_in_each_of_three_places():
    assert OVERLAYS == ["dev", "local", "production"]
    assert [f"{overlay}/{job}" for overlay in OVERLAYS for job in sorted(SCHEMAS)] == JOBS


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_locked_and_holds_no_job(overlay):
    objects = rendered(overlay)
    (namespace,) = of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert not of_kind(objects, "RayJob")
    kinds = {one["kind"] for one in objects}
    assert kinds >= {"NetworkPolicy", "Role", "ServiceAccount", "ResourceQuota", "PodDisruptionBudget", "PriorityClass"}
    wide = {"Namespace", "PriorityClass", "ResourceFlavor", "ClusterQueue", "WorkloadPriorityClass"}
    wide |= {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    for one in objects:
        assert one["metadata"].get("namespace") == (None if one["kind"] in wide else "synthfer"), one["kind"]


@pytest.mark.parametrize("job", JOBS)
def test_a_job_runs_a_script_that_is_there_with_keys_that_it_knows(job):
    objects, name = rendered(job), job.partition("/")[2]
    script = re.search(r"/opt/synthfer/(\S+)", job_of(job)["spec"]["entrypoint"])[1]
    assert (ROOT / script).name == f"{name}.py" and (ROOT / script).is_file()
    (config,) = [one for one in of_kind(objects, "ConfigMap") if "job.yaml" in one["data"]]
    assert config["metadata"]["name"].startswith(f"{name}-")
    keys = job_config(job_of(job), objects)
    file = K8S / "overlays" / job / "job.yaml"
    assert keys == yaml.safe_load(file.read_text())
    assert load(SCHEMAS[name], files=[file]).out == keys["out"]


def test_a_key_that_the_code_does_not_know_is_found(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text((K8S / "overlays/dev/generate/job.yaml").read_text().replace("max_workers", "max_wrokers"))
    with pytest.raises(ValueError, match="max_wrokers"):
        load(GenerateConfig, files=[file])


def test_a_job_is_named_by_what_it_makes_and_not_by_how(tmp_path):
    folder = copied(tmp_path) / "overlays/dev/generate"

    def name() -> str:
        (job,) = [one for one in render(folder) if one["kind"] == "RayJob"]
        mounted = {one.get("configMap", {}).get("name") for one in _head(job)["volumes"]}
        assert job["metadata"]["name"] in mounted
        return job["metadata"]["name"]

    first = name()
    assert first == job_of("dev/generate")["metadata"]["name"]
    pool = tmp_path / "k8s/pools/cpu/group.yaml"
    pool.write_text(pool.read_text().replace("maxReplicas: 8", "maxReplicas: 9"))
    assert name() == first
    config = folder / "job.yaml"
    config.write_text(config.read_text().replace("total: 7000", "total: 7007"))
    assert name() != first
    assert len(name()) <= 47


def _head(job):
    return job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]


def test_every_worker_is_what_the_template_says():
    """Pools only say how many, where and how large; the rest is copied from one place."""
    template = yaml.safe_load((K8S / "jobs/common/worker.yaml").read_text())["template"]
    for group in job_of("production/generate")["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        spec, container = group["template"]["spec"], group["template"]["spec"]["containers"][0]
        wanted = template["spec"]["containers"][0]
        for field in ("serviceAccountName", "securityContext", "terminationGracePeriodSeconds", "priorityClassName"):
            assert spec[field] == template["spec"][field], field
        for field in ("env", "envFrom", "securityContext", "ports"):
            assert container[field] == wanted[field], field
        assert [one["name"] for one in spec["volumes"]] == ["tmp", "models"]


def versions() -> dict[str, str]:
    lines = (K8S / "VERSIONS").read_text().splitlines()
    return dict(line.split("=") for line in lines if line and not line.startswith("#"))


def test_versions_stand_in_one_place_and_others_agree():
    wanted = versions()
    assert version("ray") == wanted["ray"]
    assert {job_of(job)["spec"]["rayClusterSpec"]["rayVersion"] for job in JOBS} == {wanted["ray"]}
    assert f"ray=={wanted['ray']}\n" in (ROOT / "constraints.txt").read_text()
    for operator in ("kuberay", "kueue"):
        values = (K8S / "operators" / f"{operator}-values.yaml").read_text()
        assert wanted[operator] in values, operator
        assert wanted[operator] in (K8S / "README.md").read_text(), operator


@pytest.mark.parametrize("variant", ["weights/image", "weights/pvc", "weights/s3", "credentials/workload-identity"])
def test_components_reach_every_worker(tmp_path, variant):
    """Variants that an overlay may swap in, with two pools."""
    folder = copied(tmp_path) / "overlays/dev/other"
    folder.mkdir()
    before = variant != "weights/s3"
    pools = ["../../../pools/cpu", "../../../pools/h100"]
    components = [f"../../../{variant}", *pools] if before else [*pools, f"../../../{variant}"]
    kustomization = {
        "namespace": "synthfer",
        "resources": ["../../../jobs/generate"],
        "components": [*components, "../../../pools/pods", "../job"],
        "configMapGenerator": [{"name": "generate", "literals": ["SYNTHFER_WEIGHTS=s3://models/one"]}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    (job,) = [one for one in render(folder) if one["kind"] == "RayJob"]
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    volume, path = ("models", "/models") if "weights" in variant else ("identity", "/var/run/secrets/synthfer")
    for group in groups:
        spec = group["template"]["spec"]
        assert volume in {one["name"] for one in spec["volumes"]}
        assert {"name": volume, "mountPath": path, "readOnly": True} in spec["containers"][0]["volumeMounts"]
    if variant == "weights/s3":
        (source,) = [one for one in groups[1]["template"]["spec"]["initContainers"][0]["env"] if "valueFrom" in one]
        assert source["valueFrom"]["configMapKeyRef"]["name"] == job["metadata"]["name"]
