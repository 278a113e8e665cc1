"""The generation job on faces: what a row is made from is read and inherited; what cannot be read fails alone."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from synthfer import images, planning
from synthfer.cli import Invocation
from synthfer.config import load
from synthfer.engine.generate import GenerateConfig, generate, preview
from synthfer.engine.generation_worker import read_faces
from synthfer.expressions import EXPRESSIONS
from synthfer.planning import open_plan
from synthfer.schema import ConfigError
from synthfer.store import DamagedShard, Dataset, SpecMismatch
from synthfer.store.card import README
from synthfer.store.image_reader import ImageReader
from tests.planning.face_datasets import even, faces_dataset

pytestmark = pytest.mark.usefixtures("ray_session")
COLUMNS = (
    "sample_id", "label", "split", "source_id", "parent_id", "derived_from_real_identity", "operation", "code",
    "decision", "reason", "scores", "box", "matrix", "image", "attributes",
)  # fmt: skip
TURNED = ("generator=tests.engine.face_generators", "generator.batch_size=4", "image.format=png")


def invocation() -> Invocation:
    return Invocation(Console(file=io.StringIO()), Console(file=io.StringIO()))


def run(out, *words) -> dict:
    return dict(generate(load(GenerateConfig, [f"out={out}", *TURNED, *words]), invocation()).summary)


def rows_of(out) -> list[dict]:
    return [row for batch in Dataset.open(str(out)).scan(COLUMNS) for row in batch.to_pylist()]


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> str:
    """Twelve photographs of six persons; the file of one cannot be decoded."""
    people = [f"person-{i // 2}" for i in range(12)]
    return faces_dataset(tmp_path_factory.mktemp("faces") / "d", even(12), identities=people, broken=(5,), kind="real")


@pytest.fixture(scope="module")
def edited(faces, tmp_path_factory):
    out = tmp_path_factory.mktemp("edited") / "d"
    words = ("plan.by=face", "plan.unit_size=9", "engine.max_failed_share=0.2", "engine.max_workers=1")
    return out, run(out, f"plan.faces={faces}", *words)


def test_every_face_in_every_expression_with_its_lineage(faces, edited):
    out, summary = edited
    assert summary["rows"] == 84
    originals = {
        row["sample_id"]: row for batch in Dataset(faces).scan(["sample_id", "image"]) for row in batch.to_pylist()
    }
    for row in rows_of(out):
        assert row["source_id"] == f"person-{int(row['parent_id'][-4:]) // 2}"
        assert row["derived_from_real_identity"] and row["split"] == "train" and row["operation"] == "expression"
        if row["parent_id"] == "face-0005":
            assert (row["decision"], row["image"]) == ("failed", None)
            assert row["reason"].startswith("its face cannot be read: png")
            continue
        assert row["decision"] == "accepted" and row["attributes"]["intensity"] is None
        source = images.decode(originals[row["parent_id"]]["image"]["bytes"])
        pixels = images.decode(row["image"]["bytes"])
        np.testing.assert_array_equal(pixels[1:], np.roll(source, row["label"], axis=2)[1:])
        assert row["box"] == [1, 1, 20, 20] and row["matrix"] == [1, 0, 0, 0, 1, 0]
        assert {score["gate"]: score["value"] for score in row["scores"]}["turned"] == row["label"]
        assert images.digital_source_type(row["image"]["bytes"]).endswith("compositeWithTrainedAlgorithmicMedia")


def test_workers_units_and_copies_of_the_faces_do_not_matter(edited, tmp_path):
    _, summary = edited
    people = [f"person-{i // 2}" for i in range(12)]
    copy = faces_dataset(tmp_path / "copy", even(12), identities=people, broken=(5,), kind="real", unit_size=5)
    words = ("plan.by=face", "plan.unit_size=20", "engine.max_failed_share=0.2", "engine.max_workers=2")
    again = run(tmp_path / "d", f"plan.faces={copy}", *words, "engine.min_workers=2")
    assert again["manifest_hash"] == summary["manifest_hash"]


def test_the_dataset_says_that_it_keeps_no_privacy(edited):
    out, _ = edited
    dataset = Dataset.open(str(out))
    producer = dataset.spec.producer
    assert producer["kind"] == "real" and producer["derived_from_real_identity"] is True
    assert producer["trained_on"] == ["affectnet:train"] and producer["faces"] == {"licences": ["none needed"]}
    card = dataset.store.get(README).decode()
    assert "does not preserve their privacy" in card
    assert "Licence of the model and its weights: weights: none needed" in card
    assert "Licences of the sources: none needed" in card


def test_the_plan_is_read_back_from_the_dataset_alone(edited):
    out, _ = edited
    dataset = Dataset.open(str(out))
    ids = [row.sample_id for row in open_plan(dataset).rows(range(84))]
    assert [row["sample_id"] for row in rows_of(out)] == ids
    assert dataset.verify(pixels=True, expected_ids=lambda rows: ids[rows.start : rows.stop]) == []


def test_other_faces_at_the_same_place_are_refused(edited, tmp_path):
    out, _ = edited
    other = faces_dataset(tmp_path / "d", even(13))
    with pytest.raises(SpecMismatch, match=r"plan\.faces"):
        run(out, f"plan.faces={other}", "plan.by=face")


def test_a_shard_of_the_faces_that_is_gone_is_no_rows_fault(faces, tmp_path):
    moved = Path(shutil.copytree(faces, tmp_path / "moved"))
    plan = planning.build(load(GenerateConfig, ["out=x", *TURNED, f"plan.faces={moved}"]).plan)
    next(moved.glob("data/*00000-of*")).unlink()
    with pytest.raises(DamagedShard, match="is missing"):
        read_faces(plan, plan.rows(range(3)), ImageReader(plan.faces.uris))


def test_other_samples_in_the_place_of_the_faces_are_not_used(faces, tmp_path):
    plan = planning.build(load(GenerateConfig, ["out=x", *TURNED, f"plan.faces={faces}"]).plan)
    other = faces_dataset(tmp_path / "d", even(3))
    with pytest.raises(ValueError, match="holds other samples than when the plan was made"):
        read_faces(plan, plan.rows(range(42)), ImageReader((other,)))


def test_scores_are_measured_and_bounds_reject(faces, tmp_path):
    words = (f"plan.faces={faces}", "plan.total=6", "plan.seed=1", "engine.max_failed_share=0.5")
    run(tmp_path / "d", *words, "gate.edits.identity=patches", "gate.edits.min_identity=0.5")
    rows = [row for row in rows_of(tmp_path / "d") if row["decision"] != "failed"]
    for row in rows:
        scores = {score["gate"]: score["value"] for score in row["scores"]}
        assert row["decision"] == ("accepted" if scores["identity"] >= 0.5 else "rejected")
        assert scores["background"] >= 0
        assert row["reason"] is None or row["reason"].startswith("identity")
    assert Dataset.open(str(tmp_path / "d")).spec.producer["gate"]["identity"]["name"] == "patches"


def test_codes_out_of_range_fail_alone(faces, tmp_path):
    words = (
        f"plan.faces={faces}",
        "plan.by=face",
        "plan.intensity=[0.5,1.5]",
        "plan.total=11",
        "generator.most_code=1",
    )
    run(tmp_path / "d", *words, "engine.max_failed_share=1")
    rows = [row for row in rows_of(tmp_path / "d") if row["parent_id"] != "face-0005"]
    assert {row["decision"] for row in rows} == {"accepted", "failed"}
    assert all((row["decision"] == "failed") == (row["code"][0] > 1) for row in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), r"plan\.faces is needed"),
        (("plan=prompts", "plan.total=7"), r"plan\.name=prompts: generator .* makes rows of plan edits"),
        (("plan.preset=portrait",), r"unknown key plan\.preset"),
        (("plan.faces=nowhere",), r"plan\.faces: there is no dataset"),
        (("plan.faces=x", "gate.edits.min_gain=0.1"), r"gate\.edits: min_gain needs judge"),
        (("plan.faces=x", "gate.judge=y"), r"unknown key gate\.judge; did you mean gate\.edits\.judge\?"),
    ],
)
def test_wrong_words_are_refused(tmp_path, words, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "d", *words)


def test_a_dry_run_says_how_often_each_face_is_used(faces):
    console = Console(file=io.StringIO(), width=120)
    config = load(GenerateConfig, ["out=x", *TURNED, f"plan.faces={faces}"])
    preview(config, Invocation(console, Console(file=io.StringIO())))
    text = console.file.getvalue()
    assert "6 of 6 identities of real persons: the result does not preserve their privacy" in text
    assert "all: 6 faces, each used 7 times" in text
    facts = preview(config, Invocation(console, console, json=True)).summary
    assert json.loads(json.dumps(facts["plan"]))["rows"] == 42
    assert list(facts["plan"]["expressions"]) == list(EXPRESSIONS)
