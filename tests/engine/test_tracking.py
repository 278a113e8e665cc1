"""Tracked numbers: TensorBoard's files and MLflow's store have each step once, through kills of workers or driver."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from synthfer.engine.tracking import LogConfig, Tracker
from synthfer.schema import ConfigError
from tests.engine.event_files import events, scalars
from tests.ray_sessions import ROOT

RUN = "mixed/seed-0"


def steps(step: int, loss: float = 1.0, run: str = RUN) -> dict:
    return {"kind": "steps", "run": run, "step": step, "steps": 100, "loss": loss, "lr": 0.1}


def validation(step: int, accuracy: float = 0.5, run: str = RUN) -> dict:
    return {"kind": "validation", "run": run, "step": step, "steps": 100, "loss": 2.0, "accuracy": accuracy}


def track(config: LogConfig, out, *facts: dict) -> None:
    with Tracker(config, str(out), "exp") as tracker:
        for fact in facts:
            tracker.write(fact)


def next_second() -> None:
    """Event files are named by the second, so that two lives of a driver have two files."""
    time.sleep(1.01 - time.time() % 1)


def test_facts_are_scalars_of_their_run(tmp_path):
    others = [steps(5, run="real_only/seed-1"), validation(5, 0.75, run="real_only/seed-1")]
    track(LogConfig(), tmp_path, steps(20, 1.5), validation(20, 0.25), steps(40, 0.5), validation(40), *others)
    told = scalars(tmp_path / "tensorboard" / RUN)
    assert told == {
        "training/loss": [(20, np.float32(1.5)), (40, np.float32(0.5))],
        "training/lr": [(20, np.float32(0.1)), (40, np.float32(0.1))],
        "validation/loss": [(20, np.float32(2)), (40, np.float32(2))],
        "validation/accuracy": [(20, np.float32(0.25)), (40, np.float32(0.5))],
    }
    assert scalars(tmp_path / "tensorboard/real_only/seed-1")["validation/accuracy"] == [(5, np.float32(0.75))]


def test_workers_that_begin_again_say_nothing_twice(tmp_path):
    """Killed at step 70, they go on from the checkpoint at 50."""
    life = [steps(20), steps(40), validation(50), steps(70)]
    track(LogConfig(), tmp_path, *life, steps(70), steps(90), validation(100))
    (file,) = (tmp_path / "tensorboard" / RUN).iterdir()
    written = [(value.tag, event.step) for event in events(file) for value in event.summary.value]
    assert [step for tag, step in written if tag == "training/loss"] == [20, 40, 70, 90]
    assert [step for tag, step in written if tag == "validation/accuracy"] == [50, 100]


def test_a_driver_that_begins_again_takes_back_what_happens_again(tmp_path):
    next_second()
    track(LogConfig(), tmp_path, steps(20), steps(40), validation(50), steps(70), steps(90))
    next_second()
    track(LogConfig(), tmp_path, steps(70, 3.0), steps(90, 4.0), validation(100))
    assert len(list((tmp_path / "tensorboard" / RUN).iterdir())) == 2
    told = scalars(tmp_path / "tensorboard" / RUN)
    assert told["training/loss"] == [(20, 1.0), (40, 1.0), (70, 3.0), (90, 4.0)]
    assert [step for step, _ in told["validation/accuracy"]] == [50, 100]


def test_event_files_go_where_they_are_asked_for(tmp_path):
    track(LogConfig(tensorboard=str(tmp_path / "here")), tmp_path / "out", steps(1))
    assert scalars(tmp_path / "here" / RUN) and not (tmp_path / "out").exists()


def test_there_are_none_beside_an_experiment_on_s3(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    track(LogConfig(), "s3://bucket/exp", steps(1), validation(1))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    """The tracking URI of a store in a folder, and a client of it."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    uri = f"file:{tmp_path / 'mlruns'}"
    return uri, MlflowClient(uri)


def runs_of(client) -> dict:
    return {run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("exp").experiment_id])}


def history(client, run, metric: str) -> list[tuple[int, float]]:
    return [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, metric)]


def test_mlflow_has_a_run_for_each_with_every_metric_at_its_step(tmp_path, mlflow):
    uri, client = mlflow
    facts = [steps(20, 1.5), validation(20, 0.25), steps(40, 0.5), validation(40), steps(20, run="real_only/seed-1")]
    track(LogConfig(mlflow=uri), tmp_path / "exp", *facts)
    found = runs_of(client)
    assert found.keys() == {RUN, "real_only/seed-1"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert found[RUN].data.metrics.keys() == {"training/loss", "training/lr", "validation/loss", "validation/accuracy"}
    assert history(client, found[RUN], "training/loss") == [(20, 1.5), (40, 0.5)]
    assert history(client, found[RUN], "validation/accuracy") == [(20, 0.25), (40, 0.5)]


def test_a_resumed_run_goes_on_in_mlflow_and_says_nothing_twice(tmp_path, mlflow):
    uri, client = mlflow

    class Killed(Exception):
        pass

    with pytest.raises(Killed), Tracker(LogConfig(mlflow=uri), str(tmp_path / "exp"), "exp") as tracker:
        for fact in (steps(20), validation(50), steps(70), steps(70)):
            tracker.write(fact)
        raise Killed
    assert runs_of(client)[RUN].info.status == "FAILED"
    track(LogConfig(mlflow=uri), tmp_path / "exp", steps(70), steps(90), validation(100, 0.75))
    (run,) = runs_of(client).values()
    assert run.info.status == "FINISHED"
    assert [step for step, _ in history(client, run, "training/loss")] == [20, 70, 90]
    assert history(client, run, "validation/accuracy") == [(50, 0.5), (100, 0.75)]


def test_a_store_that_mlflow_cannot_use_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    for uri in (f"file:{tmp_path / 'mlruns'}", "gopher://host/mlflow"):
        with pytest.raises(ConfigError, match=rf"log\.mlflow: {uri} cannot be used: \S+"):
            Tracker(LogConfig(mlflow=uri), str(tmp_path), "exp")


BLOCKED = """
import sys
sys.modules["mlflow"] = None  # what an import finds where nothing is installed
from synthfer.engine.tracking import LogConfig, Tracker
Tracker(LogConfig(mlflow="http://localhost:5000"), {out!r}, "exp")
"""


def test_without_mlflow_it_says_how_to_install_it(tmp_path):
    program = [sys.executable, "-c", BLOCKED.format(out=str(tmp_path))]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, env=dict(os.environ), check=False)
    assert done.returncode == 1
    assert "ConfigError: log.mlflow: MLflow is not installed; pip install mlflow-skinny" in done.stderr
