"""A Kubernetes API server for tests: real kubectl, and Ray's real autoscaler, talk to it over HTTPS.

It knows the kinds that k8s/ uses, checks core objects by Kubernetes' schemas and custom ones by the definitions of
KubeRay and Kueue with their CEL rules, and lets in whoever has its client certificate. It has no controller: what
happens to an object is up to whoever looks at it (kuberay_player.py).
"""

import datetime
import ipaddress
import json
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.k8s.api_objects import KUBERNETES, Kind, Objects, Refused
from tests.k8s.crds import Crds

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?P<status>/status)?)?"
)


@dataclass(frozen=True)
class ApiServer:
    """A running server: its objects, and who may talk to it."""

    objects: Objects
    port: int
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        """What kubectl needs."""
        return {"KUBECONFIG": str(self.folder / "kubeconfig")}

    @property
    def pod_env(self) -> dict[str, str]:
        """What a cluster gives to every pod, and Ray's own names for where the credentials lie."""
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT_HTTPS": str(self.port),
            "RAY_KUBERAY_CA_CERT_PATH": str(self.folder / "ca.crt"),
            "RAY_KUBERAY_CLIENT_CERT_PATH": str(self.folder / "client.crt"),
            "RAY_KUBERAY_CLIENT_KEY_PATH": str(self.folder / "client.key"),
        }


