"""What ValidatingAdmissionPolicies say of a new object, as an API server does between its schemas and its store.

Follows Kubernetes' admission: a policy does nothing without a binding, one that cannot be evaluated refuses (as
`failurePolicy: Fail` has it), and variables are known to those after them. Only what k8s/ uses is known.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cel

from tests.k8s.crds import holds

Object = Mapping[str, Any]


def refusals(
    one: Object, plural: str, namespace: Object | None, policies: Sequence[Object], bindings: Sequence[Object]
) -> Iterator[str]:
    """Why an object that would be created in `namespace` is denied, as kubectl shows it."""
    by_name = {policy["metadata"]["name"]: policy for policy in policies}
    for binding in bindings:
        spec = binding["spec"]
        assert spec["validationActions"] == ["Deny"], "only Deny is known here"
        policy = by_name.get(spec["policyName"])
        if (
            policy
            and _selects(spec["matchResources"]["namespaceSelector"], namespace)
            and _is_about(policy, one, plural)
        ):
            names = f"ValidatingAdmissionPolicy '{spec['policyName']}' with binding '{binding['metadata']['name']}'"
            yield from (f"{names} denied request: {message}" for message in _denials(policy["spec"], one))


def _selects(selector: Object, namespace: Object | None) -> bool:
    """Whether a namespace has the labels; the API server gives each one its name as a label."""
    assert set(selector) == {"matchLabels"}, "only matchLabels is known here"
    if namespace is None:
        return False
    metadata = namespace["metadata"]
    labels = {"kubernetes.io/metadata.name": metadata["name"], **metadata.get("labels", {})}
    return selector["matchLabels"].items() <= labels.items()


def _is_about(policy: Object, one: Object, plural: str) -> bool:
    group, _, version = one["apiVersion"].rpartition("/")
    return any(
        {group, "*"}.intersection(rule["apiGroups"])
        and {version, "*"}.intersection(rule["apiVersions"])
        and {plural, "*"}.intersection(rule["resources"])
        and {"CREATE", "*"}.intersection(rule["operations"])
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
    )


def _denials(spec: Object, one: Object) -> Iterator[str]:
    known: dict[str, Any] = {}
    about = {"object": one, "oldObject": None, "variables": known}
    for variable in spec.get("variables", ()):
        with contextlib.suppress(Exception):  # what asks for it fails in its place
            known[variable["name"]] = cel.compile(variable["expression"]).execute(about)
    yield from (rule["message"] for rule in spec["validations"] if not holds(rule["expression"], about))
