"""The training job with real Ray workers and a real S3 server: what it leaves, what it adds, what it refuses."""

import io
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from sklearn.metrics import accuracy_score, f1_score, log_loss

import synthfer
from synthfer import cli, images
from synthfer.classifiers import checkpoints
from synthfer.classifiers.checkpoints import collect
from synthfer.classifiers.training_fingerprint import TrainingFingerprint
from synthfer.cli import COMPLETE, WRONG_INPUT, Invocation
from synthfer.config import load
from synthfer.engine.train import CONTRACT, TrainJob, preview, train
from synthfer.schema import ConfigError
from synthfer.store import Dataset, open_store
from synthfer.training import result
from synthfer.training.data import open_data
from synthfer.training.initial_weights import build_classifier
from synthfer.training.runs import Run
from tests.engine.event_files import scalars
from tests.ray_sessions import start_job
from tests.s3_server import BUCKET
from tests.training.classifier_trainings import FAST, config_of, data_at

RUNS = ("mixed", "real_only", "synthetic_only", "real_reweighted")
STAGES = ("pretrained", "finetuned")


def job(*words: str, do=train) -> dict:
    """The summary of a job in this process."""
    quiet = Invocation(Console(file=io.StringIO(), width=200), Console(file=io.StringIO()))
    return dict(do(load(TrainJob, words), quiet).summary)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> dict[str, str]:
    """URIs of drawn faces under two names, of which the first will pass for real."""
    folder = tmp_path_factory.mktemp("data")
    return {"faces": data_at(folder), "made": data_at(folder, "made", first=84, number=42)}


def words_of(uris: dict[str, str], *words: str) -> tuple[str, ...]:
    return (f"data={{faces: {uris['faces']}, made: {uris['made']}}}", "synthetic=[made]", *FAST, *words)


@dataclass(frozen=True)
class Experiment:
    """A finished experiment: its words, its summary, where it is and where its event files are."""

    words: tuple[str, ...]
    summary: dict
    uri: str
    events: Path

    def card(self, run: str) -> dict:
        return yaml.safe_load(open_store(self.uri).get(f"{run}/{result.CARD}"))

    def history(self, run: str) -> dict:
        return json.loads(open_store(self.uri).get(f"{run}/{result.HISTORY}"))


@pytest.fixture(scope="module")
def on_s3(s3_server, local, tmp_path_factory) -> Iterator[Experiment]:
    """Four runs of two workers; data and results are on S3. In a process of its own, as a user would start it."""
    prefix, events = f"s3://{BUCKET}/training-job", tmp_path_factory.mktemp("events")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.env.items():
            patch.setenv(name, value)
        remote = {name: f"{prefix}/{name}" for name in local}
        for name, uri in local.items():
            here, there = open_store(uri), open_store(remote[name])
            for key, _ in here.list():
                there.put_new(key, here.get(key))
        words = words_of(remote, f"out={prefix}/exp", "engine.workers=2", f"log.tensorboard={events}")
        driver = start_job("train.py", "--json", *words)
        out, err = driver.communicate(timeout=240)
        assert driver.returncode == COMPLETE, err
        yield Experiment(words, json.loads(out.splitlines()[-1]), f"{prefix}/exp", events)


def test_the_strategy_and_its_controls_are_there_at_equal_steps(on_s3):
    store = open_store(on_s3.uri)
    left = {f"{run}/seed-0/{name}" for run in RUNS for name in (result.MODEL, result.CARD, result.SEEN, result.HISTORY)}
    assert {key for key, _ in store.list()} == left | {CONTRACT}
    assert on_s3.summary["trained_now"] == 4
    for run in RUNS:
        told = on_s3.history(f"{run}/seed-0")
        assert [record["step"] for record in told["history"]] == [4, 8, 12]
        assert told["best"] == max(told["history"], key=lambda record: record["macro_f1"])
        assert on_s3.summary[f"{run}/seed-0"] == told["best"]
        assert all(math.isfinite(value) for record in told["history"] for value in record.values())


