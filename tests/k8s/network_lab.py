"""A cluster's network for tests: each pod is a network namespace, and NetworkPolicies become its nftables rules.

Semantics are those of the Kubernetes reference: policies add up; a pod that no policy selects for a direction is open
in it; the sender's egress and the receiver's ingress must both allow; answers of an allowed connection return.
Refused packets are answered at once, where most clusters drop them, so that no test waits.

Needs root and nftables. A namespace lives as long as a process in it, and the processes die with the test: nothing is
left behind, and nothing of this machine's own network is touched.
"""

import contextlib
import ctypes
import ipaddress
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IPV6 = Path("/proc/net/if_inet6").exists()
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Host:
    """Who has an address: a pod, with its Kubernetes namespace and labels, or (namespace None) a host outside.

    `ports` are what it listens on, as 443 or "53/udp"; port 53 answers names, the others only accept.
    """

    name: str
    namespace: str | None
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int | str, ...] = ()
    addresses: tuple[str, ...] = ()


def missing_tools() -> str:
    """What is missing for a lab on this machine; empty if nothing is."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [tool for tool in ("nft", "ip", "nsenter", "unshare") if not shutil.which(tool)]
    if absent:
        return f"not installed: {', '.join(absent)} (Debian: nftables, iproute2, util-linux)"
    words = ["unshare", "--net", "nft", "add", "table", "inet", "policies"]
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    return f"no network namespaces with nftables here: {tried.stderr.strip()}" if tried.returncode else ""


def ruleset(host: Host, hosts: Sequence[Host], policies: Sequence[Mapping[str, Any]]) -> str:
    """The nftables rules of one host under the policies; `ValueError` for what this lab does not know."""
    mine = [one for one in policies if _namespace(one) == host.namespace and _selects(one["spec"], host)]
    chains = [_chain(hook, direction, mine, hosts) for hook, direction in (("input", "Ingress"), ("output", "Egress"))]
    return "flush ruleset\ntable inet policies {\n" + "".join(chains) + "}\n"


def _chain(hook: str, direction: str, policies: Sequence[Mapping[str, Any]], hosts: Sequence[Host]) -> str:
    isolating = [one for one in policies if direction in _types(one["spec"])]
    rules = [
        "meta l4proto ipv6-icmp accept",  # neighbours must find each other
        'iif "lo" accept',
        'oif "lo" accept',
        "ct state established,related accept",
    ]
    if isolating:
        side, way = ("saddr", "from") if direction == "Ingress" else ("daddr", "to")
        for policy in isolating:
            for rule in policy["spec"].get(direction.lower()) or ():
                rules += _rules(rule.get(way), rule.get("ports"), side, _namespace(policy), hosts)
        rules += ["meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"]
    body = "".join(f"    {rule}\n" for rule in rules)
    return f"  chain {hook} {{\n    type filter hook {hook} priority 0; policy accept;\n{body}  }}\n"


def _rules(peers: Any, ports: Any, side: str, namespace: str, hosts: Sequence[Host]) -> list[str]:
    """Peers times ports; none of either means all."""
    known = [match for peer in peers for match in _peer(peer, side, namespace, hosts)] if peers else [""]
    return [f"{peer} {port} accept" for peer in known for port in (map(_port, ports) if ports else [""])]


def _peer(peer: Mapping[str, Any], side: str, namespace: str, hosts: Sequence[Host]) -> list[str]:
    if block := peer.get("ipBlock"):
        family = _family(block["cidr"])
        excluded = f" {family} {side} != {{ {', '.join(block['except'])} }}" if block.get("except") else ""
        return [f"{family} {side} {block['cidr']}{excluded}"]
    near = [one for one in hosts if one.namespace and _is_peer(peer, one, namespace)]
    by_family: dict[str, list[str]] = {}
    for address in (address for one in near for address in one.addresses):
        by_family.setdefault(_family(address), []).append(address)
    return [f"{family} {side} {{ {', '.join(addresses)} }}" for family, addresses in by_family.items()]


def _is_peer(peer: Mapping[str, Any], host: Host, namespace: str) -> bool:
    """Without a namespaceSelector the policy's own namespace; without a podSelector all pods of the namespaces."""
    if "namespaceSelector" in peer:
        there = matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": str(host.namespace)})
    else:
        there = host.namespace == namespace
    return there and matches(peer.get("podSelector") or {}, host.labels)


