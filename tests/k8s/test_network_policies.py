"""Who may reach whom: the network policies of each overlay, as packets meet them."""

import copy
import re
from collections.abc import Iterator
from functools import reduce
from operator import getitem
from typing import Any

import pytest

from synthfer.k8s.pods import pods_of
from tests.k8s.network_lab import IPV6, Host, Lab, host_addresses, missing_tools
from tests.k8s.overlays import OVERLAYS, job_of, policies_of, store_pod

Policies = list[dict[str, Any]]

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=missing_tools())

# Rows ask, columns are asked. `-` is not asked: nobody talks to himself over the wire.
MATRIX = """
                  operator  operators-neighbour  submitter  prometheus  stranger  notebook  head  worker  other-worker
head:6379         no        no                   no         no          no        no        -     yes     yes
head:8265         yes       no                   yes        no          no        no        -     yes     yes
head:10001        no        no                   no         no          no        no        -     yes     yes
head:8080         no        no                   no         yes         no        no        -     yes     yes
head:44217        no        no                   no         yes         no        no        -     yes     yes
head:44227        no        no                   no         yes         no        no        -     yes     yes
worker:8265       no        no                   no         no          no        no        yes   -       yes
worker:8080       no        no                   no         yes         no        no        yes   -       yes
worker:31234      no        no                   no         no          no        no        yes   -       yes
submitter:8265    no        no                   -          no          no        no        no    no      no
notebook:8888     no        no                   no         no          no        -         no    no      no
dns:53            yes       yes                  yes        yes         yes       yes       yes   yes     yes
dns:53/udp        yes       yes                  yes        yes         yes       yes       yes   yes     yes
dns:9153          yes       yes                  no         yes         yes       no        no    no      no
node-dns:53       yes       yes                  yes        yes         yes       yes       yes   yes     yes
node-dns:53/udp   yes       yes                  yes        yes         yes       yes       yes   yes     yes
node-dns:443      yes       yes                  no         yes         yes       no        no    no      no
api-server:6443   yes       yes                  no         yes         yes       no        yes   no      no
outside:443       yes       yes                  no         yes         yes       no        yes   yes     yes
outside:80        yes       yes                  no         yes         yes       no        no    no      no
outside:8265      yes       yes                  no         yes         yes       no        no    no      no
outside:53        yes       yes                  no         yes         yes       no        no    no      no
metadata:80       yes       yes                  no         yes         yes       no        no    no      no
metadata:443      yes       yes                  no         yes         yes       no        no    no      no
metadata:6443     yes       yes                  no         yes         yes       no        no    no      no
google-data:443   yes       yes                  no         yes         yes       no        no    no      no
google-data:6443  yes       yes                  no         yes         yes       no        no    no      no
"""

# The local overlay adds a store of its own.
STORE_MATRIX = """
                  operator  prometheus  stranger  notebook  submitter  head  worker  s3
s3:8333           no        no          no        no        no         yes   yes     -
s3:9333           no        no          no        no        no         no    no      -
head:6379         no        no          no        no        no         -     yes     no
dns:53            yes       yes         yes       yes       yes        yes   yes     yes
outside:443       yes       yes         yes       no        no         yes   yes     no
"""


def hosts_of(overlay: str) -> list[Host]:
    """A cluster's inhabitants: our pods with the labels that KubeRay gives them in this overlay, and their world."""
    pods = {pod.role: pod.manifest["metadata"]["labels"] for pod in pods_of(job_of(f"{overlay}/generate"))}
    operator = {"app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/component": "kuberay-operator"}
    ours = [
        ("head", "synthfer", pods["head"], (6379, 8265, 10001, 8080, 44217, 44227)),
        ("worker", "synthfer", pods["worker"], (8265, 8080, 31234)),
        ("other-worker", "synthfer", pods["worker"], ()),
        ("submitter", "synthfer", pods["submitter"], (8265,)),
        ("notebook", "synthfer", {"app.kubernetes.io/part-of": "synthfer"}, (8888,)),
        ("operator", "kuberay-system", operator, ()),
        ("operators-neighbour", "kuberay-system", {"app.kubernetes.io/name": "other"}, ()),
        ("prometheus", "monitoring", {"app.kubernetes.io/name": "prometheus"}, ()),
        # Labels are nothing outside the namespaces that policies name.
        ("stranger", "team-b", {**pods["submitter"], **pods["head"], **operator}, ()),
        ("dns", "kube-system", {"k8s-app": "kube-dns"}, (53, "53/udp", 9153)),
    ]
    world = [
        ("node-dns", (53, "53/udp", 443), ("169.254.20.10",)),
        ("api-server", (6443,), ("172.20.0.1", "fd00:aa::1")),
        ("outside", (443, 80, 53, 8265), ("52.216.0.1", "2600:1f18::1")),
        ("metadata", (80, 443, 6443), ("169.254.169.254", "fd00:ec2::254")),
        ("google-data", (443, 6443), ("169.254.169.252", "fd20:ce::254")),
    ]
    if overlay == "local":
        ours.append(("s3", "synthfer", store_pod()["metadata"]["labels"], (8333, 9333)))
    inside = [Host(*one, host_addresses(i)) for i, one in enumerate(ours, 2)]
    return inside + [Host(name, None, {}, ports, addresses[: 1 + IPV6]) for name, ports, addresses in world]


