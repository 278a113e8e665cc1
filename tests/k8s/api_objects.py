"""The objects of a Kubernetes API server in memory: created, patched in all four ways, validated, deleted with what
they own.

Follows the API conventions as far as kubectl, Ray's autoscaler and KubeRay's steps depend on it. Simpler than the real
ones: server-side apply takes every list as a whole, finalizers hold nothing up, and nothing is watched.
"""

import copy
import datetime
import re
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import kubernetes_validate

from tests.k8s.admission import refusals
from tests.k8s.crds import Crds
from tests.k8s.patches import Object, PatchError, Path, json_patched, leaves, merged, without

KUBERNETES = "1.37"
_BUILT_IN = {
    "v1": "Namespace ConfigMap LimitRange PersistentVolumeClaim Pod ResourceQuota Secret Service ServiceAccount",
    "admissionregistration.k8s.io/v1": "ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding",
    "apps/v1": "Deployment",
    "networking.k8s.io/v1": "NetworkPolicy",
    "policy/v1": "PodDisruptionBudget",
    "rbac.authorization.k8s.io/v1": "Role RoleBinding",
    "scheduling.k8s.io/v1": "PriorityClass",
    # Of another operator, whose definitions are in no package: nothing of these is checked.
    "monitoring.coreos.com/v1": "PodMonitor PrometheusRule",
}
_POLICY = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"
_CLUSTER_WIDE = ("Namespace", "PriorityClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
_UNCHECKED = "monitoring.coreos.com/v1"
_HERS = ("uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds")
"""What only the server writes."""


class Refused(Exception):
    """What the server answers in place of an object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


@dataclass(frozen=True)
class Kind:
    """One kind of objects, and by what path it is reached."""

    api_version: str
    name: str
    plural: str
    namespaced: bool
    short: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The API group, empty for that of pods."""
        return self.api_version.rpartition("/")[0]


class Key(NamedTuple):
    """What an object is known by."""

    api_version: str
    kind: str
    namespace: str
    name: str


def kinds(crds: Crds) -> list[Kind]:
    """All kinds that a server with these definitions knows, each in its most stable version."""
    built_in = [
        Kind(version, name, _plural(name), name not in _CLUSTER_WIDE)
        for version, names in _BUILT_IN.items()
        for name in names.split()
    ]
    custom: dict[tuple[str, str], Kind] = {}
    for (version, name), names in sorted(crds.names.items(), key=lambda one: _stability(one[0][0])):
        short = tuple(names.get("shortNames", ()))
        kind = Kind(version, name, names["plural"], names["scope"] == "Namespaced", short)
        custom[kind.group, name] = kind
    return built_in + list(custom.values())


def _stability(api_version: str) -> tuple[bool, int, str]:
    """Orders versions as Kubernetes does, the one to prefer last: v1alpha1, v1beta1, v1beta2, v1."""
    version = api_version.rpartition("/")[2]
    stable = re.fullmatch(r"v(\d+)", version)
    return bool(stable), int(stable[1]) if stable else 0, version


def _plural(name: str) -> str:
    low = name.lower()
    return low[:-1] + "ies" if low.endswith("y") else low + ("es" if low.endswith("s") else "s")


@dataclass
class Objects:
    """All objects. Every method may be called from any thread; what it returns is a copy."""

    crds: Crds = field(repr=False)

    def __post_init__(self) -> None:
        self.kinds = kinds(self.crds)
        self._stored: dict[Key, Object] = {}
        self._owned: dict[Key, dict[str, set[Path]]] = {}
        self._version = 0
        self._lock = threading.RLock()
        self._by_name = {(one.api_version, one.name): one for one in self.kinds}

    @property
    def version(self) -> str:
        """The number of the last change."""
        return str(self._version)

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        """The object; `Refused` (404) if there is none. `kind` is `version/Kind`, as `v1/Pod`."""
        key = self._key(kind, namespace, name)
        with self._lock:
            if key not in self._stored:
                raise Refused(404, "NotFound", f'{self._kind(key).plural} "{name}" not found')
            return copy.deepcopy(self._stored[key])

    def find(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """The object, or None."""
        try:
            return self.get(kind, name, namespace)
        except Refused:
            return None

    def select(self, kind: str, namespace: str = "", labels: Mapping[str, str] = MappingProxyType({})) -> list[Object]:
        """The objects of a kind with these labels, in the order of their making; of all namespaces without one."""
        version, _, name = kind.rpartition("/")
        with self._lock:
            return [
                copy.deepcopy(one)
                for key, one in self._stored.items()
                if key[:2] == (version, name)
                and namespace in ("", key.namespace)
                and labels.items() <= one["metadata"].get("labels", {}).items()
            ]

    def create(self, given: Mapping[str, Any], manager: str = "create", dry: bool = False) -> Object:
        """Stores a new object."""
        new = copy.deepcopy(dict(given))
        metadata = new.setdefault("metadata", {})
        if "generateName" in metadata and not metadata.get("name"):
            metadata["name"] = f"{metadata['generateName']}{secrets.token_hex(3)[:5]}"
        key = self._key_of(new)
        with self._lock:
            if key in self._stored:
                plural = self._kind(key).plural
                raise Refused(409, "AlreadyExists", f'{plural} "{key.name}" already exists')
            if self._kind(key).namespaced and self.find("v1/Namespace", key.namespace) is None:
                raise Refused(404, "NotFound", f'namespaces "{key.namespace}" not found')
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
            return self._store(key, new, None, manager, dry)

    def replace(self, given: Mapping[str, Any], manager: str = "replace", dry: bool = False) -> Object:
        """Stores another state of an object."""
        key = self._key_of(given)
        return self._change(key, lambda _: copy.deepcopy(dict(given)), manager, dry)

    def patch(
        self, kind: str, name: str, namespace: str, how: str, patch: Any, manager: str = "patch", dry: bool = False
    ) -> Object:
        """Changes an object by a patch; `how` is its content type, without `application/` and `+json`."""
        key = self._key(kind, namespace, name)
        ways: dict[str, Callable[[Object], Object]] = {
            "json-patch": lambda old: json_patched(old, patch),
            "merge-patch": lambda old: merged(old, patch),
            "strategic-merge-patch": lambda old: merged(old, patch, by_keys=True),
        }
        if how not in ways or (how.startswith("strategic") and self.crds.knows({"apiVersion": key[0], "kind": key[1]})):
            raise Refused(415, "UnsupportedMediaType", f"no patch of type {how} for {name}")
        return self._change(key, ways[how], manager, dry)

    def apply(
        self, given: Mapping[str, Any], manager: str, force: bool = False, dry: bool = False
    ) -> Object:  # fmt: skip
        """Server-side apply: what the manager said last time and says no more is removed, what another manager has
        set otherwise is a conflict (409)."""
        key = self._key_of(given)
        with self._lock:
            old = self._stored.get(key)
            if old is None:
                return self.create(given, manager, dry)
            said = {path for path, _ in leaves(given)}
            owned = self._owned.setdefault(key, {})
            others = {other: paths & said for other, paths in owned.items() if other != manager}
            now_there, wanted = dict(leaves(old)), dict(leaves(given))
            clash = [
                f'conflict with "{other}": .{".".join(path)}'
                for other, paths in others.items()
                for path in sorted(paths)
                if now_there.get(path) != wanted[path]
            ]
            if clash and not force:
                raise Refused(409, "Conflict", "Apply failed with conflicts: " + "; ".join(clash))
            kept = set().union(*(paths for other, paths in owned.items() if other != manager))
            dropped = owned.get(manager, set()) - said - kept
            new = merged(without(old, dropped), given)
            done = self._change(key, lambda _: new, manager, dry)
            if not dry:
                owned[manager] = said
            return done

    def set_status(self, kind: str, name: str, namespace: str, status: Mapping[str, Any]) -> Object:
        """Merges into an object's status, as its controller does."""
        key = self._key(kind, namespace, name)
        with self._lock:
            new = self.get(kind, name, namespace)
            new["status"] = merged(new.get("status", {}), status)
            return self._store(key, new, self._stored[key], "controller", dry=False)

    def delete(self, kind: str, name: str, namespace: str = "", grace: int | None = None, dry: bool = False) -> Object:
        """Deletes an object and what it owns. A pod that runs is marked only: whoever runs it calls `remove`."""
        key = self._key(kind, namespace, name)
        with self._lock:
            one = self.get(kind, name, namespace)
            if dry:
                return one
            if key.kind == "Pod" and one["spec"].get("nodeName"):
                seconds = one["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
                if "deletionTimestamp" not in one["metadata"]:
                    mark = {"deletionTimestamp": now(), "deletionGracePeriodSeconds": seconds}
                    self._stored[key]["metadata"] |= mark
                    self._touch(self._stored[key])
                return copy.deepcopy(self._stored[key])
            self.remove(kind, name, namespace)
            return one

    def remove(self, kind: str, name: str, namespace: str = "") -> None:
        """Takes an object away, and deletes what it owns or, if it is a namespace, holds."""
        with self._lock:
            gone = self._stored.pop(self._key(kind, namespace, name))
            self._owned.pop(self._key(kind, namespace, name), None)
            self._version += 1
            for key, one in list(self._stored.items()):
                owners = [owner["uid"] for owner in one["metadata"].get("ownerReferences", ())]
                held = gone["kind"] == "Namespace" and key.namespace == name
                if key in self._stored and (held or gone["metadata"]["uid"] in owners):
                    self.delete(f"{key.api_version}/{key.kind}", key.name, key.namespace)

    def _change(self, key: Key, how: Callable[[Object], Object], manager: str, dry: bool) -> Object:
        with self._lock:
            old = self.get(f"{key.api_version}/{key.kind}", key.name, key.namespace)
            try:
                new = how(copy.deepcopy(old))
            except PatchError as error:
                raise Refused(422, "Invalid", f"the server rejected our request: {error}") from error
            if self._key_of(new) != key:
                raise Refused(400, "BadRequest", "apiVersion, kind, name and namespace cannot be changed")
            asked = new["metadata"].get("resourceVersion")
            if asked not in (None, old["metadata"]["resourceVersion"]):
                raise Refused(409, "Conflict", f'"{key.name}": the object has been modified')
            new["metadata"] |= {name: old["metadata"][name] for name in _HERS if name in old["metadata"]}
            if "status" in old:
                new["status"] = copy.deepcopy(old["status"])
            return self._store(key, new, old, manager, dry)

    def _store(self, key: Key, new: Object, old: Object | None, manager: str, dry: bool) -> Object:
        self._check(key, new, old)
        new = self.crds.defaulted(new) if self.crds.knows(new) else new
        if old is None:
            self._admit(key, new)
        changed = old is None or _apart(new) != _apart(old)
        if dry or not changed:
            return new
        metadata = new["metadata"]
        same = old is not None and new.get("spec") == old.get("spec")
        metadata["generation"] = metadata.get("generation", 0) + (not same)
        self._touch(new)
        self._stored[key] = copy.deepcopy(new)
        before = dict(leaves(old or {}))
        mine = {path for path, value in leaves(new) if before.get(path) != value}
        owned = self._owned.setdefault(key, {})
        for other in owned:
            owned[other] = owned[other] - mine
        owned[manager] = owned.get(manager, set()) | mine
        return new

    def _check(self, key: Key, new: Object, old: Object | None) -> None:
        if self.crds.knows(new):
            wrong = self.crds.errors(new, old)
        elif key.api_version == _UNCHECKED:
            wrong = []
        else:
            wrong = list(_core_errors(new))
        if wrong:
            raise Refused(422, "Invalid", f'{key.kind}.{key.api_version} "{key.name}" is invalid: {"; ".join(wrong)}')

    def _admit(self, key: Key, new: Object) -> None:
        kind, namespace = self._kind(key), self.find("v1/Namespace", key.namespace)
        policies, bindings = self.select(_POLICY), self.select(f"{_POLICY}Binding")
        for why in refusals(new, kind.plural, namespace, policies, bindings):
            raise Refused(422, "Invalid", f'{kind.plural} "{key.name}" is forbidden: {why}')

    def _touch(self, one: Object) -> None:
        self._version += 1
        one["metadata"]["resourceVersion"] = str(self._version)

    def _key(self, kind: str, namespace: str, name: str) -> Key:
        version, _, word = kind.rpartition("/")
        return Key(version, word, namespace if self._by_name[version, word].namespaced else "", name)

    def _key_of(self, one: Mapping[str, Any]) -> Key:
        version, kind = str(one.get("apiVersion")), str(one.get("kind"))
        if (version, kind) not in self._by_name:
            raise Refused(404, "NotFound", f"no kind {kind} in version {version}")
        if not one.get("metadata", {}).get("name"):
            raise Refused(422, "Invalid", f"{kind}: metadata.name is required")
        return self._key(f"{version}/{kind}", one["metadata"].get("namespace", ""), one["metadata"]["name"])

    def _kind(self, key: Key) -> Kind:
        return self._by_name[key.api_version, key.kind]


def now() -> str:
    """This moment as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _apart(one: Object) -> Object:
    """The object without what changes at every writing."""
    hers = {"resourceVersion", "generation", "managedFields"}
    return {**one, "metadata": {key: value for key, value in one["metadata"].items() if key not in hers}}


def _core_errors(one: Object) -> Iterator[str]:
    try:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.InvalidSchemaError) as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message}"
