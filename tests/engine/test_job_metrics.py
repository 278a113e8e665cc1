"""What a job tells Prometheus while it runs, and what it says its GPUs have cost."""

import io
import json
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
import ray
from rich.console import Console

from synthfer.cli import STOPPED, Invocation
from synthfer.config import load
from synthfer.engine import monitoring
from synthfer.engine.audit import AuditJob
from synthfer.engine.audit import run as audit
from synthfer.engine.dataset_job import JobStats
from synthfer.engine.evaluate import EvaluateJob, evaluate
from synthfer.engine.generate import GenerateConfig, generate
from synthfer.engine.monitoring import BUSY_WINDOW, CostMeter, GenerationProgress, Metrics
from synthfer.engine.train import TrainJob, train
from synthfer.progress import Meter
from synthfer.schema import ConfigError
from synthfer.store import Dataset, Spec
from tests.engine.test_dataset_job import report
from tests.engine.test_evaluation_job import trained
from tests.metrics_page import Page, page_with, values_of
from tests.ray_sessions import start_job
from tests.training.classifier_trainings import FAST, data_at

FAILING = ("generator.name=simulated", "generator.failed_share=0.1", "engine.max_failed_share=0.5", "plan.unit_size=8")


def quiet() -> Invocation:
    return Invocation(Console(file=io.StringIO()), Console(file=io.StringIO()))


def run(out, *words) -> dict:
    return dict(generate(load(GenerateConfig, [f"out={out}", "plan.total=96", *words]), quiet()).summary)


