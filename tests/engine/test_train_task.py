"""The job that trains tasks, with real Ray workers: what it leaves, what it logs, what it refuses."""

import io
import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from synthfer import generators, images
from synthfer.classifiers.training_fingerprint import TrainingFingerprint
from synthfer.cli import COMPLETE, Invocation
from synthfer.config import load
from synthfer.engine.train import CONTRACT, TaskJob, is_task_requested, open_job, preview, train
from synthfer.generators import weights
from synthfer.sample import Row
from synthfer.schema import ConfigError
from synthfer.store import Dataset, open_store
from synthfer.training import pixels, result
from synthfer.training.data import open_data
from synthfer.training.world import World
from tests.engine.event_files import pictures, scalars
from tests.ray_sessions import ROOT, start_job
from tests.training.classifier_trainings import data_at

TINY = ("task=vae_gan", "task.size=32", "task.width=8", "batch=8", "steps=6", "validate_every=3")
RUN = "vae_gan/seed-0"


def job(*words: str, do=train) -> dict:
    """The summary of a job in this process."""
    quiet = Invocation(Console(file=io.StringIO(), width=200), Console(file=io.StringIO()))
    return dict(do(load(TaskJob, words), quiet).summary)


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    return data_at(tmp_path_factory.mktemp("data"))


@dataclass(frozen=True)
class Trained:
    """A finished training: its words, its summary, where it is."""

    words: tuple[str, ...]
    summary: dict
    out: Path

    def card(self) -> dict:
        return yaml.safe_load((self.out / RUN / result.CARD).read_text())


@pytest.fixture(scope="module")
def trained(uri, tmp_path_factory) -> Trained:
    """By two workers, in a process of its own, as a user would start it; its keys are in a file."""
    out, file = tmp_path_factory.mktemp("task") / "exp", tmp_path_factory.mktemp("config") / "task.yaml"
    words = (*TINY, f"data.faces={uri}", f"out={out}", "engine.workers=2", "ancestors=[affectnet:train]")
    file.write_text(yaml.safe_dump({"task": {"name": "vae_gan", "size": 32, "width": 8}, "batch": 8}))
    driver = start_job("train.py", "--json", "--config", str(file), *words[3:])
    told, err = driver.communicate(timeout=240)
    assert driver.returncode == COMPLETE, err
    return Trained(words, json.loads(told.splitlines()[-1]), out)


def test_what_is_left(trained):
    left = {key for key, _ in open_store(str(trained.out)).list() if "tensorboard" not in key}
    grids = {f"{RUN}/grids/step-{step:08d}.png" for step in (3, 6)}
    kept = {f"{RUN}/{name}" for name in (result.MODEL, result.CARD, result.SEEN, result.HISTORY)}
    assert left == {CONTRACT} | grids | kept
    history = json.loads((trained.out / RUN / result.HISTORY).read_text())["history"]
    assert [record["step"] for record in history] == [3, 6]
    assert trained.summary[RUN] == {"step": 6, **history[-1]["validation"]} and trained.summary["trained_now"] == 1


def test_the_card_says_what_was_trained_on_what(trained, uri):
    card = trained.card()
    assert card["architecture"] == "vae_gan" and card["trained_on"] == ["affectnet:train", "faces:train"]
    told = card["training"]
    assert (told["workers"], told["config"]["task"]["width"], told["run"]["steps"]) == (2, 8, 6)
    assert told["data"]["sources"][0]["hash"] == Dataset(uri).manifest.manifest_hash
    assert not {"out", "engine", "log"} & told["config"].keys()


def test_a_generator_takes_the_weights_by_their_card(trained):
    uri = f"{trained.out}/{RUN}/{result.MODEL}"
    generator = generators.build("vae_gan", weights=uri)
    assert generator.producer()["trained_on"] == weights.read(uri, "vae_gan").card.trained_on
    row = Row(index=0, label=3, seed=1, operation="noise", code=(1.0,))
    (picture,) = generator.make([row], [(np.zeros((40, 40, 3), np.uint8),)])
    assert isinstance(picture, np.ndarray)


def test_what_was_seen_is_what_it_was_trained_on(trained):
    rows = open_data(load(TaskJob, trained.words)).rows
    seen = TrainingFingerprint.from_bytes((trained.out / RUN / result.SEEN).read_bytes())
    assert seen.contains(rows["sample_id"].to_pylist()).tolist() == [
        role == "train" for role in rows["role"].to_pylist()
    ]


