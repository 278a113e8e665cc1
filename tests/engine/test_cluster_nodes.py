"""Jobs run on the nodes that they name, ask an autoscaler for no others, and let the rest sleep."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ray._raylet import GcsClient
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import ClusterResourceState, ResourceRequest

from synthfer.cli import FAILURE, STOPPED
from synthfer.config import load
from synthfer.engine.audit import AuditJob
from synthfer.engine.evaluate import EvaluateJob
from synthfer.engine.generate import GenerateConfig
from synthfer.engine.ingest import IngestConfig
from synthfer.engine.train import TaskJob, TrainJob
from synthfer.schema import ConfigError
from tests.engine.test_evaluation_job import trained
from tests.k8s.scale_plan import demand, gang
from tests.ray_sessions import ROOT, start_job
from tests.training.classifier_trainings import FAST, data_at

GENERATE, INGEST = ("out=x",), ("out=x", "source=avatars")
TRAIN, AUDIT = ("out=x", "data.faces=y"), ("train=x", "test=y", "out=z")
EVALUATE = ("checkpoints=[x]", "datasets=[y]", "out=z")
JOBS = {GenerateConfig: GENERATE, IngestConfig: INGEST, TrainJob: TRAIN, TaskJob: ("task=vae_gan", *TRAIN),
        AuditJob: AUDIT, EvaluateJob: EVALUATE}  # fmt: skip


@pytest.mark.parametrize("job", JOBS)
def test_every_job_says_its_nodes_in_one_word_or_a_file(job, tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("engine:\n  nodes:\n    - synthfer.io/pool: in(l4-spot, a100)\n      ray.io/market-type: spot\n")
    word = "engine.nodes=[{synthfer.io/pool: 'in(l4-spot, a100)', ray.io/market-type: spot}]"
    asked = {"synthfer.io/pool": "in(l4-spot,a100)", "ray.io/market-type": "spot"}
    for config in (load(job, JOBS[job], [file]), load(job, [*JOBS[job], word])):
        assert config.engine.placement == {"label_selector": asked}
    assert load(job, JOBS[job]).engine.placement == {}


def test_the_first_alternative_is_asked_for_and_the_others_are_fallbacks():
    word = "engine.nodes=[{ray.io/market-type: spot, ray.io/accelerator-type: L4}, {pool: '!cpu'}, {pool: h100}]"
    for job in (GenerateConfig, IngestConfig):
        asked = load(job, [*JOBS[job], word]).engine.worker_resources.ray_options
        assert asked["label_selector"] == {"ray.io/market-type": "spot", "ray.io/accelerator-type": "L4"}
        assert asked["fallback_strategy"] == [{"label_selector": {"pool": pool}} for pool in ("!cpu", "h100")]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("engine.nodes=cpu", "engine.nodes: expected list of map of text to text, got cpu"),
        ("engine.nodes={pool: cpu}", "engine.nodes: expected list of map of text to text, got {'pool': 'cpu'}"),
        ("engine.nodes=[{pool: 7}]", "engine.nodes: expected list of map of text to text, got [{'pool': 7}]"),
        ("engine.nodes=[{pool: in(a,b)}]", "engine.nodes: expected list of map of text to text"),  # without quotes
        ("engine.nodes=[{}]", "engine.nodes: an alternative without labels is any node"),
        ("engine.nodes=[{pool: 'in('}]", "engine.nodes: Invalid label selector value `in(`"),
        ("engine.nodes=[{pool: a}, {'a b': c}]", "engine.nodes: Invalid label key name `a b`"),
        ("engine.node=[{pool: a}]", "unknown key engine.node; did you mean engine.nodes?"),
    ],
)
def test_what_no_node_can_be_is_refused_by_its_key(word, said):
    with pytest.raises(ConfigError) as caught:
        load(GenerateConfig, [*GENERATE, word])
    assert str(caught.value).startswith(said)


def test_workers_of_a_training_have_no_second_choice():
    with pytest.raises(
        ConfigError, match=r"^engine\.nodes: .* start all at once or not at all, .* name one alternative"
    ):
        load(TrainJob, [*TRAIN, "engine.nodes=[{pool: a}, {pool: b}]"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that does no work, a node for CPUs, and a dear one."""
    options = {"object_store_memory": 100 * 2**20}
    head = {"num_cpus": 0, "include_dashboard": False, "labels": {"name": "one"}, **options}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=2, labels={"name": "two", "pool": "cpu"}, **options)
    cluster.add_node(num_cpus=2, num_gpus=2, labels={"name": "three", "pool": "a100", "kind": "dear"}, **options)
    yield cluster
    cluster.shutdown()


def state(cluster: Cluster) -> ClusterResourceState:
    """What the cluster tells its autoscaler."""
    return get_cluster_resource_state(GcsClient(address=cluster.address))