def told(port: int, uri: str, stage: str, until: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """Our metrics of a job, without Ray's prefix, once they say what they should."""

    def ours(seen: Page) -> dict[str, float]:
        values = values_of(seen, "ray_synthfer", stage=stage, dataset=uri)
        return {name.removeprefix("ray_"): value for name, value in values.items()}

    return ours(page_with(port, lambda seen: until(ours(seen))))


def done(values: dict[str, float], **expected: float) -> bool:
    """Whether nothing is left to do, and all of the last values are on the page: they come there one by one."""
    return all(values.get(f"synthfer_{name}") == value for name, value in {"seconds_left": 0, **expected}.items())


@pytest.fixture
def lasting_metrics(monkeypatch) -> Iterator[None]:
    """The last values of a job stay on the page until the test ends: Ray forgets a gauge that is not set for 20 s.

    A busy machine may need longer than that until a test reads the page.
    """
    ended: list[Metrics] = []
    over, leave = threading.Event(), Metrics.__exit__

    def leave_and_keep(metrics: Metrics, *error) -> None:
        leave(metrics, *error)
        ended.append(metrics)

    def keep() -> None:
        while not over.wait(1):
            for metrics in ended:
                metrics._set(metrics.progress())

    monkeypatch.setattr(Metrics, "__exit__", leave_and_keep)
    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    yield
    over.set()
    keeper.join()


def session_port() -> int:
    return ray.nodes()[0]["MetricsExportPort"]


@pytest.mark.usefixtures("ray_session", "lasting_metrics")
def test_a_job_that_was_resumed_tells_of_the_whole_dataset_and_of_its_own_rows(tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "dataset"
    run(whole, *FAILING)
    spec = Dataset.open(str(whole)).spec
    begun = Dataset.create(str(out), spec)
    for unit in (0, 5):
        begun.store.put_new(spec.key(unit), (whole / spec.key(unit)).read_bytes())
    summary = run(out, *FAILING)
    rows = [row for batch in Dataset.open(str(out)).scan(["decision"]) for row in batch.to_pylist()]
    failed = [index for index, row in enumerate(rows) if row["decision"] == "failed" and index // 8 not in (0, 5)]
    seen = told(
        session_port(),
        str(out),
        "generate",
        lambda values: done(values, rows_failed=len(failed), units_committed=12, units_planned=12),
    )
    assert seen["synthfer_units_committed"] == seen["synthfer_units_planned"] == spec.units == 12
    assert seen["synthfer_rows_failed"] == len(failed) > 0
    assert seen["synthfer_failed_share"] == pytest.approx(len(failed) / 80)
    assert seen["synthfer_rejected_share"] == seen["synthfer_seconds_left"] == 0
    assert seen["synthfer_images_per_second"] > 0
    assert 0 < seen["synthfer_device_busy_share"] <= 1
    assert not seen.keys() & {"synthfer_gpu_hours", "synthfer_spend"}  # this session has no GPU
    assert not summary.keys() & {"gpu_hours", "spend"}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "lasting_metrics")
def test_a_training_tells_its_steps(tmp_path):
    out, faces = tmp_path / "runs", data_at(tmp_path)
    summary = train(load(TrainJob, [f"data={{faces: {faces}}}", f"out={out}", *FAST, "seeds=[0]"]), quiet()).summary
    assert summary["trained_now"] == 1
    seen = told(session_port(), str(out), "train", lambda values: done(values, steps_done=12, steps_planned=12))
    assert seen == {"synthfer_steps_done": 12, "synthfer_steps_planned": 12, "synthfer_seconds_left": 0}


@pytest.mark.usefixtures("ray_session", "lasting_metrics")
def test_an_evaluation_tells_its_blocks(tmp_path):
    experiment = trained(tmp_path / "exp", data_at(tmp_path), 0)
    test = data_at(tmp_path, "test", first=200, number=42, splits="test", unit_size=10)
    words = (f"checkpoints=[{experiment}]", f"datasets=[{test}]", "block=10", "replicates=100", "permutations=100")
    summary = evaluate(load(EvaluateJob, [f"out={tmp_path / 'matrix'}", *words]), quiet()).summary
    assert summary["test_sets"] == 1
    seen = told(
        session_port(),
        str(tmp_path / "matrix"),
        "evaluate",
        lambda values: done(values, blocks_done=5, blocks_planned=5),
    )
    assert seen == {"synthfer_blocks_done": 5, "synthfer_blocks_planned": 5, "synthfer_seconds_left": 0}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "lasting_metrics")
def test_an_audit_tells_its_blocks(tmp_path):
    train_on, test = data_at(tmp_path), data_at(tmp_path, "test", first=200, number=40, splits="test")
    words = (f"train={train_on}", f"test={test}", "train_block=32", "test_block=16", "canaries=4")
    audit(load(AuditJob, [f"out={tmp_path / 'audit'}", *words]), quiet())
    seen = told(
        session_port(), str(tmp_path / "audit"), "audit", lambda values: done(values, blocks_done=3, blocks_planned=3)
    )
    assert seen == {"synthfer_blocks_done": 3, "synthfer_blocks_planned": 3, "synthfer_seconds_left": 0}


def finished(job) -> tuple[dict, str]:
    out, err = job.communicate(timeout=240)
    assert job.returncode in (0, STOPPED), err
    return json.loads(out.splitlines()[-1]), err


GPU_JOB = (
    "--json", "generator.name=simulated", "generator.seconds_per_batch=0.5", "engine.gpus_per_worker=1",
    "engine.cpus_per_worker=0.5", "plan.unit_size=16",
)  # fmt: skip


@pytest.mark.slow
def test_gpu_hours_and_spend_are_told_while_they_grow_and_when_the_job_is_stopped(gpu_cluster, tmp_path):
    words = (*GPU_JOB, "plan.total=7000", "engine.prices={l4-spot: 2.5, h100: 9}")
    job = start_job("generate.py", f"out={tmp_path}", *words, RAY_ADDRESS=gpu_cluster.address)
    seen = told(
        gpu_cluster.head_node.metrics_export_port, str(tmp_path), "generate", lambda values: "synthfer_spend" in values
    )
    job.send_signal(signal.SIGTERM)
    summary, _ = finished(job)
    assert summary["code"] == STOPPED
    assert 0 < seen["synthfer_gpu_hours"] <= summary["gpu_hours"]
    assert seen["synthfer_spend"] == pytest.approx(2.5 * seen["synthfer_gpu_hours"])
    assert summary["spend"] == pytest.approx(2.5 * summary["gpu_hours"])


@pytest.mark.slow
def test_a_complete_job_tells_its_hours_and_no_spend_where_a_price_is_missing(gpu_cluster, tmp_path):
    words = (*GPU_JOB, "plan.total=32", "engine.prices={h100: 9}")
    job = start_job("generate.py", f"out={tmp_path}", *words, RAY_ADDRESS=gpu_cluster.address)
    summary, log = finished(job)
    assert summary["made_now"] == 32
    assert 0 < summary["gpu_hours"] <= summary["seconds"] / 3600
    assert "spend" not in summary
    assert log.count("no price for the GPUs of pool l4-spot, so the spend is not known; it has h100") == 1


def node(gpus: float = 0, alive: bool = True, **labels: str) -> dict:
    """As `ray.nodes()` has it."""
    return {"Alive": alive, "Resources": {"CPU": 4.0} | ({"GPU": gpus} if gpus else {}), "Labels": labels}


def test_a_bill_counts_all_gpus_that_live_by_their_pool():
    cost = CostMeter({"l4-spot": 0.5, "a100": 2.0, "gpu": 1.0})
    mine = {"synthfer.io/pool": "l4-spot", "ray.io/node-group": "workers"}
    nodes = [node(4, **mine), node(1, **mine), node(), node(8, alive=False), node(2, **{"ray.io/node-group": "a100"})]
    cost.add(nodes, 1800)
    cost.add([node(3)], 3600)
    assert cost.hours == {"l4-spot": 2.5, "a100": 1.0, "gpu": 3.0}
    assert cost.summary() == {"gpu_hours": 6.5, "spend": 2.5 * 0.5 + 2.0 + 3.0}


def test_without_gpus_or_prices_nothing_is_said_of_them():
    cost = CostMeter({})
    cost.add([node()], 3600)
    assert cost.summary() == {}
    cost.add([node(1)], 3600)
    assert cost.summary() == {"gpu_hours": 1.0}


def test_a_pool_without_a_price_is_told_once_and_leaves_no_spend(caplog):
    cost = CostMeter({"l4-spot": 1.0})
    for _ in range(3):
        cost.add([node(1, **{"synthfer.io/pool": "l4-spot"}), node(1, **{"synthfer.io/pool": "h100"})], 3600)
    assert caplog.text.count("no price for the GPUs of pool h100") == 1
    assert cost.summary() == {"gpu_hours": 6.0}


def test_a_price_below_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"engine\.prices"):
        load(GenerateConfig, ["out=x", "engine.prices={l4: -1}"])