def test_weights_are_those_of_a_process_without_ray(trained, tmp_path):
    """One rank here, two there: what comes out is the same up to rounding, which Adam's first steps make larger."""
    config = load(TaskJob, trained.words)
    experiment = open_job(config, Invocation(Console(file=io.StringIO()), Console(file=io.StringIO())))
    (run,) = experiment.runs
    trainer = experiment.trainer(run, pixels.load(experiment.data, experiment.size), World())
    trainer.fit(open_store(str(tmp_path)), lambda message: None)
    theirs = json.loads((trained.out / RUN / result.HISTORY).read_text())["history"]
    for ours, other in zip(trainer.progress.history, theirs, strict=True):
        assert ours["losses"] == pytest.approx(other["losses"], rel=1e-2)
        assert ours["validation"] == pytest.approx(other["validation"], rel=1e-2)


def test_losses_and_grids_stand_in_the_event_files(trained):
    folder = trained.out / "tensorboard" / RUN
    history = json.loads((trained.out / RUN / result.HISTORY).read_text())["history"]
    told = scalars(folder)
    assert told["validation/psnr"] == [(r["step"], np.float32(r["validation"]["psnr"])) for r in history]
    assert [step for step, _ in told["training/pixel"]] == [3, 6]
    shown = pictures(folder)["validation/grid"]
    assert [step for step, _ in shown] == [3, 6]
    for step, picture in shown:
        kept = images.decode((trained.out / RUN / f"grids/step-{step:08d}.png").read_bytes())
        assert (picture == kept).all() and kept.shape[0] == 7 * 32  # seven faces are not trained on


def test_the_same_again_trains_nothing(trained, caplog):
    before = {path: path.read_bytes() for path in (trained.out / RUN).rglob("*.*")}
    with caplog.at_level(logging.INFO, "synthfer"):
        assert job(*trained.words)["trained_now"] == 0
    assert "0 of 1 runs to train" in caplog.text
    assert {path: path.read_bytes() for path in (trained.out / RUN).rglob("*.*")} == before


@pytest.mark.parametrize("word", ["steps=12", "task.width=16", "task=expression_editor"])
def test_another_experiment_at_the_same_place_is_refused(word, trained):
    ours = [one for one in trained.words if word != "task=expression_editor" or not one.startswith("task.")]
    with pytest.raises(ConfigError, match=f"there is another experiment at {trained.out}"):
        job(*ours, word, "task.size=32")


def refused(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        job(*words)
    return str(caught.value)


def test_what_cannot_be_is_told_before_anything_starts(uri, tmp_path):
    out = tmp_path / "exp"
    ours = (*TINY, f"data.faces={uri}", f"out={out}")
    assert "batch=8 cannot be shared evenly by 3 workers" in refused(*ours, "engine.max_workers=4")
    assert "did you mean 'vae_gan'? Known: classifier, " in refused(*ours[5:], "task=vae-gan")
    assert "unknown key task.widht; did you mean task.width?" in refused(*ours, "task.widht=8")
    assert "there is no dataset at" in refused(*ours, f"data.faces={tmp_path}/none")
    assert "is a dataset or a view" in refused(*ours, f"out={uri}")
    assert "seeds is empty" in refused(*ours, "seeds=[]")
    assert not out.exists()


def test_rows_without_labels_are_refused_and_classes_may_be_absent(tmp_path):
    without = data_at(tmp_path, "without", number=42, label=[None] * 42)
    ours = (*TINY, f"out={tmp_path / 'exp'}")
    assert "none of the 42 accepted rows" in refused(*ours, f"data.faces={without}")
    three = data_at(tmp_path, "three", number=42, label=[row % 3 for row in range(42)])
    assert job(*ours, f"data.faces={three}", do=preview)["runs"].keys() == {RUN}


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(uri, tmp_path):
    made = data_at(tmp_path, "made", first=84, number=42)
    data = (f"data={{faces: {uri}, made: {made}}}", "mix={faces: 1, made: 0}", "seeds=[3,5]")
    told = job(*TINY, *data, f"out={tmp_path / 'exp'}", do=preview)
    assert told["runs"] == {f"vae_gan/seed-{seed}": {"steps": 6, "sources": {"faces": 1.0}} for seed in (3, 5)}
    assert not (tmp_path / "exp").exists()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [((), False), (("task=classifier",), False), (("task=vae_gan", "batch=8"), True), (("task.name=x.y",), True)],
)
def test_the_task_is_found_among_the_words(words, wanted):
    assert is_task_requested(words, []) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"), [("task: vae_gan", True), ("task: {name: a.b}", True), ("batch: 8", False)]
)
def test_the_task_is_found_in_a_file(text, wanted, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    assert is_task_requested([], [str(tmp_path / "a.yaml")]) is wanted


def test_help_lists_the_keys_of_the_task_that_is_task_requested():
    shown = [
        subprocess.run(
            [sys.executable, str(ROOT / "jobs/train.py"), *words, "--help"], capture_output=True, text=True, check=True
        ).stdout
        for words in ((), ("task=vae_gan",))
    ]
    assert "classifier.name" in shown[0] and "task=expression_editor|vae_gan" in shown[0]
    assert "task.latent" in shown[1] and "classifier.name" not in shown[1]
