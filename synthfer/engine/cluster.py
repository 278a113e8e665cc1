"""The Ray cluster of a job: the session, the nodes that its workers may run on, and what each worker needs there."""

import logging
import math
import os
import secrets
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import ray

from synthfer.label_selectors import matches
from synthfer.limits import MAX_GPUS, MAX_THREADS
from synthfer.schema import option

log = logging.getLogger(__name__)

# `ray start` writes the address of its cluster to this file and `ray stop` removes it.
_ADDRESS_FILE = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
# A worker that asks for no CPU still uses some; this keeps the number of such workers finite.
_LEAST_CPUS = 0.01


@dataclass(frozen=True)
class ClusterResources:
    """What a job's nodes have at this moment; an autoscaling cluster may grow beyond it."""

    cpus: int = 0
    gpus: int = 0


@dataclass(frozen=True)
class WorkerResources:
    """What Ray keeps free for one worker, and on which nodes."""

    cpus: float
    gpus: float | None = 0.0
    """None: one where the cluster has GPUs, else none; `resolved` decides."""
    accelerator_type: str | None = None
    placement: Mapping[str, Any] = field(default_factory=dict)
    """Ray's options for node labels, from `NodeConfig.placement`."""

    def resolved(self, available: ClusterResources) -> Self:
        """The same with the number of GPUs filled in."""
        return replace(self, gpus=float(available.gpus > 0)) if self.gpus is None else self

    @property
    def ray_options(self) -> dict[str, Any]:
        """Options of a Ray task, actor or map."""
        kind = {"accelerator_type": self.accelerator_type} if self.accelerator_type else {}
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, **kind, **self.placement}

    @property
    def bundle(self) -> dict[str, float]:
        """Resources by Ray's names, as placement groups and Ray Train take them."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})

    def capacity(self, available: ClusterResources) -> float:
        """How many such workers the resources have room for; a part of a worker counts as a fraction."""
        return min(available.cpus / max(self.cpus, _LEAST_CPUS), available.gpus / self.gpus if self.gpus else math.inf)


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """Keys: which nodes a job's workers run on, by labels, and what these cost; no result depends on them.

    A job that names no nodes uses any, so work for CPUs may land on a node with GPUs and keep it from scaling down.
    `ValueError`: labels that no node can have.
    """

    nodes: list[dict[str, str]] = option(
        [],
        "labels of the nodes to run on, as [{pool: l4}, {pool: h100}]: the next alternative is for what the ones "
        "before have no room for. A value may be '!cpu' or 'in(l4,h100)'; of several pools in one alternative a "
        "cluster that grows starts the one with the highest priority that did not fail lately (empty: any node)",
    )
    prices: dict[str, float] = option(
        {}, "price of one GPU-hour by pool, as {l4-spot: 0.25}: the job reports what it spends", low=0
    )

    def __post_init__(self) -> None:
        if not all(self.nodes):
            raise ValueError("nodes: an alternative without labels is any node; name a label, or leave nodes out")
        try:
            ray.remote(_no_operation).options(**self.placement)  # Ray checks labels when options are set
        except ValueError as error:
            raise ValueError(f"nodes: {error}") from error

    @property
    def placement(self) -> dict[str, Any]:
        """Ray's options for tasks and actors on these nodes."""
        # Ray takes the space in `in(a, b)` for a part of b, and finds no such node.
        selectors = [{key: value.replace(" ", "") for key, value in selector.items()} for selector in self.nodes]
        if not selectors:
            return {}
        others = [{"label_selector": selector} for selector in selectors[1:]]
        return {"label_selector": selectors[0]} | ({"fallback_strategy": others} if others else {})

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a node with these labels may be used."""
        return not self.nodes or any(matches(labels, selector) for selector in self.nodes)


@dataclass(frozen=True, kw_only=True)
class WorkerConfig(NodeConfig):
    """Keys: what one worker of a job needs, on which nodes."""

    cpus_per_worker: float = option(1.0, "CPUs that Ray keeps free for one worker", low=0, high=MAX_THREADS)

    @property
    def worker_resources(self) -> WorkerResources:
        """What Ray keeps free for one worker."""
        return WorkerResources(self.cpus_per_worker, placement=self.placement)


@dataclass(frozen=True, kw_only=True)
class GpuWorkerConfig(WorkerConfig):
    """Keys: the same for workers that may use GPUs. `ValueError`: a number of GPUs that no worker can have."""

    gpus_per_worker: float | None = option(
        None, "GPUs of one worker, may be a fraction (null: 1 where the cluster has GPUs, else 0)", low=0, high=MAX_GPUS
    )
    accelerator_type: str | None = option(
        None, "kind of GPU to insist on, by Ray's name: H100, A100, L4 ... (starts no pool; use nodes for that)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        gpus = self.gpus_per_worker
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus_per_worker: {gpus} is neither a whole number nor a fraction of one GPU")

    @property
    def worker_resources(self) -> WorkerResources:
        """What Ray keeps free for one worker."""
        return WorkerResources(self.cpus_per_worker, self.gpus_per_worker, self.accelerator_type, self.placement)


@contextmanager
def session(nodes: NodeConfig | None = None) -> Iterator[ClusterResources]:
    """Joins the running cluster (`RAY_ADDRESS`, a Ray job, `ray start` on this machine) or starts a local one.

    A local session can be reached from this machine and this user only. A session that is already open in this
    process is used and left open. Yields the resources of `nodes`, or of all nodes.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    owned = not ray.is_initialized()
    if owned:
        on_sigterm = signal.getsignal(signal.SIGTERM)
        _connect()
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler would end the cluster under a running job
    _silence_ray_data()
    try:
        yield _available(nodes or NodeConfig())
    finally:
        if owned:
            ray.shutdown()


@contextmanager
def unwrap_ray_errors() -> Iterator[None]:
    """Raises an error of a task or an actor as what it was there, however many tasks it came through."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause: Exception = error
        while isinstance(cause, ray.exceptions.RayTaskError):
            cause = cause.cause
        raise cause from None


def _available(nodes: NodeConfig) -> ClusterResources:
    """The sum over the matching nodes that are alive."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"] and nodes.matches(node["Labels"])]
    cpus, gpus = (sum(node.get(kind, 0) for node in resources) for kind in ("CPU", "GPU"))
    return ClusterResources(int(cpus), int(gpus))


def _connect() -> None:
    options = {"logging_level": "ERROR", "log_to_driver": False}
    if address := os.environ.get("RAY_ADDRESS") or _running_cluster():
        ray.init(address=address, **options)
        log.info("joined the Ray cluster at %s", ray.get_runtime_context().gcs_address)
        return
    if not os.environ.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        # By default Ray keeps a token in the home folder, which changes how later clusters of this user start.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray.init(address="local", include_dashboard=False, **options)
    log.info("started a local Ray session")


def _running_cluster() -> str | None:
    """The address of the cluster that `ray start` started on this machine, if it still answers.

    A cluster that was killed leaves its address file behind. Ray's own search would then join any other Ray that runs
    on this machine, such as the session of another job, and this job would fail when that one ends.
    """
    try:
        address = _ADDRESS_FILE.read_text().strip()
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=3):
            return address
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        log.warning("the Ray cluster in %s does not answer; this job starts a session of its own", _ADDRESS_FILE)
        return None


def _silence_ray_data() -> None:
    """Shows our one progress line instead of Ray Data's; its messages stay in its own log files."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _no_operation() -> None:
    pass