def test_a_card_says_what_was_trained_on_what(on_s3, local):
    hashes = {name: Dataset(uri).manifest.manifest_hash for name, uri in local.items()}
    learned = {"mixed": ["faces:train", "made:train"], "synthetic_only": ["faces:train", "made:train"]}
    for run in RUNS:
        card = on_s3.card(f"{run}/seed-0")
        assert (card["architecture"], card["selection"], card["ancestors"]) == ("small", "validation", [])
        # Real rows of split train were cut off to choose by, also where only synthetic ones are trained on.
        assert card["trained_on"] == learned.get(run, ["faces:train"])
        told = card["training"]
        assert {source["name"]: source["hash"] for source in told["data"]["sources"]} == hashes
        assert (told["run"]["name"], told["workers"], told["device"]) == (run, 2, "cpu")
        versions = {name: version(name) for name in ("torch", "numpy", "ray", "pyarrow")}
        assert told["versions"] == versions | {"synthfer": synthfer.__version__}
        assert told["config"]["batch"] == 16 and told["best"] == on_s3.history(f"{run}/seed-0")["best"]


def test_what_was_seen_is_what_the_run_was_trained_on_and_chosen_by(on_s3):
    rows = open_data(load(TrainJob, on_s3.words)).rows
    ids, roles, names = (rows[column].to_pylist() for column in ("sample_id", "role", "name"))
    sources = {"mixed": (0, 1), "synthetic_only": (1,)}
    for run in RUNS:
        seen = TrainingFingerprint.from_bytes(open_store(on_s3.uri).get(f"{run}/seed-0/{result.SEEN}"))
        mine = sources.get(run, (0,))
        wanted = [role == "val" or (role == "train" and name in mine) for role, name in zip(roles, names, strict=True)]
        assert seen.contains(ids).tolist() == wanted


def test_the_best_scores_are_those_of_the_weights_that_are_left(on_s3):
    """Each picture by hand through what was left on S3, scored by scikit-learn."""
    rows = open_data(load(TrainJob, on_s3.words)).rows.to_pylist()
    labels = {row["sample_id"]: row["label"] for row in rows if row["role"] == "val"}
    uri = on_s3.uri.replace("/exp", "/faces")
    scan = Dataset(uri).scan(["sample_id", "image"])
    bodies = {row["sample_id"]: row["image"]["bytes"] for batch in scan for row in batch.to_pylist()}
    pictures = np.stack([images.square(images.decode(bodies[key]), 16) for key in labels])
    truth = list(labels.values())
    found = {one.uri: one for one in collect(on_s3.uri)}
    assert list(found) == [f"{on_s3.uri}/{run}/seed-0/{result.MODEL}" for run in sorted(RUNS)]
    for one in found.values():
        with torch.inference_mode():
            probs = one.restore()(torch.from_numpy(pictures).permute(0, 3, 1, 2)).logits.double().softmax(1).numpy()
        best, predicted = one.card.training["best"], probs.argmax(1)
        assert best["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
        assert best["macro_f1"] == pytest.approx(
            f1_score(truth, predicted, labels=range(7), average="macro", zero_division=0)
        )
        assert best["nll"] == pytest.approx(log_loss(truth, probs, labels=range(7)), abs=1e-5)


def test_every_validation_stands_in_an_event_file(on_s3):
    for run in RUNS:
        told = scalars(on_s3.events / run / "seed-0")
        for name in ("loss", "accuracy", "macro_f1", "nll", "lr"):
            wanted = [
                (record["step"], np.float32(record[name])) for record in on_s3.history(f"{run}/seed-0")["history"]
            ]
            assert told[f"validation/{name}"] == wanted
        assert [step for step, _ in told["training/loss"]] == [4, 8, 12]
        assert all(value > 0 for _, value in told["training/images_per_s"])


def test_the_same_again_trains_nothing_and_says_so(on_s3, caplog):
    store = open_store(on_s3.uri)
    before = {key: store.get(key) for key, _ in store.list()}
    with caplog.at_level(logging.INFO, "synthfer"):
        again = job(*on_s3.words)
    assert again["trained_now"] == 0 and "0 of 4 runs to train" in caplog.text
    assert {key: store.get(key) for key, _ in store.list()} == before


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("batch=15", r"config\.batch: 16.*15"),
        ("loss.smoothing=0", r"config\.loss\.smoothing"),
        ("validation_share=0.2", "validation_share"),
    ],
)
def test_another_experiment_at_the_same_place_is_refused(word, named, on_s3):
    with pytest.raises(ConfigError, match=f"(?s)there is another experiment at {on_s3.uri}.*{named}"):
        job(*on_s3.words, word)


