"""A Ray session: join the cluster that this process belongs to, or start a local one that nobody else can reach."""

import logging
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray

from synthfer.engine.nodes import Nodes

log = logging.getLogger(__name__)

# `ray start` leaves the address of its cluster in this file and `ray stop` removes it.
_STARTED_HERE = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"


@dataclass(frozen=True)
class Resources:
    """What the nodes of a job have at this moment; an autoscaling cluster may grow beyond it."""

    cpus: int
    gpus: int


@contextmanager
def session(nodes: Nodes | None = None) -> Iterator[Resources]:
    """Joins the running cluster (`RAY_ADDRESS`, a Ray job, `ray start` on this machine) or starts a local one.

    A session that is already open in this process is used and left open. The resources are those of `nodes`, or all.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    owned = not ray.is_initialized()
    if owned:
        on_sigterm = signal.getsignal(signal.SIGTERM)
        _connect()
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler would end the cluster under a running job
    _quiet()
    try:
        yield _resources(nodes or Nodes())
    finally:
        if owned:
            ray.shutdown()


def _resources(nodes: Nodes) -> Resources:
    """What the living ones of some nodes have."""
    there = [node["Resources"] for node in ray.nodes() if node["Alive"] and nodes.take(node["Labels"])]
    cpus, gpus = (sum(node.get(kind, 0) for node in there) for kind in ("CPU", "GPU"))
    return Resources(int(cpus), int(gpus))


def _connect() -> None:
    options = {"logging_level": "ERROR", "log_to_driver": False}
    if address := os.environ.get("RAY_ADDRESS") or _started_here():
        ray.init(address=address, **options)
        log.info("joined the Ray cluster at %s", ray.get_runtime_context().gcs_address)
        return
    if not os.environ.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        # Left to itself Ray keeps a token in the home folder, which changes how later clusters of this user start.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray.init(address="local", include_dashboard=False, **options)
    log.info("started a local Ray session")


def _started_here() -> str | None:
    """The address of the cluster that `ray start` began on this machine, if it is still there.

    One that was killed leaves its file behind, and Ray's own search would then join whatever else runs here, as the
    session of another job, and fall with it.
    """
    try:
        address = _STARTED_HERE.read_text().strip()
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=3):
            return address
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        log.warning("the Ray cluster in %s is gone; this job starts a session of its own", _STARTED_HERE)
        return None


def _quiet() -> None:
    """One progress line of ours instead of Ray Data's; what it has to say stays in its own log files."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
