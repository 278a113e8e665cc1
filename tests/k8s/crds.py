"""What an API server checks of custom resources: the structural schema of their definition, and its CEL rules.

Follows Kubernetes' API extensions: null where nothing may be null is dropped, defaults are filled in, unknown fields
are errors (as `kubectl --validate=strict` has it), a CEL rule that cannot be evaluated has failed, and a rule about
`oldSelf` holds for changes only.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cel
import jsonschema
import pytest
import yaml

from tests.ray_sessions import ROOT

_METADATA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
        "namespace": {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        **{key: {"type": "object", "additionalProperties": {"type": "string"}} for key in ("labels", "annotations")},
        **{key: {} for key in ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields")},
        **{key: {} for key in ("ownerReferences", "finalizers", "deletionTimestamp", "generateName")},
    },
}


DEFINITIONS = ROOT / "build" / "definitions"
VERSIONS = ROOT / "k8s" / "VERSIONS"
_COMMAND = "`make definitions` puts them in place"


def definitions() -> Path:
    """The folder with the definitions of KubeRay and Kueue; skips without one, and fails where CI is set.

    It is SYNTHFER_TEST_CRDS, or what `make definitions` has fetched, or ../shared/k8s-crds.
    """
    folder, missing = _find_definitions()
    if missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return folder


def _find_definitions() -> tuple[Path, str]:
    """The folder, and what is wrong with it; nothing if it can be used."""
    if given := os.environ.get("SYNTHFER_TEST_CRDS"):
        return Path(given), "" if Path(given).is_dir() else f"SYNTHFER_TEST_CRDS is no folder: {given}"
    if DEFINITIONS.is_dir():
        fetched = DEFINITIONS / "VERSIONS"
        current = fetched.is_file() and set(fetched.read_text().split()) <= set(VERSIONS.read_text().split())
        return DEFINITIONS, "" if current else f"the Kubernetes definitions are of other versions; {_COMMAND}"
    beside = ROOT.parent / "shared" / "k8s-crds"
    return beside, "" if beside.is_dir() else f"no Kubernetes definitions of KubeRay and Kueue; {_COMMAND}"


@dataclass
class Crds:
    """The definitions of a folder, by apiVersion and kind."""

    schemas: Mapping[tuple[str, str], Mapping[str, Any]]
    names: Mapping[tuple[str, str], Mapping[str, Any]]
    """plural, scope and the like of each kind"""
    validators: dict[tuple[str, str], jsonschema.Draft202012Validator] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> "Crds":
        """All versions that are served of all definitions in the YAML files of `folder`."""
        schemas, names = {}, {}
        objects = (one for file in sorted(folder.glob("*.yaml")) for one in _parse(file))
        for spec in (one["spec"] for one in objects if one["kind"] == "CustomResourceDefinition"):
            for version in spec["versions"]:
                key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                if version["served"]:
                    schemas[key] = version["schema"]["openAPIV3Schema"]
                    names[key] = spec["names"] | {"scope": spec["scope"]}
        return cls(schemas, names)

    def knows(self, one: Mapping[str, Any]) -> bool:
        """Whether there is a definition for the object."""
        return (one.get("apiVersion", ""), one.get("kind", "")) in self.schemas

    def defaulted(self, one: Mapping[str, Any]) -> dict[str, Any]:
        """The object as it would be stored: nulls dropped, defaults filled in."""
        return _fill(copy.deepcopy(dict(one)), self.schemas[one["apiVersion"], one["kind"]])

    def errors(self, one: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[str]:
        """Why an API server would refuse the object, or the change from `old` to it; empty if it would not."""
        key = (one.get("apiVersion", ""), one.get("kind", ""))
        if key not in self.schemas:
            return [f"no kind {key[1]!r} in version {key[0]!r}"]
        full = self.defaulted(one)
        wrong = self._validator(key).iter_errors(full)
        messages = [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in wrong]
        before = None if old is None else self.defaulted(old)
        return messages or list(_broken_rules(full, before, self.schemas[key], ""))

    def _validator(self, key: tuple[str, str]) -> jsonschema.Draft202012Validator:
        if key not in self.validators:
            schema = _strict(self.schemas[key])
            own = {"apiVersion": {"const": key[0]}, "kind": {"const": key[1]}, "metadata": _METADATA}
            schema["properties"] = schema["properties"] | own
            self.validators[key] = jsonschema.Draft202012Validator(schema)
        return self.validators[key]


def _parse(file: Path) -> list[dict[str, Any]]:
    """The objects of a YAML file."""
    return [one for one in yaml.load_all(file.read_text(), yaml.CSafeLoader) if one]


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A structural schema as JSON Schema in which no unknown field passes."""
    strict = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    for key in ("format", "description", "default", "nullable"):
        strict.pop(key, None)
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
        strict["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    elif schema.get("nullable") and "type" in strict:
        strict["type"] = [strict["type"], "null"]
    if "properties" in schema:
        strict["properties"] = {key: _strict(value) for key, value in schema["properties"].items()}
    if isinstance(schema.get("additionalProperties"), Mapping):
        strict["additionalProperties"] = _strict(schema["additionalProperties"])
    elif "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict["additionalProperties"] = False
    if "items" in schema:
        strict["items"] = _strict(schema["items"])
    if schema.get("x-kubernetes-list-type") == "set":
        strict["uniqueItems"] = True
    return strict


def _fill(value: Any, schema: Mapping[str, Any]) -> Any:
    """The value without nulls that may not be, and with defaults."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        filled = {}
        for key, inner in value.items():
            of_key = properties.get(key, extra if isinstance(extra, Mapping) else {})
            if inner is None and of_key and not of_key.get("nullable"):
                continue
            filled[key] = _fill(inner, of_key)
        for key, of_key in properties.items():
            if "default" in of_key and key not in filled:
                filled[key] = copy.deepcopy(of_key["default"])
        return filled
    if isinstance(value, list):
        return [_fill(inner, schema.get("items", {})) for inner in value]
    return value


def _broken_rules(value: Any, old: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """The CEL rules and the keys of lists that the value breaks, from the outside in."""
    for rule in schema.get("x-kubernetes-validations", ()):
        about_change = "oldSelf" in rule["rule"]
        if not (about_change and old is None) and not holds(rule["rule"], {"self": value, "oldSelf": old}):
            yield f"{path or 'object'}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        extra = schema.get("additionalProperties")
        for key, inner in value.items():
            of_key = schema.get("properties", {}).get(key, extra if isinstance(extra, Mapping) else {})
            before = old.get(key) if isinstance(old, dict) else None
            yield from _broken_rules(inner, before, of_key, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        if keys := schema.get("x-kubernetes-list-map-keys"):
            seen = [tuple(inner.get(key) for key in keys) for inner in value]
            for twice in {key for key in seen if seen.count(key) > 1}:
                yield f"{path}: {', '.join(map(str, twice))} stands there twice"
        for i, inner in enumerate(value):
            yield from _broken_rules(inner, None, schema.get("items", {}), f"{path}[{i}]")


def holds(rule: str, known: Mapping[str, Any]) -> bool:
    """Whether a CEL rule is true of what it speaks of; one that cannot be evaluated is not."""
    try:
        return bool(cel.compile(rule).execute(dict(known)))
    except Exception:  # noqa: BLE001 - whatever ails it: an API server counts that as a rule that failed
        return False
