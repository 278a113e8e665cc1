"""The generation job on real Ray workers: same bytes whatever the workers, failures reported, runs resumed."""

import io

import pytest
from rich.console import Console

from synthfer.cli import Invocation, Stopped
from synthfer.config import load
from synthfer.engine import dataset_job
from synthfer.engine.dataset_job import TooManyFailures
from synthfer.engine.generate import GenerateConfig, Probe, generate, preview
from synthfer.planning import open_plan
from synthfer.schema import ConfigError
from synthfer.store import Dataset, SpecMismatch

pytestmark = pytest.mark.usefixtures("ray_session")
FAILING = "generator.name=tests.engine.failing_generators"
SIMULATED = ("generator.name=simulated", "generator.seconds_per_batch=0.01")


def invocation() -> Invocation:
    return Invocation(Console(file=io.StringIO()), Console(file=io.StringIO()))


def run(out, *words) -> dict:
    """The job's summary."""
    return dict(generate(load(GenerateConfig, [f"out={out}", "plan.total=96", *words]), invocation()).summary)


def images(out) -> dict[str, bytes]:
    batches = Dataset.open(str(out)).scan(["sample_id", "image"])
    return {row["sample_id"]: row["image"]["bytes"] for batch in batches for row in batch.to_pylist() if row["image"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A dataset made by one worker in units of eight."""
    out = tmp_path_factory.mktemp("whole") / "dataset"
    return out, run(out, *SIMULATED, "plan.unit_size=8", "engine.max_workers=1")


def test_every_row_of_the_plan_is_there_once_in_plan_order(whole):
    out, summary = whole
    dataset = Dataset.open(str(out))
    plan = open_plan(dataset)
    ids = [i for batch in dataset.scan(["sample_id"]) for i in batch.column("sample_id").to_pylist()]
    assert ids == [row.sample_id for row in plan.rows(range(96))]
    assert summary["rows"] == summary["made_now"] == 96
    assert dataset.verify(pixels=True) == []


def test_three_workers_give_the_same_bytes_as_one(whole, tmp_path):
    out, summary = whole
    again = run(tmp_path / "d", *SIMULATED, "plan.unit_size=8", "engine.max_workers=3", "engine.min_workers=3")
    assert again["manifest_hash"] == summary["manifest_hash"]
    assert images(tmp_path / "d") == images(out)


def test_other_units_give_the_same_bytes_and_the_same_hash(whole, tmp_path):
    out, summary = whole
    again = run(tmp_path / "d", *SIMULATED, "plan.unit_size=37")
    assert images(tmp_path / "d") == images(out)
    assert again["manifest_hash"] == summary["manifest_hash"]


def test_a_complete_dataset_is_left_alone(whole):
    out, summary = whole
    again = run(out, *SIMULATED)  # the unit size is that of the dataset, whatever a probe would say
    assert again["manifest_hash"] == summary["manifest_hash"]
    assert again["made_now"] == 0


def test_missing_units_are_made_and_no_others(whole, tmp_path):
    out, summary = whole
    words = (*SIMULATED, "plan.unit_size=8")
    spec = Dataset.open(str(out)).spec
    part = Dataset.create(str(tmp_path / "d"), spec)
    for unit in (0, 5):
        part.store.put_new(spec.key(unit), (out / spec.key(unit)).read_bytes())
    again = run(tmp_path / "d", *words)
    assert again["made_now"] == 96 - 16
    assert again["manifest_hash"] == summary["manifest_hash"]


def test_blocks_of_many_units_are_made_whole(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_job, "MAX_BLOCKS", 2)  # as in a job of very many units
    summary = run(tmp_path / "d", *SIMULATED, "plan.unit_size=8")
    assert summary["made_now"] == 96
    assert summary["manifest_hash"] == whole[1]["manifest_hash"]


def test_another_plan_at_the_same_place_is_refused_with_the_difference(whole):
    out, _ = whole
    with pytest.raises(SpecMismatch, match=r"plan\.seed: 0 in the dataset, 7 requested"):
        run(out, *SIMULATED, "plan.seed=7")
    with pytest.raises(SpecMismatch, match=r"image\.format"):
        run(out, *SIMULATED, "image.format=png")


def test_failed_rows_are_committed_with_their_reason(tmp_path):
    summary = run(tmp_path / "d", *SIMULATED, "generator.failed_share=0.1", "engine.max_failed_share=0.5")
    failed = sum(decisions.get("failed", 0) for decisions in summary["counts"].values())
    assert 0 < failed < 40
    rows = [row for b in Dataset.open(str(tmp_path / "d")).scan() for row in b.to_pylist()]
    assert len(rows) == 96
    assert {row["reason"] for row in rows if row["decision"] == "failed"} == {"simulated failure"}


def test_too_many_failed_rows_stop_the_job_and_leave_it_unsealed(tmp_path):
    words = (*SIMULATED, "generator.failed_share=0.4")
    for _ in range(2):  # and again when all that is left is to seal it
        with pytest.raises(TooManyFailures, match="max_failed_share"):
            run(tmp_path / "d", *words)
    assert Dataset.open(str(tmp_path / "d")).manifest is None
    assert run(tmp_path / "d", *words, "engine.max_failed_share=1")["rows"] == 96


def test_out_of_memory_halves_the_batch_once_for_the_whole_dataset(tmp_path, caplog):
    summary = run(tmp_path / "d", FAILING, "generator.room=8", "plan.unit_size=16")
    assert summary["rows"] == 96
    assert "halved" in caplog.text
    assert (tmp_path / "d" / "_shape.json").exists()
    again = run(tmp_path / "e", FAILING, "generator.room=8")  # found out by the probe this time
    assert again["manifest_hash"] == summary["manifest_hash"]


def test_a_device_too_small_for_half_a_batch_is_a_clear_failure(tmp_path):
    with pytest.raises(TooManyFailures, match="in a row"):
        run(tmp_path / "d", FAILING, "generator.room=4", "plan.unit_size=16")


def test_a_broken_device_ends_the_job_with_its_error(tmp_path, caplog):
    with pytest.raises(TooManyFailures):
        run(tmp_path / "d", FAILING, "generator.broken=true", "plan.unit_size=16")
    assert "the device is gone" in caplog.text


@pytest.mark.slow
def test_a_unit_that_kills_its_worker_is_named_and_the_others_are_made(tmp_path):
    words = (FAILING, "generator.fatal_row=20", "plan.unit_size=16", "engine.max_unit_retries=1")
    with pytest.raises(Stopped, match=r"1 of 6 units are left \(unit 1\)"):
        run(tmp_path / "d", *words)
    assert Dataset.open(str(tmp_path / "d")).missing().tolist() == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("engine.min_workers=9", "engine.max_workers=2"), r"engine\.min_workers: 9"),
        (("engine.gpus_per_worker=1.5",), r"engine\.gpus_per_worker: 1\.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "d", *SIMULATED, *words)


def test_a_dry_run_makes_nothing_and_estimates_from_a_probe(tmp_path):
    words = [f"out={tmp_path / 'd'}", *SIMULATED, "plan.total=70000", "engine.probe=true", "engine.probe_seconds=0.2"]
    facts = preview(load(GenerateConfig, words), invocation()).summary
    assert facts["images"] == 70000
    assert facts["seconds"] > 0
    assert not (tmp_path / "d").exists()


def test_the_estimate_counts_all_workers():
    estimate = Probe({}, 16, 10.0, 1000.0).estimate(36_000, workers=4, gpus_per_worker=0.5)
    assert estimate["seconds"] == 900
    assert estimate["gpu_hours"] == 0.5
    assert estimate["bytes"] == 36_000_000


def test_diffusion_gives_the_same_bytes_from_one_worker_and_three(tmp_path):
    words = ("plan.total=14", "generator.batch_size=4", "generator.steps=2", "engine.cpus_per_worker=0.5")
    one = run(tmp_path / "one", *words, "plan.unit_size=5", "engine.max_workers=1")
    three = run(tmp_path / "three", *words, "plan.unit_size=3", "engine.max_workers=3", "engine.min_workers=3")
    assert one["manifest_hash"] == three["manifest_hash"]
    assert images(tmp_path / "one") == images(tmp_path / "three")


def test_a_gate_rejects_with_a_reason_and_stands_in_the_spec(tmp_path):
    words = ("plan.total=14", "gate=blank", "gate.blank.min_contrast=77")
    run(tmp_path / "d", *SIMULATED, *words)
    dataset = Dataset.open(str(tmp_path / "d"))
    assert dataset.spec.producer["gates"] == {"blank": {"min_contrast": 77.0}}
    samples = [row for batch in dataset.scan() for row in batch.to_pylist()]
    assert {row["decision"] for row in samples} == {"accepted", "rejected"}
    for row in samples:
        (score,) = row["scores"]
        assert score["gate"] == "contrast"
        assert row["reason"] == (None if score["value"] >= 77 else f"contrast {score['value']:.3f} is below 77")
        assert (row["decision"] == "rejected") == (row["reason"] is not None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gate=edits",), "gate: edits compares pictures with faces, and rows of plan prompts have none"),
        (("gate=blnk",), "gate: unknown gate 'blnk'; did you mean 'blank'"),
        (("gate.blank.min_contrast=200",), r"gate\.blank\.min_contrast: expected number from 0 to 127\.5"),
    ],
)
def test_gates_that_cannot_be_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        load(GenerateConfig, ["out=x", *SIMULATED, *words])