def _port(port: Mapping[str, Any]) -> str:
    protocol, number = port.get("protocol", "TCP").lower(), port.get("port")
    if isinstance(number, str):
        raise ValueError(f"port {number!r}: this lab knows numbers only")
    if number is None:
        return f"meta l4proto {protocol}"
    return f"{protocol} dport {number}-{port['endPort']}" if "endPort" in port else f"{protocol} dport {number}"


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels; the empty one takes all."""
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _expression(one, labels) for one in selector.get("matchExpressions") or ()
    )


def _expression(one: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(one["key"]), one.get("values") or ()
    answers = {
        "In": value in values,
        "NotIn": value not in values,  # a missing label is in no list
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    return answers[one["operator"]]


def _selects(spec: Mapping[str, Any], host: Host) -> bool:
    return matches(spec.get("podSelector") or {}, host.labels)


def _types(spec: Mapping[str, Any]) -> Sequence[str]:
    """Ingress always, Egress where there are rules for it, unless the policy says."""
    return spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def _namespace(policy: Mapping[str, Any]) -> str:
    return policy["metadata"].get("namespace", "default")


def _family(cidr: str) -> str:
    return "ip6" if ipaddress.ip_network(cidr).version == 6 else "ip"


class Lab:
    """Hosts on one wire. Enter it to make them, `apply` policies, and ask with `reaches` who gets through.

    `names` are what port 53 answers: service name -> IPv4 address.
    """

    def __init__(self, hosts: Sequence[Host], names: Mapping[str, str] | None = None) -> None:
        self.hosts = {one.name: one for one in hosts}
        self.names = dict(names or {})
        self._anchors: dict[str, subprocess.Popen] = {}
        self._sockets: list[socket.socket] = []
        self._rules: dict[str, str] = {}
        self._ended = threading.Event()

    def __enter__(self) -> "Lab":
        try:
            self._wire()
            for one in self.hosts.values():
                for port in one.ports:
                    self._listen(one, port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for one in self._sockets:
            one.close()
        for anchor in self._anchors.values():
            anchor.kill()
            anchor.wait()

    def inside(self, name: str) -> list[str]:
        """The words before a command that make it run in the host's network."""
        return ["nsenter", f"--net={self._net(name)}", "--"]

    def apply(self, policies: Sequence[Mapping[str, Any]]) -> None:
        """Let these policies hold, and no others."""
        for one in self.hosts.values():
            rules = ruleset(one, list(self.hosts.values()), policies)
            if rules != self._rules.get(one.name):
                subprocess.run([*self.inside(one.name), "nft", "-f", "-"], input=rules, text=True, check=True)
                self._rules[one.name] = rules

    def reaches(self, source: str, address: str, port: int | str) -> bool:
        """Whether a connection (or, over UDP, a question and its answer) gets through."""
        return self.within(source, lambda: _tried(address, *_numbered(port)))

    def within(self, name: str, function: Callable[[], Any]) -> Any:
        """What the function gives when it is called in the host's network: sockets opened there belong to it."""
        with ThreadPoolExecutor(1) as pool:  # a thread may be in another network than its process
            return pool.submit(self._moved, name, function).result()

    def _moved(self, name: str, function: Callable[[], Any]) -> Any:
        with open(self._net(name)) as net:
            if _LIBC.setns(net.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the network of {name}")
        return function()

    def _net(self, name: str) -> str:
        return f"/proc/{self._anchors[name].pid}/ns/net"

    def _wire(self) -> None:
        """A bridge in a namespace of its own, and a cable from it to each host; every address is near."""
        self._home("wire")
        self._ip("wire", ["link add name bridge type bridge mcast_snooping 0", "link set bridge up"])
        for i, one in enumerate(self.hosts.values()):
            self._home(one.name)
            peer = self._anchors[one.name].pid
            self._ip(
                "wire", [f"link add v{i} type veth peer name eth0 netns {peer}", f"link set v{i} master bridge up"]
            )
            there = [f"address add {a} dev eth0" + (" nodad" if ":" in a else "") for a in one.addresses]
            routes = [f"-{_family(a).replace('ip', '') or 4} route add default dev eth0" for a in one.addresses]
            self._ip(one.name, ["link set lo up", "link set eth0 up", *there, *routes])

    def _home(self, name: str) -> None:
        """A process that does nothing but be in a fresh network: what a pod's pause container is."""
        words = ["unshare", "--net", "sleep", "infinity"]
        anchor = self._anchors[name] = subprocess.Popen(words, preexec_fn=die_with_parent)
        ours = Path("/proc/self/ns/net").readlink()
        while Path(self._net(name)).readlink() == ours:
            if anchor.poll() is not None:
                raise RuntimeError("this machine makes no network namespaces")
            time.sleep(0.002)

    def _ip(self, name: str, lines: Sequence[str]) -> None:
        for line in lines:
            subprocess.run([*self.inside(name), "ip", *line.split()], check=True)

    def _listen(self, host: Host, port: int | str) -> None:
        number, kind = _numbered(port)

        def opened() -> socket.socket:
            family = socket.AF_INET6 if any(":" in a for a in host.addresses) else socket.AF_INET
            one = socket.socket(family, kind)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("", number))  # on :: it takes IPv4, too
            if kind == socket.SOCK_STREAM:
                one.listen(1024)  # the kernel answers; nobody needs to accept
            return one

        server = self.within(host.name, opened)
        if kind == socket.SOCK_DGRAM:
            threading.Thread(target=self._answer, args=[server], daemon=True).start()
        else:
            self._sockets.append(server)

    def _answer(self, server: socket.socket) -> None:
        """DNS for the lab's names until the lab ends."""
        server.settimeout(0.2)
        with server:
            while not self._ended.is_set():
                with contextlib.suppress(OSError):  # nothing asked, or the asker went away
                    question, asker = server.recvfrom(512)
                    server.sendto(dns_answer(question, self.names), asker)


