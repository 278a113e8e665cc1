"""On a real extract of FER2013: the small classifier learns, and re-weighting helps where the tail is long."""

import json
from pathlib import Path

import pytest

from synthfer.planning.longtail import long_tail
from synthfer.store import Dataset, View
from synthfer.store.dataset_ref import open_ref
from tests.ray_sessions import start_job


def done(job: str, *words: str, code: int = 0) -> dict:
    process = start_job(job, "--json", *words)
    out, err = process.communicate(timeout=1500)
    assert process.returncode == code, err
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def fer(shared_data, tmp_path_factory) -> str:
    out = str(tmp_path_factory.mktemp("data") / "fer")
    done("ingest.py", "source=fer2013", f"path={shared_data}/fer2013_small.parquet", f"out={out}")
    return out


@pytest.fixture(scope="module")
def clean(fer, tmp_path_factory) -> str:
    """The training pictures without the copies of held-out ones, of which this collection has many."""
    out = tmp_path_factory.mktemp("audit")
    done("audit.py", f"train={fer}", f"test={fer}", "test_splits=[val]", f"out={out}", "dedupe=true", code=1)
    return str(out / "view")


def scores(out: Path, fer: str, experiments: list[str]) -> dict[str, dict[str, float]]:
    """Mean accuracy and macro F1 of each recipe on the held-out pictures, which no training has opened."""
    told = done("evaluate.py", f"checkpoints=[{','.join(experiments)}]", f"datasets=[{fer}#val]", f"out={out}")
    cells = [cell for cell in told["cells"] if cell["variant"] == "original"]
    assert not any(cell["contaminated"] for cell in cells)
    return {cell["recipe"]: {name: cell["mean"][name]["mean"] for name in ("accuracy", "macro_f1")} for cell in cells}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_small_classifier_reaches_half_of_fer2013(fer, clean, tmp_path):
    done("train.py", f"data.fer={clean}", "validation=cut", f"out={tmp_path}/runs")
    (found,) = scores(tmp_path / "matrix", fer, [f"{tmp_path}/runs"]).values()
    assert found["accuracy"] >= 0.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_reweighting_helps_a_long_tail(fer, clean, tmp_path):
    tail = str(tmp_path / "tail")
    selection = View(clean).narrowed(long_tail(open_ref(clean), 100, seed=0))
    View.create(tail, [Dataset(fer)], selection, {"job": "test"})
    for name, power in (("plain", 0), ("reweighted", 0.5)):
        done("train.py", f"data.tail={tail}", "validation=cut", f"sampler_power={power}", f"out={tmp_path}/{name}")
    found = scores(tmp_path / "matrix", fer, [f"{tmp_path}/plain", f"{tmp_path}/reweighted"])
    assert found["plain/real_only"]["macro_f1"] + 0.05 < found["reweighted/real_only"]["macro_f1"]