def test_other_data_at_the_same_place_is_refused(on_s3, tmp_path):
    other = data_at(tmp_path, "made", first=84, number=49)
    uris = {"faces": on_s3.uri.replace("/exp", "/faces"), "made": other}
    with pytest.raises(ConfigError, match=r"(?s)another experiment.*data\."):
        job(*words_of(uris, f"out={on_s3.uri}"))


@pytest.fixture(scope="module")
def initial(tmp_path_factory) -> str:
    """Initial weights whose card names only the collections that they learned from."""
    path = tmp_path_factory.mktemp("init") / "first.safetensors"
    run = Run(name="run", seed=0, steps=1, epoch=1, sources=())
    model = build_classifier(config_of("data={x: x}", "out=x", *FAST), run, None)
    checkpoints.save(model, path, trained_on=["rafdb:train"])
    return str(path)


@pytest.fixture(scope="module")
def tuned(local, initial, ray_session, tmp_path_factory) -> tuple[tuple[str, ...], Path, dict]:
    """Synthetic data first, then real: as many workers as there is room for, from one to two."""
    out = tmp_path_factory.mktemp("tuned") / "exp"
    elastic = ("engine.max_workers=2", "strategy=finetune", "finetune_share=0.25", "controls=false", f"init={initial}")
    words = words_of(local, f"out={out}", *elastic)
    return words, out, job(*words)


def test_a_run_after_another_inherits_what_that_has_seen(tuned, local):
    _, out, summary = tuned
    assert summary["trained_now"] == 2
    card = yaml.safe_load((out / "finetuned/seed-0" / result.CARD).read_text())
    assert card["trained_on"] == ["faces:train", "made:train", "rafdb:train"]
    assert card["ancestors"] == ["rafdb:train"]  # its rows are nowhere written down
    assert card["training"]["run"]["begins_with"] == "pretrained"
    assert 1 <= card["training"]["workers"] <= 2
    steps = [json.loads((out / run / "seed-0" / result.HISTORY).read_text())["run"]["steps"] for run in STAGES]
    assert steps == [3, 9]
    seen = TrainingFingerprint.from_bytes((out / "finetuned/seed-0" / result.SEEN).read_bytes())
    ids = [key for batch in Dataset(local["made"]).scan(["sample_id"]) for key in batch["sample_id"].to_pylist()]
    assert seen.contains(ids).all()
    assert (out / "tensorboard/finetuned/seed-0").is_dir()


def contents(out: Path) -> dict[Path, bytes]:
    """What the runs of the first seed have left."""
    return {path: path.read_bytes() for path in out.glob("*/seed-0/*.*")}


