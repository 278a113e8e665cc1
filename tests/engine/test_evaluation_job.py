"""The evaluation job on real Ray actors: the same bytes from any number of them, killed ones among them; its guards."""

import io
import json
import os
import shutil
import signal
import threading
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from rich.console import Console
from sklearn.metrics import accuracy_score

from synthfer.classifiers import checkpoints
from synthfer.classifiers.checkpoints import collect
from synthfer.cli import Invocation
from synthfer.config import load
from synthfer.engine import audit
from synthfer.engine.evaluate import ANSWERS, MATRIX, PAGE, EvaluateJob, evaluate, preview
from synthfer.evaluation.contamination import read_audits
from synthfer.evaluation.naming import shortest_names
from synthfer.evaluation.scoring import Scorer
from synthfer.expressions import EXPRESSIONS, ORDERS
from synthfer.guards.verdict import AUDIT_FILE, PAIRS_FILE
from synthfer.sample import imported_sample_id
from synthfer.schema import ConfigError
from synthfer.store import Dataset, open_store
from synthfer.store.dataset_ref import open_ref, unit_ranges
from synthfer.store.view import View
from synthfer.training import result
from synthfer.training.runs import Run
from tests.audit.datasets import dataset
from tests.training.classifier_trainings import FAST, batches_of, config_of, data_at, drawn_faces, trainer_of

pytestmark = pytest.mark.usefixtures("ray_session")
WORDS = ("replicates=100", "permutations=100", "batch=8", "block=10")
FILES = {MATRIX, ANSWERS, PAGE, "matrix.md", "matrix.tex", "matrix.svg"}


def quiet(facts: object) -> None:
    pass