@contextmanager
def running_api_server(folder: Path, crds: Crds) -> Iterator[ApiServer]:
    """A server on a free port; certificates and kubeconfig in `folder`. It holds the namespace `default` alone."""
    _make_certificates(folder)
    objects = Objects(crds)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.load_verify_locations(folder / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    server = _Server(objects, context)
    running = ApiServer(objects, server.server_address[1], folder)
    (folder / "kubeconfig").write_text(json.dumps(_kubeconfig(running)))
    objects.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, objects: Objects, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = objects
        self.paths = {(kind.api_version, kind.plural): kind for kind in objects.kinds}
        # Handshakes belong to the thread of the connection: one that hangs must not stop the others.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_: object) -> None:
        """Connections that break, and clients without a certificate, are no news."""


class _Handler(BaseHTTPRequestHandler):
    """One request after another: a path to a kind, a verb to a method of `Objects`."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - the names of http.server

    def _answer(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        try:
            answer = discovery(self.server.objects.kinds, url.path) if self.command == "GET" else None
            code, body = (200, answer) if answer is not None else self._on_objects(url.path, text)
        except Refused as refused:
            code, body = refused.code, _failure(refused)
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _on_objects(self, path: str, text: bytes) -> tuple[int, Any]:
        match = _PATH.fullmatch(path)
        kind = match and self.server.paths.get((match["core"] or match["group"], match["plural"]))
        if not match or not kind or "watch" in self.query:
            raise Refused(404, "NotFound", f"this server has no {path}")
        given = yaml.safe_load(text) if text else {}
        name, namespace = match["name"], match["namespace"] or ""
        what, objects = f"{kind.api_version}/{kind.name}", self.server.objects
        manager, dry = self.query.get("fieldManager", "client"), "dryRun" in self.query
        if self.command == "GET":
            return 200, objects.get(what, name, namespace) if name else self._list(kind, namespace)
        if self.command == "POST":
            given["metadata"].setdefault("namespace", namespace)
            return 201, objects.create(given, manager, dry)
        if self.command == "PUT":
            return 200, objects.replace(given, manager, dry)
        if self.command == "DELETE":
            return 200, objects.delete(what, name, namespace, given.get("gracePeriodSeconds"), dry or "dryRun" in given)
        how = self.headers["Content-Type"].removeprefix("application/").partition("+")[0]
        if how == "apply-patch":
            return 200, objects.apply(given, manager, self.query.get("force") == "true", dry)
        return 200, objects.patch(what, name, namespace, how, given, manager, dry)

    def _list(self, kind: Kind, namespace: str) -> dict[str, Any]:
        what = f"{kind.api_version}/{kind.name}"
        labels = dict(one.split("=", 1) for one in self.query.get("labelSelector", "").split(",") if one)
        items = self.server.objects.select(what, namespace, labels)
        if name := self.query.get("fieldSelector", "").removeprefix("metadata.name="):
            items = [one for one in items if one["metadata"]["name"] == name]
        metadata = {"resourceVersion": self.server.objects.version}
        return {"apiVersion": kind.api_version, "kind": f"{kind.name}List", "metadata": metadata, "items": items}


def _failure(refused: Refused) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": refused.code, "reason": refused.reason,
        "message": str(refused), "metadata": {},
    }  # fmt: skip


def discovery(kinds: list[Kind], path: str) -> dict[str, Any] | None:
    """What the server says of itself: versions, kinds, and by what parameters they may be changed."""
    versions = sorted({kind.api_version for kind in kinds})
    groups = sorted({kind.group for kind in kinds if kind.group})
    if path == "/version":
        return {"major": KUBERNETES.split(".")[0], "minor": KUBERNETES.split(".")[1], "gitVersion": f"v{KUBERNETES}.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(one, versions) for one in groups]}
    if path == "/openapi/v3":
        places = {_place(one): {"serverRelativeURL": f"/openapi/v3/{_place(one)}"} for one in versions}
        return {"paths": places}
    for version in versions:
        here = [kind for kind in kinds if kind.api_version == version]
        if path == f"/{_place(version)}":
            resources = [_resource(kind) for kind in here]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
        if path == f"/openapi/v3/{_place(version)}":
            return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": KUBERNETES}, **_openapi(here)}
    return None


def _place(version: str) -> str:
    return f"api/{version}" if version == "v1" else f"apis/{version}"


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    served = [
        {"groupVersion": one, "version": one.rpartition("/")[2]} for one in versions if one.startswith(f"{name}/")
    ]
    return {"name": name, "versions": served[::-1], "preferredVersion": served[-1]}


def _resource(kind: Kind) -> dict[str, Any]:
    verbs = ["create", "delete", "get", "list", "patch", "update"]
    return {
        "name": kind.plural, "singularName": kind.name.lower(), "namespaced": kind.namespaced, "kind": kind.name,
        "verbs": verbs, "shortNames": list(kind.short),
    }  # fmt: skip


def _openapi(kinds: list[Kind]) -> dict[str, Any]:
    """As much as kubectl reads of it: whether the server validates, and knows dry runs."""
    parameters = [{"name": name, "in": "query"} for name in ("dryRun", "fieldValidation", "fieldManager", "force")]
    paths = {}
    for kind in kinds:
        version = kind.api_version.rpartition("/")[2]
        described = {"group": kind.group, "version": version, "kind": kind.name}
        inside = "namespaces/{namespace}/" if kind.namespaced else ""
        paths[f"/{_place(kind.api_version)}/{inside}{kind.plural}/{{name}}"] = {
            "patch": {"parameters": parameters, "x-kubernetes-group-version-kind": described, "responses": {}}
        }
    return {"paths": paths}


def _kubeconfig(server: ApiServer) -> Mapping[str, Any]:
    cluster = {"server": f"https://127.0.0.1:{server.port}", "certificate-authority": str(server.folder / "ca.crt")}
    files = {"client-certificate": "client.crt", "client-key": "client.key"}
    user = {name: str(server.folder / file) for name, file in files.items()}
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}], "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }  # fmt: skip


def _make_certificates(folder: Path) -> None:
    """An authority that nobody else knows, a certificate of the server and one of its clients."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("authority", authority_key, authority_key, "authority")
    _write(folder / "ca", authority, authority_key)
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        _write(folder / name, _certificate(name, key, authority_key, "authority"), key)


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, issuer: str
) -> x509.Certificate:  # fmt: skip
    today = datetime.datetime.now(datetime.UTC)
    own = name == issuer
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=own, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if name == "server":
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = builder.add_extension(here, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _write(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path.with_suffix(".key").write_bytes(secret)