@pytest.mark.slow
def test_one_more_seed_trains_only_that(tuned, tmp_path, monkeypatch):
    """Seeds and the engine are no part of what an experiment is."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    words, out, _ = tuned
    before = contents(out)
    more = job(*words, "seeds=[0,1]", "engine.max_workers=null", f"log.mlflow=file:{tmp_path / 'mlruns'}")
    assert more["trained_now"] == 2
    assert contents(out) == before
    bodies = [(out / f"finetuned/seed-{seed}" / result.MODEL).read_bytes() for seed in (0, 1)]
    assert bodies[0] != bodies[1]

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"file:{tmp_path / 'mlruns'}")
    found = {run.info.run_name: run for run in client.search_runs([client.get_experiment_by_name("exp").experiment_id])}
    assert found.keys() == {f"{stage}/seed-1" for stage in STAGES}
    history = json.loads((out / "finetuned/seed-1" / result.HISTORY).read_text())["history"]
    told = client.get_metric_history(found["finetuned/seed-1"].info.run_id, "validation/nll")
    assert [(metric.step, metric.value) for metric in told] == [(record["step"], record["nll"]) for record in history]


@pytest.mark.timeout(240)  # it would go on for long if workers were started anew, again and again
def test_a_loss_that_is_no_number_ends_the_job(local, ray_session, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])  # the command line has its own
    words = words_of(local, f"out={tmp_path / 'exp'}", "optimizer.lr=1e30", "optimizer.clip=0", "controls=false")
    command = cli.Command(TrainJob, train, preview)
    assert cli.main({"": command}, ["--json", *words]) == WRONG_INPUT
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["code"] == WRONG_INPUT
    message = told["error"]
    assert message.startswith("mixed/seed-0: the loss is ") and "Lower optimizer.lr (now 1e+30)" in message
    step = int(message.partition("at step ")[2].partition(".")[0])
    assert 0 < step < 4
    keys = message.partition("Its batch: ")[2].partition(" and ")[0].split(", ")
    ids = open_data(load(TrainJob, words)).rows["sample_id"].to_pylist()
    assert len(keys) == 8 and set(keys) <= set(ids)
    assert not list((tmp_path / "exp").glob("*/seed-0/*.card.yaml"))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("classifier.channels=[4,9]", r"init: \S*first\.safetensors is of a small with channels"),
        ("classifier=resemotenet", r"init: \S*first\.safetensors is of 'small', the model is 'resemotenet'"),
        ("size=24", r"init: \S*first\.safetensors reads 16 pixels, size=24 was asked for"),
    ],
)
def test_weights_of_another_network_are_refused_before_anything_starts(word, message, local, initial, tmp_path):
    words = [one for one in words_of(local) if not one.startswith("classifier") or word.startswith("size")]
    with pytest.raises(ConfigError, match=message):
        job(*words, f"out={tmp_path / 'exp'}", f"init={initial}", word)
    assert not (tmp_path / "exp").exists()


def test_no_weights_where_init_says(local, tmp_path):
    with pytest.raises(ConfigError, match=r"init: there is no \S*absent\.safetensors"):
        job(*words_of(local), f"out={tmp_path / 'exp'}", f"init={tmp_path}/absent.safetensors")


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(local, tmp_path):
    words = words_of(local, f"out={tmp_path / 'exp'}", "mix={faces: .75, made: .25}", "seeds=[3,5]")
    told = job(*words, do=preview)
    assert told["out"] == str(tmp_path / "exp")
    assert list(told["runs"]) == [f"{run}/seed-{seed}" for seed in (3, 5) for run in RUNS]
    assert told["runs"]["mixed/seed-5"] == {"steps": 12, "sources": {"faces": 0.75, "made": 0.25}}
    assert all(run["steps"] == 12 for run in told["runs"].values())
    assert not (tmp_path / "exp").exists()


def test_a_share_of_less_than_a_row_is_refused(local, tmp_path):
    words = words_of(local, f"out={tmp_path / 'exp'}", "strategy=sweep", "sweep=[0.001]")
    with pytest.raises(ConfigError, match="run real_000: "):
        job(*words, do=preview)


def test_a_published_recipe_reaches_the_run(local, tmp_path):
    words = (f"data={{faces: {local['faces']}}}", f"out={tmp_path}", "preset=published", "epochs=3")
    config = load(TrainJob, words)
    assert (config.optimizer.lr, config.batch, config.epochs, config.ema) == (2e-3, 64, 3, 0)
    (run,) = job(*words, do=preview)["runs"].values()
    rows = open_data(config).count("train")
    assert run["steps"] == round(3 * rows / 64)


def test_an_empty_range_of_workers_is_refused(local, ray_session, tmp_path):
    with pytest.raises(ConfigError, match=r"engine\.max_workers: 1 is less than engine\.workers=2"):
        job(*words_of(local), f"out={tmp_path / 'exp'}", "engine.workers=2", "engine.max_workers=1")
