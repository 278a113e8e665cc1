"""The overlays as kubectl renders them, each once for all tests; and copies of k8s/ to spoil."""

import copy
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from synthfer.k8s.objects import is_kustomization, render
from tests.ray_sessions import ROOT

K8S = ROOT / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir() if is_kustomization(folder))
JOBS = sorted(
    f"{overlay}/{folder.name}"
    for overlay in OVERLAYS
    for folder in (K8S / "overlays" / overlay).iterdir()
    if folder.is_dir() and is_kustomization(folder)
)


@cache
def _rendered(name: str) -> list[dict[str, Any]]:
    return render(K8S / "overlays" / name)


def rendered(name: str) -> list[dict[str, Any]]:
    """The objects of an overlay, as `production` or `production/generate`; the caller may change them."""
    return copy.deepcopy(_rendered(name))


def job_of(name: str) -> dict[str, Any]:
    """The RayJob of an overlay."""
    return next(one for one in rendered(name) if one["kind"] == "RayJob")


def policies_of(overlay: str) -> list[dict[str, Any]]:
    """The NetworkPolicies of an overlay."""
    return [one for one in rendered(overlay) if one["kind"] == "NetworkPolicy"]


def store_pod() -> dict[str, Any]:
    """The pod of the local overlay's S3 store."""
    (deployment,) = [one for one in rendered("local") if one["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    return {"metadata": {**template["metadata"], "name": "s3"}, "spec": template["spec"]}


def digested(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The objects with a digest of an image in place of the zeros that stand for it."""
    import yaml

    text = yaml.safe_dump_all(objects).replace("sha256:" + "0" * 64, "sha256:" + "7" * 64)
    return list(yaml.safe_load_all(text))


def copied(folder: Path) -> Path:
    """A copy of k8s/ that a test may change."""
    return Path(shutil.copytree(K8S, folder / "k8s"))