def making(clock, committed: int = 0) -> tuple[GenerationProgress, Meter, JobStats]:
    meter, stats = Meter("images", 5000, quiet().status), JobStats()
    return (
        GenerationProgress(meter, stats, Spec(plan={}, producer={}, image={}, rows=5000, unit_size=50), committed),
        meter,
        stats,
    )


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands, until it is set."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_stalled_job_does_not_show_its_old_speed(clock):
    progress, meter, stats = making(clock)
    assert progress()["synthfer_device_busy_share"] is None  # nobody knows yet
    for unit in range(60):
        clock[0] += 10
        stats.add(report(unit, start=clock[0] - 10, end=clock[0] - 1))
        meter.add(50)
        seen = progress()
    assert seen["synthfer_images_per_second"] == pytest.approx(5, rel=0.2)
    assert seen["synthfer_device_busy_share"] == pytest.approx(0.9, abs=0.01)
    assert seen["synthfer_seconds_left"] == pytest.approx(400, rel=0.2)
    for _ in range(2 * round(BUSY_WINDOW / 5)):
        clock[0] += 5
        stalled = progress()
    assert stalled["synthfer_images_per_second"] < 0.6
    assert stalled["synthfer_device_busy_share"] == 0
    assert stalled["synthfer_seconds_left"] > 3600
    assert stalled["synthfer_units_committed"] == 60


def test_the_busy_share_is_that_of_the_last_minutes(clock):
    progress, _, stats = making(clock)
    for unit in range(200):
        clock[0] += 10
        busy = 9 if unit < 100 else 3
        stats.add(report(unit, start=clock[0] - 10, end=clock[0] - 10 + busy))
        share = progress()["synthfer_device_busy_share"]
    assert share == pytest.approx(0.3, abs=0.01)
    assert stats.device_busy == pytest.approx(0.6, abs=0.01)


def test_rejected_rows_and_units_of_others_are_told(clock):
    progress, _, stats = making(clock, committed=7)
    rejecting = report(0, rows=50)
    rejecting.receipt.counts["fear"].update(accepted=40, rejected=10)
    for one in (rejecting, report(1, rows=50, created=False)):
        stats.add(one)
    seen = progress()
    assert seen["synthfer_rejected_share"] == 0.2
    assert seen["synthfer_units_committed"] == 9


@pytest.mark.usefixtures("ray_session")
def test_no_fault_of_the_metrics_ends_a_job(monkeypatch, caplog):
    monkeypatch.setattr(monitoring, "REFRESH", 0.01)
    with Metrics("generate", "nowhere", {}) as ours:
        ours.progress = lambda: {"synthfer_units_planned": 1 / 0}
        ours._thread.join(0.2)
        assert ours._thread.is_alive()
    assert caplog.text.count("division by zero") == 1


def test_labels_are_none_that_prometheus_takes_for_itself():
    assert not {*monitoring.TAGS} & {"job", "instance", "namespace", "pod", "container", "endpoint"}