def surprises(lab: Lab, matrix: str = MATRIX) -> Iterator[str]:
    """Where the lab answers otherwise than the matrix says, over IPv4 and IPv6."""
    header, *rows = [line.split() for line in matrix.strip().splitlines()]
    for target, *cells in rows:
        name, _, port = target.rpartition(":")
        for source, cell in zip(header, cells, strict=True):
            for address in lab.hosts[name].addresses if cell != "-" else ():
                if lab.reaches(source, address, port) != (cell == "yes"):
                    yield f"{source} -> {target} ({address}): {'no' if cell == 'yes' else 'yes'}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_who_reaches_whom(overlay):
    with Lab(hosts_of(overlay)) as lab:
        lab.apply([])
        assert not list(surprises(lab, re.sub(r"\bno\b", "yes", MATRIX))), "the lab itself is in the way"
        lab.apply(policies_of(overlay))
        assert list(surprises(lab)) == []
        if overlay == "local":
            assert list(surprises(lab, STORE_MATRIX)) == []


def pieces_of(policies: Policies) -> Iterator[tuple[Any, ...]]:
    """The path to every piece that can be taken out of the policies: whole ones, peers, ports, exceptions."""
    for i, policy in enumerate(policies):
        yield (i,)
        for way in ("ingress", "egress"):
            for j, rule in enumerate(policy["spec"].get(way, ())):
                for key, parts in rule.items():
                    path = (i, "spec", way, j, key)
                    # Without its only peer or port a rule would be for nobody; without the list it is for all.
                    yield from [(*path, k) for k in range(len(parts))] if len(parts) > 1 else [path]
                    for k, part in enumerate(parts):
                        for n in range(len(part.get("ipBlock", {}).get("except", ()))):
                            yield (*path, k, "ipBlock", "except", n)


def without(policies: Policies, path: tuple[Any, ...]) -> Policies:
    changed = copy.deepcopy(policies)
    del reduce(getitem, path[:-1], changed)[path[-1]]
    return changed


@pytest.mark.slow
def test_each_piece_of_the_policies_is_needed_and_watched():
    """Whatever is taken out of them, somebody is cut off or let in, and the matrix tells."""
    whole, unnoticed = policies_of("production"), set()
    pieces = list(pieces_of(whole))
    assert len(pieces) > 30
    with Lab(hosts_of("production")) as lab:
        for path in pieces:
            lab.apply(without(whole, path))
            if not any(surprises(lab)):
                unnoticed.add(f"{whole[path[0]]['metadata']['name']} {path[1:]} {reduce(getitem, path, whole)}")
    # The head's own rule says the same port; where there is no IPv6, its rules are not met.
    unnoticed = {one for one in unnoticed if IPV6 or "::" not in one}
    assert unnoticed == {"submitter ('spec', 'egress', 0, 'ports') [{'port': 8265}]"}


def test_the_lab_follows_the_reference_of_kubernetes():
    """Small policies whose meaning the reference spells out, on three pods and an address outside."""
    hosts = [
        Host("a", "one", {"app": "a", "tier": "web"}, (80, 81, 8080), host_addresses(2)),
        Host("b", "one", {"app": "b"}, (80,), host_addresses(3)),
        Host("c", "two", {"app": "b"}, (80,), host_addresses(4)),
        Host("out", None, {}, (80,), ("203.0.113.7",)),
    ]
    a, asked = hosts[0].addresses[0], ("b", "c", "out")

    def allowed(spec: dict[str, Any], port: int = 80) -> str:
        lab.apply([{"metadata": {"name": "p", "namespace": "one"}, "spec": spec}])
        return " ".join(name for name in asked if lab.reaches(name, a, port))

    to_a = {"podSelector": {"matchLabels": {"app": "a"}}}
    two = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "two"}}}
    app_b = {"podSelector": {"matchLabels": {"app": "b"}}}
    with Lab(hosts) as lab:
        assert allowed({"podSelector": {"matchLabels": {"app": "z"}}}) == "b c out"  # selects nobody
        assert allowed(to_a) == ""  # no rules: Ingress is denied by default
        assert allowed({**to_a, "ingress": [{}]}) == "b c out"  # one rule without conditions: all
        assert allowed({**to_a, "policyTypes": ["Egress"]}) == "b c out"
        assert allowed({**to_a, "ingress": [{"from": [app_b]}]}) == "b"  # this namespace only
        assert allowed({**to_a, "ingress": [{"from": [{**two, **app_b}]}]}) == "c"  # both must fit
        assert allowed({**to_a, "ingress": [{"from": [two, app_b]}]}) == "b c"  # either
        assert allowed({**to_a, "ingress": [{"from": [{"namespaceSelector": {}}]}]}) == "b c"  # all pods, no outsider
        block = {"ipBlock": {"cidr": "203.0.113.0/24"}}
        assert allowed({**to_a, "ingress": [{"from": [block]}]}) == "out"
        block["ipBlock"]["except"] = ["203.0.113.0/28"]
        assert allowed({**to_a, "ingress": [{"from": [block]}]}) == ""
        ports = {**to_a, "ingress": [{"ports": [{"port": 80, "endPort": 81}]}]}
        assert [allowed(ports, port) for port in (80, 81, 8080)] == ["b c out", "b c out", ""]
        assert allowed({**to_a, "ingress": [{"ports": [{"protocol": "UDP", "port": 80}]}]}) == ""
        assert allowed({"podSelector": {}, "policyTypes": ["Egress"], "egress": []}) == "c out"  # b may not ask
        has_tier = {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}}
        assert allowed(has_tier) == ""
        not_web = {"podSelector": {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["web"]}]}}
        assert allowed(not_web) == "b c out"
        with pytest.raises(ValueError, match="numbers only"):
            allowed({**to_a, "ingress": [{"ports": [{"port": "http"}]}]})
