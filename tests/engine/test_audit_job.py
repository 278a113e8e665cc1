"""The audit job on Ray: the same pairs as in one process, three files, a view without the rows that fail."""

import io
import json

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from synthfer.audit.audit import audit
from synthfer.cli import COMPLETE, FAILURE, Invocation
from synthfer.config import load
from synthfer.engine.audit import AuditJob, preview, run
from synthfer.guards.verdict import PAIRS
from synthfer.store import open_store
from synthfer.store.view import View
from tests.audit.datasets import dataset, faces

pytestmark = pytest.mark.usefixtures("ray_session")
WORDS = ("train_block=32", "test_block=16", "canaries=4")


@pytest.fixture(scope="module")
def sides(tmp_path_factory) -> tuple[str, str]:
    """Eighty training faces; of thirty test faces the last ten are training faces, five of them mirrored."""
    folder = tmp_path_factory.mktemp("sides")
    known, strange = faces(range(80)), faces(range(2000, 2020))
    copies = [*known[:5], *(face[:, ::-1].copy() for face in known[5:10])]
    return dataset(folder / "train", known), dataset(folder / "test", [*strange, *copies], "test")


def job(sides, out, *words) -> tuple[int, dict, str]:
    """Exit code, summary, and what was printed."""
    printed = io.StringIO()
    config = load(AuditJob, [f"train={sides[0]}", f"test={sides[1]}", f"out={out}", *WORDS, *words])
    outcome = run(config, Invocation(Console(file=printed, width=200), Console(file=io.StringIO())))
    return outcome.code, dict(outcome.summary), printed.getvalue()


def test_ray_finds_what_one_process_finds_and_writes_it(sides, tmp_path):
    code, summary, printed = job(sides, tmp_path / "audit", "dedupe=true")
    alone = audit(load(AuditJob, [f"train={sides[0]}", f"test={sides[1]}", "out=x", *WORDS]))
    pairs = pq.read_table(tmp_path / "audit" / "pairs.parquet")
    assert code == FAILURE
    assert pairs.schema.equals(PAIRS)
    assert pairs.equals(alone.pairs)
    told = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert told == json.loads(json.dumps(alone.to_json()))
    assert summary["flagged"] == {"train": 10, "test": 10}
    assert "fail: 10 train and 10 test rows" in printed
    assert f"see {summary['page']}" in printed
    page = (tmp_path / "audit" / "index.html").read_text()
    assert "Contaminated" in page
    assert page.count("data:image") >= 20

    view = View(summary["view"])
    assert sum(weight for batch in view.scan(["sample_id"]) for weight in batch["weight"].to_pylist()) == 70
    again, second, _ = job((view.uri, sides[1]), tmp_path / "again", "dedupe=true")
    assert again == COMPLETE
    assert second["flagged"] == {"train": 0, "test": 0}
    assert View(second["view"]).selection.equals(view.selection)  # what was left out stays out


def test_a_report_goes_to_s3_and_replaces_an_older_one(sides, s3_uri):
    for _ in range(2):
        job(sides, f"{s3_uri}/audit", "canaries=0")
    store = open_store(f"{s3_uri}/audit")
    assert sorted(key for key, _ in store.list("")) == ["audit.json", "index.html", "pairs.parquet"]


def test_a_dry_run_opens_both_sides_and_writes_nothing(sides, tmp_path):
    config = load(AuditJob, [f"train={sides[0]}", f"test={sides[1]}", f"out={tmp_path / 'out'}"])
    told = preview(config, Invocation(Console(file=io.StringIO()), Console(file=io.StringIO()))).summary
    assert [told[name]["rows"] for name in ("train", "test")] == [80, 30]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", [0, 1])
def test_an_error_inside_a_task_comes_out_as_its_cause(sides, tmp_path, side):
    image = [{"bytes": b"no picture", "path": None}] * 5
    bad = dataset(tmp_path / "bad", faces(range(5)), ("train", "test")[side], image=image)
    pair = (bad, sides[1]) if side == 0 else (sides[0], bad)
    with pytest.raises(ValueError, match=r"^[^\n]*bad, sample [0-9a-f]{32}: image: cannot be read") as caught:
        job(pair, tmp_path / "out")
    assert type(caught.value) is ValueError


def test_what_is_wrong_comes_without_a_stack(sides, tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        job((str(tmp_path / "absent"), sides[1]), tmp_path / "out")
    with pytest.raises(ValueError, match=r"^[^\n]*no file absent\.parquet"):
        job(sides, tmp_path / "out", "predictions=absent.parquet")
