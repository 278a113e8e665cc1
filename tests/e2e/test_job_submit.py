"""The README's way: a head, a job submitted to it, the dataset; with token authentication and without."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synthfer.store import Dataset
from tests.ray_sessions import ROOT

RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(params=[pytest.param("disabled", marks=pytest.mark.slow), "token"])
def head(request, tmp_path_factory):
    """`ray start --head` with its own ports and folders; the environment that its clients need."""
    folder = Path("/tmp") / f"sf-{os.getpid()}-{request.param}"  # Ray's sockets need a short path
    env = {**os.environ, "RAY_AUTH_MODE": request.param, "HOME": str(tmp_path_factory.mktemp("home"))}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    env.pop("PYTHONPATH")  # what runs is what the checkout has
    if request.param == "token":
        env["RAY_AUTH_TOKEN"] = "0123456789abcdef0123456789abcdef"
    dashboard = free_port()
    options = {
        "port": free_port(), "dashboard-port": dashboard, "temp-dir": folder, "num-cpus": 2,
        "object-store-memory": 150_000_000, "ray-client-server-port": free_port(),
        "dashboard-agent-listen-port": free_port(),
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in options.items()]
    process = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--disable-usage-stats", *words],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    yield env | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    subprocess.run(["rm", "-rf", str(folder)], check=False)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A clean checkout: the files that git knows or would add, and nothing that was built or made here."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def submit(env: dict[str, str], checkout: Path, *words: str) -> subprocess.CompletedProcess:
    """`ray job submit` from the root of the checkout, tried again while the head is still starting."""
    command = [RAY, "job", "submit", "--working-dir", ".", "--", "python", *words]
    deadline = time.monotonic() + 240
    while True:
        done = subprocess.run(command, env=env, cwd=checkout, capture_output=True, text=True, check=False)
        unreachable = "Failed to connect" in done.stderr + done.stdout
        if not unreachable or time.monotonic() > deadline:
            return done
        time.sleep(1)


def test_a_submitted_job_makes_the_dataset_and_tells_its_exit_code(head, checkout, tmp_path):
    out = tmp_path / "dataset"
    words = ("jobs/generate.py", f"out={out}", "--json", "generator.name=simulated", "plan.total=70")
    done = submit(head, checkout, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = next(json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"uri"'))
    assert summary["rows"] == 70
    assert Dataset.open(str(out)).manifest.manifest_hash == summary["manifest_hash"]
    wrong = submit(head, checkout, "jobs/generate.py", f"out={out}", "plan.totl=70")
    assert wrong.returncode != 0
    assert "plan.total" in wrong.stdout + wrong.stderr
