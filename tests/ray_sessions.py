"""Ray for tests: a session in this process, and a cluster whose nodes, actors and drivers can be killed."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def ray_session():
    """A local Ray session of three CPUs that all tests of this process share."""
    import ray

    ray.init(
        address="local",
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 * 2**20,
    )
    yield
    ray.shutdown()


def start_job(job: str, *words: str, **env: str) -> subprocess.Popen:
    """A job in a process of its own, as a user would start it; both outputs are piped."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / job), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
    )


class KillableCluster:
    """A head without CPUs and one node that works; both raylets, the actors and whatever drives it can be killed."""

    def __init__(self, cpus: int = 2) -> None:
        from ray.cluster_utils import Cluster

        self.cpus = cpus
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 150 * 2**20}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.node = self._add_node()

    def _add_node(self):
        options = {"num_cpus": self.cpus, "object_store_memory": 150 * 2**20}
        for _ in range(2):  # on a busy machine a node may be too slow for Ray's own limits
            with contextlib.suppress(Exception):
                return self.cluster.add_node(**options)
        return self.cluster.add_node(**options)

    @property
    def address(self) -> str:
        return self.cluster.address

    def actors(self, kind: str = "MapWorker") -> list[psutil.Process]:
        """The processes of workers that have started: of units, or of another kind by a part of its name."""
        found = []
        for process in psutil.Process(self._raylet().pid).children():
            with contextlib.suppress(psutil.Error):  # some end while we look
                if kind in "".join(process.cmdline()):
                    found.append(process)
        return found

    def _raylet(self):
        return self.node.all_processes["raylet"][0].process

    def kill_node(self) -> None:
        """SIGKILL for the working node's raylet; a fresh node takes its place."""
        self._raylet().kill()
        self.cluster.remove_node(self.node, allow_graceful=False)
        self.node = self._add_node()

    def shutdown(self) -> None:
        self.cluster.shutdown()


@pytest.fixture(scope="module")
def gpu_cluster():
    """A head without CPUs and a node of pool l4-spot with what Ray takes for a GPU; jobs join by its address."""
    from ray.cluster_utils import Cluster

    options = {"include_dashboard": False, "object_store_memory": 150 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
    cluster.add_node(num_cpus=2, num_gpus=1, labels={"synthfer.io/pool": "l4-spot"}, object_store_memory=150 * 2**20)
    yield cluster
    cluster.shutdown()
