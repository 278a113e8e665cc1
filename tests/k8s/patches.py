"""The patches of the Kubernetes API: merge, strategic merge, JSON; and the fields that server-side apply knows."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import jsonpatch
import jsonpointer

Object = dict[str, Any]
Path = tuple[str, ...]
# By what strategic merge patches tell the items of a list apart; other lists are taken as a whole.
_MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "secrets": "name",
    "imagePullSecrets": "name", "volumeMounts": "mountPath", "ownerReferences": "uid",
}  # fmt: skip


class PatchError(ValueError):
    """A patch that does not fit its object."""


def merged(old: Any, patch: Any, by_keys: bool = False) -> Any:
    """A merge patch (RFC 7386) applied, or a strategic one, where items of known lists are told apart by a key."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    new = copy.deepcopy(dict(old)) if isinstance(old, Mapping) else {}
    for name, value in patch.items():
        if by_keys and name.startswith("$"):
            continue  # the order of lists, and what the items of the list say for themselves
        if value is None:
            new.pop(name, None)
        elif by_keys and name in _MERGE_KEYS and isinstance(value, list):
            new[name] = _merged_list(new.get(name) or [], value, _MERGE_KEYS[name])
        else:
            new[name] = merged(new.get(name), value, by_keys)
    return new


def _merged_list(old: list[Object], patch: list[Object], key: str) -> list[Object]:
    by_key = {one[key]: one for one in old}
    for one in patch:
        if one.get("$patch") == "delete":
            by_key.pop(one[key], None)
        else:
            by_key[one[key]] = merged(by_key.get(one[key], {}), one, by_keys=True)
    return list(by_key.values())


def json_patched(old: Object, patch: Any) -> Object:
    """A JSON patch (RFC 6902) applied; `PatchError` where it does not fit."""
    try:
        new: Object = jsonpatch.apply_patch(old, patch)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
        raise PatchError(str(error)) from error
    return new


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field that a manager can own, with its value; lists are owned as a whole."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            if path or key not in ("apiVersion", "kind", "status"):
                yield from leaves(inner, (*path, key))
    elif (path and path[:1] != ("metadata",)) or path[1:2] in (("labels",), ("annotations",)):
        yield path, value


def without(old: Object, paths: set[Path]) -> Object:
    """The object without these fields."""
    new = copy.deepcopy(old)
    for *outer, last in paths:
        there: Any = new
        for key in outer:
            there = there.get(key, {})
        there.pop(last, None)
    return new
