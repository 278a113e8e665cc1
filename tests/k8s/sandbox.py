"""A container as the kubelet would start it from a pod's manifest, out of bubblewrap; the image is imitated.

The root file system holds what the Dockerfile puts into it, with this machine's Python and libraries. User, groups,
capabilities, read-only root, volumes, variables and command are those of the manifest. Seccomp and limits are not
imitated. Needs root, as the kubelet does; everything in a container dies with the test.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.k8s.dockerfile import environment
from tests.k8s.network_lab import die_with_parent
from tests.ray_sessions import ROOT

_FOLDERS = ("dev", "etc", "home", "opt/synthfer", "proc", "root", "run", "tmp", "usr", "var/lib", "var/tmp")


def missing_tools() -> str:
    """What is missing for containers on this machine; empty if nothing is."""
    if os.geteuid() != 0:
        return "containers need root"
    if not shutil.which("bwrap") or not shutil.which("setpriv"):
        return "not installed: bubblewrap or util-linux"
    tried = subprocess.run(["bwrap", "--ro-bind", "/", "/", "true"], capture_output=True, text=True, check=False)
    return f"bubblewrap does not work here: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass
class Node:
    """What a kubelet knows beside a pod: a folder for its volumes, ConfigMaps and Secrets by name, the name server."""

    folder: Path
    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    name_server: str = "127.0.0.1"

    def start(self, pod: Mapping[str, Any], container: Mapping[str, Any], network: Sequence[str] = ()) -> "Container":
        """Start a container of the pod; `network` are the words that put a command into the pod's network."""
        pod_folder = self.folder / pod["metadata"]["name"]
        root = self._root(pod_folder, [one["mountPath"] for one in container.get("volumeMounts", ())])
        security = {**pod["spec"].get("securityContext", {}), **container.get("securityContext", {})}
        environment = self._variables(pod, container)
        words = [
            *network, "bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-uts",
            "--hostname", pod["metadata"]["name"], "--die-with-parent", "--cap-drop", "ALL", "--clearenv",
            *(word for cap in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", f"CAP_{cap}")),
            *(word for item in environment.items() for word in ("--setenv", *item)),
            "--ro-bind" if security.get("readOnlyRootFilesystem") else "--bind", str(root), "/",
            *_image(root), *self._mounts(pod_folder, pod["spec"], container, security),
            "--chdir", "/opt/synthfer", "--", *_become(security),
            *container["command"], *container.get("args", ()),
        ]  # fmt: skip
        log = pod_folder / f"{container['name']}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent
            )
        started = Container(process, log, security, environment)
        if hook := container.get("lifecycle", {}).get("postStart"):
            started.run(*hook["exec"]["command"])
        return started

    def _root(self, pod_folder: Path, mounts: Sequence[str]) -> Path:
        """The image's root with a folder for each mount, and what the kubelet writes into /etc."""
        root = pod_folder / "root"
        for one in (*_FOLDERS, *(mount.lstrip("/") for mount in mounts)):
            (root / one).mkdir(parents=True, exist_ok=True)
        (root / "var/tmp").chmod(0o1777)
        for one in ("bin", "sbin", "lib", "lib64"):
            if not (root / one).is_symlink():
                (root / one).symlink_to(f"usr/{one}")
        etc = {
            "passwd": "root:x:0:0::/root:/bin/bash\nsynthfer:x:1000:1000::/tmp/home:/bin/sh\n",
            "group": "root:x:0:\nsynthfer:x:1000:\n",
            "hosts": "127.0.0.1 localhost\n",
            "resolv.conf": f"nameserver {self.name_server}\noptions timeout:2\n",
            "nsswitch.conf": "hosts: files dns\n",
            "ld.so.cache": "",
        }
        for name, text in etc.items():
            (root / "etc" / name).write_text(text)
        return root

    def _variables(self, pod: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, str]:
        variables = {**environment(), "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin"}
        for source in container.get("envFrom", ()):
            for kind, known in (("configMapRef", self.config_maps), ("secretRef", self.secrets)):
                if kind in source:
                    there = known.get(source[kind]["name"])
                    if there is None and not source[kind].get("optional"):
                        raise ValueError(f"{kind} {source[kind]['name']}: there is none")
                    variables |= there or {}
        return variables | {one["name"]: self._value(pod, one) for one in container.get("env", ())}

    def _value(self, pod: Mapping[str, Any], variable: Mapping[str, Any]) -> str:
        source = variable.get("valueFrom", {})
        if secret := source.get("secretKeyRef"):
            return self.secrets[secret["name"]][secret["key"]]
        if source:
            return pod["metadata"][source["fieldRef"]["fieldPath"].removeprefix("metadata.")]
        return variable.get("value", "")

    def _mounts(
        self, pod_folder: Path, spec: Mapping[str, Any], container: Any, security: Mapping[str, Any]
    ) -> list[str]:
        volumes = {one["name"]: one for one in spec.get("volumes", ())}
        words: list[str] = []
        for mount in sorted(container.get("volumeMounts", ()), key=lambda one: one["mountPath"]):
            volume = volumes[mount["name"]]
            if volume.get("emptyDir", {}).get("medium") == "Memory":
                words += ["--perms", "1777", "--tmpfs", mount["mountPath"]]
                continue
            folder = pod_folder / "volumes" / mount["name"]
            self._fill(folder, volume, security.get("fsGroup", 0))
            words += ["--ro-bind" if mount.get("readOnly") else "--bind", str(folder), mount["mountPath"]]
        return words

    def _fill(self, folder: Path, volume: Mapping[str, Any], group: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            for name, text in self.config_maps[volume["configMap"]["name"]].items():
                (folder / name).write_text(text)
        elif "emptyDir" in volume or "persistentVolumeClaim" in volume:
            os.chown(folder, 0, group)
            folder.chmod(0o2777 if "emptyDir" in volume else 0o2775)
        else:
            raise ValueError(f"volume {volume['name']}: this sandbox knows emptyDir, configMap and claims")


def _image(root: Path) -> list[str]:
    """Mounts for what the image brings: Debian, Python with its packages, and the code in /opt/synthfer."""
    sources = {path: Path(path) for path in ("/usr", "/etc/ssl", "/etc/ld.so.cache")}
    sources |= {path: Path(path) for path in dict.fromkeys((sys.base_prefix, sys.prefix))}
    sources |= {f"/opt/synthfer/{part}": ROOT / part for part in ("synthfer", "jobs")}
    words = ["--proc", "/proc", "--dev", "/dev"]
    for target, source in sources.items():
        if source.is_dir():
            (root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
        words += ["--ro-bind", str(source), target]
    return words


def _become(security: Mapping[str, Any]) -> Iterator[str]:
    """The words that turn the container's root into the manifest's user."""
    yield from ("setpriv", f"--reuid={security.get('runAsUser', 0)}", f"--regid={security.get('runAsGroup', 0)}")
    yield f"--groups={security['fsGroup']}" if "fsGroup" in security else "--clear-groups"
    if "ALL" in security.get("capabilities", {}).get("drop", ()):
        yield from ("--inh-caps=-all", "--bounding-set=-all")
    if security.get("allowPrivilegeEscalation") is False:
        yield "--no-new-privs"
    yield "--"


@dataclass
class Container:
    """A running container."""

    process: subprocess.Popen[bytes]
    log: Path
    security: Mapping[str, Any]
    environment: Mapping[str, str]

    def text(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace")

    def run(self, *words: str, as_root: bool = False) -> str:
        """The output of a command in it, as its own user or with all rights that its mounts leave to root."""
        enter = ["nsenter", f"--target={self._first()}", "--mount", "--pid", "--ipc", "--uts", "--net", "--root", "--"]
        words = (*enter, *(() if as_root else _become(self.security)), *words)
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True).stdout

    def statuses(self) -> list[str]:
        """/proc/PID/status of each process in it."""
        self._first()
        (init,) = psutil.Process(self.process.pid).children()
        statuses = []
        for one in init.children(recursive=True):
            with contextlib.suppress(OSError):  # it has just ended
                statuses.append(Path(f"/proc/{one.pid}/status").read_text())
        return statuses

    def writable(self, as_root: bool = False) -> set[str]:
        """Every file and folder that may be written to, but for /proc and /dev, which a runtime makes."""
        seek = r"find / \( -path /proc -o -path /dev \) -prune -o ! -type l -writable -print; true"
        return set(self.run("sh", "-c", seek, as_root=as_root).splitlines())

    def _first(self) -> int:
        """The container's first process: bubblewrap's own is its parent, and has made everything when it is there."""
        while self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for init in psutil.Process(self.process.pid).children():
                    for first in init.children():
                        return first.pid
            time.sleep(0.01)
        raise RuntimeError(f"it has ended; its log:\n{self.text()}")

    def kill(self) -> None:
        """End it and everything in it."""
        self.process.kill()
        self.process.wait()
