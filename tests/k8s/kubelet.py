"""Pods as processes of this machine: a kubelet without images, limits and networks of their own.

Each container runs the command of its manifest. What cannot be the same here is replaced in its words and variables:
the paths of its mounts, and the ports and names by which the parts of a Ray cluster find each other, since all pods
share one address. Environment, mounted ConfigMaps, secrets, readiness, SIGTERM, grace and SIGKILL are those of the
manifest.
"""

import base64
import contextlib
import itertools
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.k8s.api_objects import Object
from tests.k8s.api_server import ApiServer
from tests.k8s.network_lab import die_with_parent

_MARK = "PLAYED_CONTAINER"
_PLACE = r"(?<![\w.-])(?:{})(?![\w-])"


_numbers = itertools.cycle(range(24000, 32000))
"""Below those that the kernel gives to whoever asks for any port."""


def free_port() -> int:
    """A port that nobody uses, and that was not given out lately."""
    while True:
        port = next(_numbers)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True)
class PodSetup:
    """What a pod needs to run on this machine: texts to replace, words to add to a container's command, variables."""

    texts: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    ready_port: int = 0
    """Where the first container's readiness probe is answered; without one it is ready at once."""


@dataclass
class Container:
    """A running container. Whatever it has started, in whatever process group, has its mark."""

    mark: str
    process: subprocess.Popen[bytes]
    cleared: bool = False

    @classmethod
    def start(cls, mark: str, words: list[str], env: Mapping[str, str], log: Path) -> "Container":
        with log.open("ab") as out:
            process = subprocess.Popen(
                words, env={**env, _MARK: mark}, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        return cls(mark, process)

    @property
    def code(self) -> int | None:
        """Its exit code; with its first process the others go, too."""
        code = self.process.poll()
        if code is not None and not self.cleared:
            self.kill()
        return code

    def kill(self) -> None:
        """SIGKILL for everything in it."""
        while processes := list(self._processes()):
            for one in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        self.process.wait()
        self.cleared = True

    def _processes(self) -> Iterator[psutil.Process]:
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if one.status() != psutil.STATUS_ZOMBIE and one.environ().get(_MARK) == self.mark:
                    yield one


@dataclass
class _Pod:
    containers: dict[str, Container]
    ready_port: int
    codes: dict[str, int | None]
    ready: bool = False
    kill_at: float | None = None


@dataclass
class Kubelet:
    """Runs the pods of a server. `image` are the variables of the image, `here` those of this machine, which win; logs
    and volumes lie in `folder`.

    `setups` are what pods need here, by name; a pod without one waits. Only one Ray node starts at a
    time: `ray start` gives up after 30 s, which is little where all of them share two cores.
    """

    server: ApiServer
    folder: Path
    image: Mapping[str, str]
    here: Mapping[str, str]
    setups: dict[str, PodSetup] = field(default_factory=dict)
    outstayed: set[str] = field(default_factory=set)
    """Pods that had not ended when their grace was over."""
    _running: dict[tuple[str, str], _Pod] = field(default_factory=dict)

    def step(self) -> None:
        """Looks once at every pod."""
        there = {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in self._pods()}
        for key in self._running.keys() - there.keys():
            self._end(key)  # taken away by force
        for key, manifest in there.items():
            if key in self._running:
                self._look(key, manifest)
            elif "status" not in manifest and key[1] in self.setups and not self._starting():
                self._start(key, manifest)

    def kill(self, name: str, namespace: str) -> None:
        """SIGKILL for all of a pod at once: what a lost node does to it."""
        for one in self._running[namespace, name].containers.values():
            one.kill()

    def mounts(self, pod: Object) -> dict[str, str]:
        """Where the volumes of a pod's first container lie here, by the path that the container has for them."""
        folder = self.folder / pod["metadata"]["namespace"] / pod["metadata"]["name"] / "volumes"
        return {at: str(folder / name) for name, at in _mounts(pod["spec"]["containers"][0])}

    def stop(self) -> None:
        """SIGKILL for everything."""
        for key in list(self._running):
            self._end(key)

    def _pods(self) -> list[Object]:
        return self.server.objects.select("v1/Pod")

    def _starting(self) -> bool:
        alive = (pod for pod in self._running.values() if pod.kill_at is None and set(pod.codes.values()) == {None})
        return any(not pod.ready for pod in alive)

    def _start(self, key: tuple[str, str], manifest: Object) -> None:
        namespace, name = key
        folder, setup, spec = self.folder / namespace / name, self.setups[name], manifest["spec"]
        folder.mkdir(parents=True)
        for one in spec.get("volumes", ()):
            self._fill(folder / "volumes" / one["name"], one, namespace)
        containers = {}
        for one in spec["containers"]:
            texts = {**setup.texts, **{at: str(folder / "volumes" / volume) for volume, at in _mounts(one)}}
            variables = {**self.image, **self._variables(manifest, one)}
            env = {key: _placed(value, texts) for key, value in variables.items()}
            env |= {**self.here, **setup.env, **self.server.pod_env}
            words = [_placed(_expanded(word, env), texts) for word in (*one["command"], *one.get("args", ()))]
            words[-1] += setup.words.get(one["name"], "")
            mark = f"{manifest['metadata']['uid']}/{one['name']}"
            containers[one["name"]] = Container.start(mark, words, env, folder / f"{one['name']}.log")
        self._running[key] = _Pod(containers, setup.ready_port, dict.fromkeys(containers))
        self.server.objects.patch("v1/Pod", name, namespace, "merge-patch", {"spec": {"nodeName": "here"}})
        self._report(key, "Running")

    def _look(self, key: tuple[str, str], manifest: Object) -> None:
        pod = self._running[key]
        codes = {name: one.code for name, one in pod.containers.items()}
        if "deletionTimestamp" in manifest["metadata"]:
            self._terminate(key, manifest, all(code is not None for code in codes.values()))
        elif codes != pod.codes:
            pod.codes, pod.ready = codes, False
            ended = None not in codes.values()
            self._report(key, ("Failed" if any(codes.values()) else "Succeeded") if ended else "Running")
        elif not pod.ready and not any(codes.values()) and _answers(pod.ready_port):
            pod.ready = True
            self._report(key, "Running")

    def _terminate(self, key: tuple[str, str], manifest: Object, ended: bool) -> None:
        pod = self._running[key]
        if pod.kill_at is None:
            pod.kill_at = time.monotonic() + manifest["metadata"]["deletionGracePeriodSeconds"]
            for one in pod.containers.values():
                if one.code is None:
                    one.process.send_signal(signal.SIGTERM)
        elif ended or time.monotonic() > pod.kill_at:
            if not ended:
                self.outstayed.add(key[1])
            self._end(key)

    def _end(self, key: tuple[str, str]) -> None:
        for one in self._running.pop(key).containers.values():
            one.kill()
        if self.server.objects.find("v1/Pod", key[1], key[0]):
            self.server.objects.remove("v1/Pod", key[1], key[0])

    def _report(self, key: tuple[str, str], phase: str) -> None:
        pod = self._running[key]
        statuses = [
            {
                "name": name, "ready": pod.ready, "state": _state(one.code), "restartCount": 0,
                "image": "synthfer", "imageID": "synthfer",
            }
            for name, one in pod.containers.items()
        ]  # fmt: skip
        ready = {"type": "Ready", "status": str(pod.ready and phase == "Running")}
        status = {"phase": phase, "conditions": [ready], "podIP": "127.0.0.1", "containerStatuses": statuses}
        self.server.objects.set_status("v1/Pod", key[1], key[0], status)

    def _fill(self, folder: Path, volume: Mapping[str, Any], namespace: str) -> None:
        folder.mkdir(parents=True)
        if source := volume.get("configMap"):
            config_map = self.server.objects.get("v1/ConfigMap", source["name"], namespace)
            for name, text in config_map.get("data", {}).items():
                (folder / name).write_text(text)

    def _variables(self, manifest: Object, container: Mapping[str, Any]) -> dict[str, str]:
        variables: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            if ref := source.get("configMapRef"):
                there = self.server.objects.find("v1/ConfigMap", ref["name"], manifest["metadata"]["namespace"])
                if there is None and not ref.get("optional"):
                    raise ValueError(f"no ConfigMap {ref['name']}")
                variables |= (there or {}).get("data", {})
        return variables | {one["name"]: self._value(manifest, one) for one in container.get("env", ())}

    def _value(self, manifest: Object, variable: Mapping[str, Any]) -> str:
        source = variable.get("valueFrom", {})
        if ref := source.get("secretKeyRef"):
            secret = self.server.objects.get("v1/Secret", ref["name"], manifest["metadata"]["namespace"])
            return base64.b64decode(secret["data"][ref["key"]]).decode()
        if source:
            path = source["fieldRef"]["fieldPath"].removeprefix("metadata.")
            label = re.fullmatch(r"labels\['(.+)'\]", path)
            return str(manifest["metadata"]["labels"][label[1]] if label else manifest["metadata"][path])
        return str(variable.get("value", ""))


def _mounts(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for one in container.get("volumeMounts", ()):
        if one["mountPath"] != "/dev/shm":
            yield one["name"], one["mountPath"]


def _placed(text: str, texts: Mapping[str, str]) -> str:
    """The text with what is called otherwise here, the longest names first, and each place replaced once."""
    if not texts:
        return text
    names = "|".join(re.escape(one) for one in sorted(texts, key=len, reverse=True))
    return re.sub(_PLACE.format(names), lambda match: texts[match[0]], text)


def _expanded(word: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` as the kubelet writes it out."""
    return re.sub(r"\$\((\w+)\)", lambda match: env.get(match[1], match[0]), word)


def _state(code: int | None) -> dict[str, Any]:
    return {"running": {}} if code is None else {"terminated": {"exitCode": code % 256}}


def _answers(port: int) -> bool:
    """Whether the readiness probe of a Ray pod passes."""
    if not port:
        return True
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def remove_folder(folder: Path) -> None:
    """What the processes that were killed may still be writing into goes, too."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    raise OSError(f"{folder} cannot be removed: {list(folder.rglob('*'))[:3]}")