def test_labels_mean_to_us_what_they_mean_to_ray(cluster):
    """And the room that workers have is that of the nodes so named."""
    program, env = [sys.executable, "-m", "tests.engine.nodes_by_ray"], {**os.environ, "RAY_ADDRESS": cluster.address}
    told = subprocess.run(program, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    theirs, ours, rooms = json.loads(told.stdout.splitlines()[-1])
    assert theirs == ours and len(ours) == 11
    assert rooms == [[4, 2], [2, 0], [2, 2], [0, 0]]


def finished(driver: subprocess.Popen, *codes: int) -> dict:
    out, err = driver.communicate(timeout=240)
    assert driver.returncode in (0, *codes), err
    return json.loads(out.splitlines()[-1])


def slept(cluster: Cluster, since: float) -> bool:
    """Whether the dear node has done nothing since then, as its autoscaler sees it."""
    spent, _ = 1000 * (time.monotonic() - since), time.sleep(3)
    (dear,) = (node for node in state(cluster).node_states if node.labels.get("kind") == "dear")
    return dear.idle_duration_ms >= spent


def drawn(cluster: Cluster, out: object, *words: str) -> dict:
    words = ("source=avatars", "source.total=160", f"out={out}", "unit_size=8", "--json", *words)
    return finished(start_job("ingest.py", *words, RAY_ADDRESS=cluster.address))


@pytest.mark.slow
def test_work_for_cpus_leaves_a_dear_node_asleep(cluster, tmp_path):
    """The node would be taken away meanwhile, and never started. Nodes are no part of a dataset's contract."""
    cpu, address = "engine.nodes=[{pool: cpu}]", {"RAY_ADDRESS": cluster.address}
    time.sleep(3)  # the last test's work is over
    since, experiment = time.monotonic(), trained(tmp_path / "exp", data_at(tmp_path), 0)
    said = drawn(cluster, tmp_path / "drawn", cpu)
    test = data_at(tmp_path, "test", first=100, number=42, splits="test")
    words = (f"train={tmp_path / 'drawn'}", f"test={test}", f"out={tmp_path / 'audit'}", "train_block=16", cpu)
    finished(start_job("audit.py", "--json", *words, **address), FAILURE)  # drawn faces are much alike
    words = (f"checkpoints=[{experiment}]", f"datasets=[{test}]", f"out={tmp_path / 'matrix'}", "block=8", cpu)
    finished(start_job("evaluate.py", "--json", *words, "replicates=100", "permutations=100", **address))
    assert slept(cluster, since)
    since = time.monotonic()
    again = drawn(cluster, tmp_path / "other", "engine.max_workers=4")
    assert again["manifest_hash"] == said["manifest_hash"]
    assert drawn(cluster, tmp_path / "drawn")["made_now"] == 0
    assert not slept(cluster, since)  # what happens where no nodes are named


@contextmanager
def asking(cluster: Cluster, *words: str) -> Iterator[tuple[subprocess.Popen, ClusterResourceState]]:
    """A job whose nodes are not there, and what the cluster tells its autoscaler of it."""
    asked(cluster, False)  # Ray tells of a driver that has ended for a moment longer
    driver = start_job(*words, RAY_ADDRESS=cluster.address)
    try:
        yield driver, asked(cluster, True)
    finally:
        driver.kill()
        print(driver.communicate()[1])  # what pytest shows of a test that failed


def asked(cluster: Cluster, something: bool) -> ClusterResourceState:
    """What the cluster tells its autoscaler, once it does or does not ask for something."""
    deadline = time.monotonic() + 240
    while bool((now := state(cluster)).pending_resource_requests or now.pending_gang_resource_requests) != something:
        assert time.monotonic() < deadline, now
        time.sleep(0.2)
    return now


ABSENT = "engine.nodes=[{pool: nowhere, kind: '!dear'}, {pool: 'in(never,none)'}]"
SIMULATED = ("out=/tmp/never", "generator=simulated", "engine.gpus_per_worker=1", "engine.cpus_per_worker=0.5")


def test_an_autoscaler_hears_of_all_alternatives(cluster):
    """Which also shows that tests of scale plans ask for what jobs ask for."""
    with asking(cluster, "generate.py", *SIMULATED, ABSENT) as (driver, now):
        (request,) = now.pending_resource_requests
        driver.terminate()
        assert "no node has room for a worker yet" in driver.communicate(timeout=240)[1]
        assert driver.returncode == STOPPED  # it can be told to end while it waits
    wanted = demand(load(GenerateConfig, [*SIMULATED, ABSENT]).engine.worker_resources.ray_options)
    assert (plain(request.request), request.count) == (plain(wanted), 1)


@pytest.mark.slow
def test_a_gang_asks_for_all_its_nodes_at_once(cluster, tmp_path):
    selector = {"pool": "in(never,none)", "kind": "dear"}
    words = (f"data.faces={data_at(tmp_path)}", f"out={tmp_path / 'exp'}", *FAST, "engine.workers=3",
             "engine.gpus_per_worker=1", f"engine.nodes=[{json.dumps(selector)}]")  # fmt: skip
    with asking(cluster, "train.py", *words) as (_, now):
        (request,) = now.pending_gang_resource_requests
    wanted = gang({"CPU": 1, "GPU": 1}, selector, 3)
    found = [[plain(one) for one in each.bundle_selectors[0].resource_requests] for each in (request, wanted)]
    assert found[0] == found[1] and len(found[0]) == 3


def plain(request: ResourceRequest) -> tuple:
    """A request without the order that Ray gives to labels."""
    selectors = [
        sorted((one.label_key, one.operator, sorted(one.label_values)) for one in selector.label_constraints)
        for selector in request.label_selectors
    ]
    return dict(request.resources_bundle), selectors