def _numbered(port: int | str) -> tuple[int, socket.SocketKind]:
    number, _, protocol = str(port).partition("/")
    return int(number), socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM


def _tried(address: str, port: int, kind: socket.SocketKind) -> bool:
    """True where somebody answers, False where it is refused; `TimeoutError` for silence, which nothing here keeps."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as one:
        one.settimeout(20)
        try:
            one.connect((address, port))
            if kind == socket.SOCK_DGRAM:
                one.send(b"\0" * 12)
                one.recv(512)
        except TimeoutError:
            raise
        except OSError:
            return False
    return True


def dns_answer(question: bytes, names: Mapping[str, str]) -> bytes:
    """The answer (RFC 1035) to one question: an address for a known name of type A, nothing for other types."""
    labels, at = [], 12
    while at < len(question) and question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
        at += 1 + question[at]
    asked, kind = question[12 : at + 5], question[at + 1 : at + 3]
    address = names.get(".".join(labels).lower())
    answers = [address] if address and kind == b"\0\1" else []
    code = 0x8180 if address else 0x8183
    body = b"".join(struct.pack("!HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(one) for one in answers)
    return question[:2] + struct.pack("!HHHHH", code, 1, len(answers), 0, 0) + asked + body


def die_with_parent() -> None:
    """For `preexec_fn`: the child is killed when the test's process is, however that dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def host_addresses(number: int) -> tuple[str, ...]:
    """Addresses of a host of the lab; IPv6 beside IPv4 where this machine has it."""
    return (f"10.77.0.{number}", f"fd00:5f::{number}")[: 1 + IPV6]
