"""Prometheus for tests: rules checked and tested by promtool, and a server that scrapes what runs here."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml


def tool(name: str) -> str:
    """promtool or prometheus: what PROMTOOL or PROMETHEUS says, or the one on PATH; skips, or fails where CI is set."""
    path = os.environ.get(name.upper()) or shutil.which(name)
    if not path:
        missing = f"no {name}: it is in Debian's package prometheus; {name.upper()} may say where it is"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return path


def check(folder: Path, groups: Sequence[Any]) -> str:
    """What promtool has against the rules; empty if nothing."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    return _said("check", "rules", folder / "rules.yaml")


def failures(folder: Path, groups: Sequence[Any], tests: Path) -> str:
    """What of a file of promtool's unit tests the rules do not meet; empty if nothing."""
    shutil.copy(tests, folder / "alerts_test.yaml")
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    return _said("test", "rules", folder / "alerts_test.yaml")


def _said(*words: str | Path) -> str:
    done = subprocess.run([tool("promtool"), *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


class Prometheus:
    """A running server; `find` asks it a query."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def find(self, query: str) -> list[dict[str, Any]]:
        """The samples that a query finds now."""
        words = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{words}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def wait_for(self, query: str, patience: float = 240) -> list[dict[str, Any]]:
        """The samples of a query once it finds some."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if samples := self.find(query):
                    return samples
            time.sleep(0.5)
        raise AssertionError(f"nothing was found in {patience:g} s by {query}")


@contextlib.contextmanager
def prometheus(folder: Path, targets: Mapping[int, Mapping[str, str]]) -> Iterator[Prometheus]:
    """A server that scrapes ports of this machine every second, and gives each the labels of its pod."""
    static = [{"targets": [f"127.0.0.1:{port}"], "labels": dict(labels)} for port, labels in targets.items()]
    scrape = [{"job_name": "ray", "static_configs": static}]
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": scrape}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = {"config.file": folder / "prometheus.yaml", "storage.tsdb.path": folder / "data"}
    words |= {"web.listen-address": f"127.0.0.1:{port}", "log.level": "error"}
    server = subprocess.Popen([tool("prometheus"), *(f"--{name}={value}" for name, value in words.items())])
    try:
        yield Prometheus(port)
    finally:
        server.terminate()
        server.wait(30)