def trained(out: Path, uri: str, *seeds: int, size: int = 16) -> str:
    """An experiment of small networks at `out`, trained for a few steps in this process."""
    config = config_of(f"data={{faces: {uri}}}", f"out={out}", *FAST, f"size={size}", "steps=4")
    store = open_store(str(out))
    for seed in seeds:
        run = Run(name="mixed", seed=seed, steps=4, epoch=4, sources=("faces",))
        data, batches = batches_of(config, run)
        trainer = trainer_of(config, run, batches)
        trainer.fit(store, quiet)
        result.publish(store, trainer, data)
    return str(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Training data `faces`; an experiment of two seeds; test data `others` and, with splits, `parted`."""
    folder = tmp_path_factory.mktemp("evaluation")
    uri = data_at(folder)
    trained(folder / "exp", uri, 0, 1)
    data_at(folder, "others", first=200, number=49, splits="test", unit_size=5)
    data_at(folder, "parted", first=300, number=42, splits=[("train", "val", "test")[row % 3] for row in range(42)])
    return folder


def job(out: Path | str, *words: str, do=evaluate) -> tuple[dict, str]:
    """The job's summary, and what it printed."""
    printed = io.StringIO()
    config = load(EvaluateJob, [f"out={out}", *WORDS, *words])
    outcome = do(config, Invocation(Console(file=printed, width=200), Console(file=io.StringIO())))
    return dict(outcome.summary), printed.getvalue()


@pytest.fixture(scope="module")
def calm(folder, ray_session) -> Path:
    """What one undisturbed actor found."""
    out = folder / "calm"
    job(out, f"checkpoints=[{folder}/exp]", f"datasets=[{folder}/others]", "engine.max_workers=1")
    return out


def check_same(out: Path, calm: Path) -> None:
    for name in FILES:
        assert (out / name).read_bytes() == (calm / name).read_bytes(), name


def matrix_at(out: Path) -> dict:
    return json.loads((out / MATRIX).read_text())


def test_the_number_of_actors_changes_nothing(folder, calm, tmp_path):
    """Two of them are in the test of the killed one."""
    words = (f"checkpoints=[{folder}/exp]", f"datasets=[{folder}/others]", "engine.max_workers=3")
    summary, _ = job(tmp_path / "out", *words)
    assert (summary["checkpoints"], summary["test_sets"]) == (2, 1)
    check_same(tmp_path / "out", calm)


def test_workers_that_never_start_hold_nothing_up(folder, calm, tmp_path, caplog):
    """Two of five fit into the session's three CPUs."""
    words = (f"checkpoints=[{folder}/exp]", f"datasets=[{folder}/others]", "engine.max_workers=6")
    with caplog.at_level("WARNING", "synthfer.engine.evaluate"):
        job(tmp_path / "out", *words, "engine.cpus_per_worker=1.5")
    assert caplog.messages == [
        "5 workers of 1.5 CPUs and 0 GPUs are asked for, the cluster has room for 2: the others wait"
    ]
    check_same(tmp_path / "out", calm)


def test_answers_and_scores_are_those_of_one_process(folder, calm):
    """Every row stands once for each checkpoint and variant, in order; accuracy as scikit-learn counts it."""
    models = {f"mixed/seed-{seed}": one.restore() for seed, one in enumerate(collect(str(folder / "exp")))}
    alone = Scorer(models, ["original", "grey48"], 8, torch.device("cpu"))
    some = [alone.score(part, ("test",)) for part in unit_ranges([open_ref(str(folder / "others"))], 10)]
    truth = [label for one in some for label in one.facts["label"].to_pylist()]
    answers = pq.read_table(calm / ANSWERS)
    assert answers.column_names == ["test", "variant", "checkpoint", "sample_id", "label", "label_probs"]
    cells = {cell["variant"]: cell for cell in matrix_at(calm)["cells"]}
    for name in models:
        for variant in ("original", "grey48"):
            mine = answers.filter(
                (pa.compute.field("checkpoint") == name) & (pa.compute.field("variant") == variant)
            ).to_pydict()
            assert mine["label"] == truth and len(set(mine["sample_id"])) == 49
            probs = np.concatenate([one.probs[name, variant] for one in some])
            assert np.array_equal(np.array(mine["label_probs"], np.float32), probs)
            (run,) = (run for run in cells[variant]["runs"] if run["checkpoint"] == name)
            assert run["scores"]["accuracy"] == pytest.approx(accuracy_score(truth, probs.argmax(1)))


def test_every_form_of_the_matrix_can_be_read(calm):
    assert {path.name for path in calm.iterdir()} == FILES
    told = matrix_at(calm)
    assert told["format"] == "synthfer-matrix/1" and [test["name"] for test in told["tests"]] == ["others"]
    assert told["tests"][0]["hash"] == Dataset(told["tests"][0]["uri"]).manifest.manifest_hash
    assert [recipe["checkpoints"] for recipe in told["recipes"]] == [["mixed/seed-0", "mixed/seed-1"]]
    assert ElementTree.fromstring((calm / "matrix.svg").read_text()).tag.endswith("svg")
    page = (calm / PAGE).read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "mixed" in page and "others" in page
    table = (calm / "matrix.md").read_text()
    assert "| mixed" in table and "others" in table
    tex = (calm / "matrix.tex").read_text()
    assert tex.count(r"\begin{") == tex.count(r"\end{") > 0 and "mixed" in tex


def busy_actors() -> list[psutil.Process]:
    """Processes of actors that are scoring at this moment."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::ScoringWorker.score" in "".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def job_under_fire(folder: Path, tmp_path: Path, *words: str) -> None:
    """The job, while the first actor that scores is killed."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.is_set() and not killed:
            for process in busy_actors()[:1]:
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
            time.sleep(0.002)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        job(tmp_path / "out", f"checkpoints=[{folder}/exp]", f"datasets=[{folder}/others]", *words)
    finally:
        over.set()
        killer.join()
    assert len(killed) == 1


@pytest.mark.fault
def test_an_actor_that_is_killed_changes_nothing(folder, calm, tmp_path):
    job_under_fire(folder, tmp_path, "engine.max_workers=2")
    check_same(tmp_path / "out", calm)


@pytest.mark.fault
def test_a_worker_that_dies_gets_its_room_back_from_the_one_that_waited(folder, calm, tmp_path):
    """One fits at a time: the second takes the place of the first, whose block waits until it is back."""
    job_under_fire(folder, tmp_path, "engine.max_workers=2", "engine.cpus_per_worker=3")
    check_same(tmp_path / "out", calm)


def published(folder: Path) -> None:
    """A file as authors leave theirs: its own order of classes, and only a card that says what it learned from."""
    ours = collect(str(folder / "exp"))[0].restore()
    order = [EXPRESSIONS.index(name) for name in ORDERS["rafdb"]]
    state = ours.state_dict()
    for key in ("head.weight", "head.bias"):
        state[key] = state[key][order]
    torch.save({"state_dict": state}, folder / "raf_best.pth")
    card = yaml.safe_load(checkpoints.card_of(ours, trained_on=["rafdb:train", "others:test"]).to_yaml())
    card["input"]["classes"] = "rafdb"
    (folder / "raf_best.card.yaml").write_text(yaml.safe_dump(card))


def view_of(folder: Path) -> View:
    """The test data `others` without its first nine rows."""
    data = Dataset(str(folder / "others"))
    ids = [key for batch in data.scan(["sample_id"]) for key in batch["sample_id"].to_pylist()][:9]
    columns = {"sample_id": ids, "decision": ["rejected"] * 9, "reason": ["why"] * 9, "weight": [0.0] * 9}
    return View.create(str(folder / "view"), [data], pa.table(columns), {"name": "hand"})


def audited(folder: Path) -> None:
    """Test data `copies`, of which five rows are mirrored training faces, and what the audit job says of it."""
    mirrored = [face[:, ::-1].copy() for face in drawn_faces()[7:12]]
    copies = dataset(folder / "copies", [*mirrored, *drawn_faces(500, 9)], "test")
    words = [f"train={folder}/faces", f"test={copies}", f"out={folder}/audit", "canaries=0"]
    audit.run(load(audit.AuditJob, words), Invocation(Console(file=io.StringIO()), Console(file=io.StringIO())))


@dataclass(frozen=True)
class Large:
    """A matrix of three recipes, two experiments and a published file, on six test sets."""

    out: Path
    printed: str
    told: dict

    def cell(self, recipe: str, test: str) -> dict:
        (found,) = (cell for cell in self.told["cells"] if (cell["recipe"], cell["test"]) == (recipe, test))
        return found


@pytest.fixture(scope="module")
def large(folder, ray_session) -> Large:
    trained(folder / "second", str(folder / "faces"), 0, size=24)
    published(folder)
    view_of(folder)
    audited(folder)
    # Other pictures under other names, of which three come from training rows; and one with a training row's pixels.
    made_from = [
        *(imported_sample_id("faces", "train", str(row)) for row in range(3)),
        *(f"stranger {row}" for row in range(11)),
    ]
    dataset(folder / "tied", [*drawn_faces(400, 13), drawn_faces()[5]], "test", source_id=made_from)
    names = ("others", "parted#val+test", "faces#train", "tied", "copies", "view")
    words = (
        f"checkpoints=[{folder}/exp,{folder}/second,{folder}/raf_best.pth]",
        f"datasets=[{','.join(f'{folder}/{name}' for name in names)}]",
        f"audits=[{folder}/audit]",
        "variants=[original]",
        "baseline=second/mixed",
        "engine.max_workers=1",
    )
    summary, printed = job(folder / "large", *words)
    assert (summary["page"], summary["checkpoints"], summary["test_sets"]) == (f"{folder}/large/{PAGE}", 4, 6)
    return Large(folder / "large", printed, matrix_at(folder / "large"))


def test_datasets_name_their_own_splits(large):
    tests = {test["name"]: (test["splits"], test["rows"]) for test in large.told["tests"]}
    assert tests == {
        "others": (["test"], 49),
        "parted": (["val", "test"], 28),
        "faces": (["train"], 84),
        "tied": (["test"], 14),
        "copies": (["test"], 14),
        "view": (["test"], 40),
    }
    assert large.told["variants"] == ["original"]
    assert all(name in large.printed for name in tests)


def test_two_experiments_have_recipes_of_two_names(large):
    assert {recipe["name"]: recipe["checkpoints"] for recipe in large.told["recipes"]} == {
        "exp/mixed": ["exp/mixed/seed-0", "exp/mixed/seed-1"],
        "second/mixed": ["second/mixed/seed-0"],
        "raf_best": ["raf_best"],
    }
    assert large.cell("exp/mixed", "parted")["comparison"] and not large.cell("exp/mixed", "faces")["comparison"]


def test_what_is_clean_stays_clean(large):
    for test in ("others", "parted", "view"):
        for recipe in ("exp/mixed", "second/mixed"):
            cell = large.cell(recipe, test)
            assert (cell["contaminated"], cell["reasons"], cell["flagged_rows"]) == (False, [], 0)


def test_rows_of_the_training_data_are_contaminated_by_lineage_and_pixels(large):
    for recipe in ("exp/mixed", "second/mixed"):
        cell = large.cell(recipe, "tied")
        assert cell["contaminated"] and not cell["diagonal"]
        assert all("4 of 14 test rows are related to its training rows" in reason for reason in cell["reasons"])
        own = large.cell(recipe, "faces")
        assert own["contaminated"] and own["diagonal"]
        assert any("84 of 84 test rows are related" in reason for reason in own["reasons"])
    assert "contaminated" in (large.out / PAGE).read_text().lower()


def test_an_audit_flags_rows_that_neither_lineage_nor_pixels_tell_of(large):
    cell = large.cell("second/mixed", "copies")
    assert (cell["contaminated"], cell["flagged_rows"]) == (True, 5)
    assert cell["reasons"] == ["second/mixed/seed-0: An audit found copies of 5 of 14 test rows in its training data."]
    assert cell["runs"][0]["without_flagged"]["rows"] == 9


def test_copies_were_searched_for_where_an_audit_says_so(large):
    """One that looked at a test set and found nothing counts; those of other test sets do not."""
    assert {test["name"]: test["audited"] for test in large.told["tests"]} == {
        "others": False, "parted": False, "faces": False, "tied": False, "copies": True, "view": False
    }  # fmt: skip
    message = guard_of(large.cell("exp/mixed", "others"), "G7")["message"]
    assert "Near copies were not searched for" in message and escape(message) in (large.out / PAGE).read_text()
    assert "No audit was given (audits=) of others, parted, faces, tied, view" in (large.out / PAGE).read_text()


def test_an_audit_without_a_pair_says_what_it_looked_at(folder, large, tmp_path):
    words = [f"train={folder}/faces", f"test={folder}/others", f"out={tmp_path}/audit", "canaries=0"]
    quiet_ = Invocation(Console(file=io.StringIO()), Console(file=io.StringIO()))
    audit.run(load(audit.AuditJob, words), quiet_)
    empty = pq.read_table(tmp_path / "audit" / PAIRS_FILE)[:0]  # as where not even a warning was found
    pq.write_table(empty, tmp_path / "audit" / PAIRS_FILE)
    found = read_audits([f"{tmp_path}/audit", f"{folder}/audit"])
    own = Dataset(f"{folder}/others").manifest.manifest_hash
    assert {split for digest, split in found.covered if digest == own} == {"val", "test"}
    assert found.pairs.equals(pq.read_table(folder / "audit" / PAIRS_FILE))
    (tmp_path / "audit" / AUDIT_FILE).write_text('{"sides": {}}')
    with pytest.raises(ConfigError, match=r"audits: \S*/audit/audit\.json has no sides\.test; it is not written by"):
        read_audits([f"{tmp_path}/audit"])


def guard_of(cell: dict, name: str) -> dict:
    (found,) = (verdict for verdict in cell["runs"][0]["guards"] if verdict["guard"] == name)
    return found


def test_a_published_file_is_judged_by_its_card(large):
    """It is the network of the first seed with its classes in another order; audits cannot know what it has seen."""
    for test in ("others", "parted", "faces", "tied", "copies", "view"):
        theirs, ours = (large.cell(recipe, test)["runs"][0] for recipe in ("raf_best", "exp/mixed"))
        assert ours["checkpoint"] == "exp/mixed/seed-0"
        assert theirs["scores"] == ours["scores"] and theirs["probability"] == ours["probability"]
    classes = {name: outputs for recipe in large.told["recipes"] for name, outputs in recipe["classes"].items()}
    names = ("exp/mixed/seed-0", "exp/mixed/seed-1", "second/mixed/seed-0", "raf_best")
    assert classes == {name: list(EXPRESSIONS) for name in names}
    contaminated = {test: large.cell("raf_best", test)["contaminated"] for test in ("others", "parted", "copies")}
    assert contaminated == {"others": True, "parted": False, "copies": False}


def test_a_view_is_judged_on_what_it_shows(large, folder):
    view = View(str(folder / "view"))
    (test,) = (test for test in large.told["tests"] if test["name"] == "view")
    assert (test["hash"], test["uri"], test["rows"]) == (view.view_hash, view.uri, 40)
    answers = pq.read_table(large.out / ANSWERS)
    mine = answers.filter(pa.compute.field("test") == "view")["sample_id"].to_pylist()
    assert len(mine) == 4 * 40 and set(mine).isdisjoint(view.selection["sample_id"].to_pylist())


def test_a_checkpoint_that_is_named_twice_is_judged_once(folder, tmp_path):
    words = (f"checkpoints=[{folder}/exp,{folder}/exp/mixed/seed-0/{result.MODEL}]", f"datasets=[{folder}/others]")
    assert list(job(tmp_path / "out", *words, do=preview)[0]["trained_on"]) == ["mixed/seed-0", "mixed/seed-1"]


WRONG = [
    (
        "datasets=[{folder}/others#valid]",
        r"datasets: \S*others#valid: 'valid' is not a split; splits are train, val, test",
    ),
    ("datasets=[{folder}/parted#val,{folder}/parted]", r"datasets: \S*/parted is named twice"),
    ("datasets=[{folder}/faces]", r"no accepted labelled row of split test in \S*/faces; .*write \S*/faces#train"),
    ("datasets=[{folder}/others#train+val]", r"of split train or val in \S*/others; .*write \S*/others#test"),
    ("datasets=[]", r"checkpoints, datasets and variants: name at least one of each"),
    ("baseline=mixd", r"baseline=mixd: no such recipe.*mixed"),
    ("checkpoints=[{folder}/others]", r"there is no checkpoint at \S*/others"),
]


@pytest.mark.parametrize(("word", "message"), WRONG)
def test_what_is_wrong_is_named(word, message, folder, tmp_path):
    given = {"checkpoints": f"[{folder}/exp]", "datasets": f"[{folder}/others]"}
    words = [f"{key}={value}" for key, value in given.items() if not word.startswith(key)]
    with pytest.raises(ValueError, match=message):
        job(tmp_path / "out", *words, word.format(folder=folder))
    assert not (tmp_path / "out").exists()


def names_of(folder: Path, tmp_path: Path, *checkpoints: str) -> list[str]:
    words = (f"checkpoints=[{','.join(map(str, checkpoints))}]", f"datasets=[{folder}/others]")
    return list(job(tmp_path / "out", *words, do=preview)[0]["trained_on"])


def test_a_published_file_beside_it_changes_no_recipes_name(folder, large, tmp_path):
    """Also where its own name has to be told from another's."""
    (tmp_path / "best").mkdir()
    for name in ("raf_best.pth", "raf_best.card.yaml"):
        shutil.copy(folder / name, tmp_path / "best" / name)
    alone = names_of(folder, tmp_path, folder / "exp")
    assert alone == ["mixed/seed-0", "mixed/seed-1"]
    assert names_of(folder, tmp_path, folder / "exp", folder / "raf_best.pth") == [*alone, "raf_best"]
    both = names_of(folder, tmp_path, folder / "exp", folder / "raf_best.pth", tmp_path / "best")
    assert both == [*alone, f"{folder.name}/raf_best", "best/raf_best"]


def test_a_published_file_must_not_be_called_like_a_recipe(folder, large, tmp_path):
    for end in (".pth", ".card.yaml"):
        shutil.copy(folder / f"raf_best{end}", tmp_path / f"mixed{end}")
    with pytest.raises(
        ConfigError, match=r"seed-0/model\.safetensors and \S*/mixed\.pth are both mixed in .*rename the"
    ):
        names_of(folder, tmp_path, folder / "exp", tmp_path / "mixed.pth")


def test_two_runs_of_one_name_and_seed_are_told_what_helps(folder, tmp_path):
    """A copy within the experiment has the same card; the advice is followed, and helps."""
    shutil.copytree(folder / "exp", tmp_path / "exp")
    shutil.copytree(tmp_path / "exp" / "mixed" / "seed-0", tmp_path / "exp" / "mixed" / "renamed")
    with pytest.raises(ConfigError, match=r"are both mixed/seed-0 in the matrix; .*EXPERIMENT/NAME/SEED/model"):
        names_of(folder, tmp_path, tmp_path / "exp")
    (tmp_path / "again" / "mixed").mkdir(parents=True)
    (tmp_path / "exp" / "mixed" / "renamed").rename(tmp_path / "again" / "mixed" / "seed-0")
    found = names_of(folder, tmp_path, tmp_path / "exp", tmp_path / "again")
    assert found == ["exp/mixed/seed-0", "exp/mixed/seed-1", "again/mixed/seed-0"]


def test_two_checkpoints_of_one_name_are_refused(folder, tmp_path):
    """Nothing tells best.pth from best.safetensors in a table."""
    model = collect(str(folder / "exp"))[0].restore()
    checkpoints.save(model, tmp_path / "best.safetensors")
    torch.save(model.state_dict(), tmp_path / "best.pth")
    with pytest.raises(
        ConfigError, match=r"checkpoints: \S*best\.pth and \S*best\.safetensors are both best in .*rename the"
    ):
        job(tmp_path / "out", f"checkpoints=[{tmp_path}]", f"datasets=[{folder}/others]", do=preview)


def test_splits_without_a_label_are_not_recommended(folder, tmp_path):
    mute = data_at(tmp_path, "mute", number=7, splits=["test"] * 5 + ["val"] * 2, label=[None] * 5 + [1, None])
    with pytest.raises(ConfigError, match=r"there are rows of val: write \S*mute#val$"):
        job(tmp_path / "out", f"checkpoints=[{folder}/exp]", f"datasets=[{mute}]")
    silent = data_at(tmp_path, "silent", number=3, splits="test", label=[None] * 3)
    with pytest.raises(ConfigError, match=r"of split test in \S*silent; leave it out$"):
        job(tmp_path / "out", f"checkpoints=[{folder}/exp]", f"datasets=[{silent}]")


def test_an_error_inside_an_actor_comes_out_as_its_cause(folder, tmp_path):
    image = [{"bytes": b"no picture", "path": None}] * 3
    bad = data_at(tmp_path, "bad", number=3, splits="test", image=image)
    with pytest.raises(ValueError, match=r"^\S*bad, sample [0-9a-f]{32}: image: cannot be read") as caught:
        job(tmp_path / "out", f"checkpoints=[{folder}/exp]", f"datasets=[{bad}]", "engine.max_workers=1")
    assert type(caught.value) is ValueError


def test_a_dry_run_opens_everything_and_writes_nothing(folder, tmp_path):
    words = (f"checkpoints=[{folder}/exp]", f"datasets=[{folder}/parted#val+test]")
    told, _ = job(tmp_path / "out", *words, do=preview)
    assert told["datasets"] == {"parted": f"{folder}/parted, val and test"}
    assert told["trained_on"] == {"mixed/seed-0": "faces:train", "mixed/seed-1": "faces:train"}
    assert not (tmp_path / "out").exists()


def test_results_on_s3_replace_older_ones(folder, s3_uri):
    store = open_store(f"{s3_uri}/out")
    store.put_new(MATRIX, b"an older one")
    words = (f"checkpoints=[{folder}/exp]", f"datasets=[{folder}/others]", "variants=[grey48]", "engine.max_workers=1")
    job(f"{s3_uri}/out", *words)
    assert {key for key, _ in store.list()} == FILES
    assert json.loads(store.get(MATRIX))["variants"] == ["grey48"]


@pytest.mark.parametrize(
    ("uris", "names"),
    [
        (["/a/x", "/b/y"], ["x", "y"]),
        (["/a/x", "/b/x", "s3://c/y"], ["a/x", "b/x", "c/y"]),
        (["/x", "/a/x"], ["/x", "a/x"]),
        (["s3://b/x"], ["x"]),
    ],
)
def test_titles_are_the_shortest_ends_that_differ(uris, names):
    assert shortest_names(uris) == names
    assert shortest_names([*uris, uris[0]], unique=False) == [*names, names[0]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("architecture: small", "architecture: os.path", "the architecture in its card: unknown classifier 'os.path'"),
        ("architecture: small", "architecture: '..'", "the architecture in its card: unknown classifier"),
        ("channels:", "chanels:", "channels"),
    ],
)
def test_a_dry_run_names_a_card_that_means_no_network(folder, tmp_path, old, new, message):
    shutil.copytree(folder / "exp" / "mixed" / "seed-0", tmp_path / "run")
    card = tmp_path / "run" / "model.card.yaml"
    assert old in card.read_text()
    card.write_text(card.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        job(tmp_path / "out", f"checkpoints=[{tmp_path}/run]", f"datasets=[{folder}/others]", do=preview)


@pytest.mark.parametrize("name", ["os.path", "nope.x", "tests.hostile.broken_module"])
def test_a_module_that_is_no_classifier_is_named(folder, tmp_path, name):
    words = f"checkpoints=[{folder}/exp]", f"datasets=[{folder}/others]", f"modules=[{name}]"
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        job(tmp_path / "out", *words, do=preview)
