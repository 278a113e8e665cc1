"""Scoring: answers are the network's own for each picture, whatever the parts and batches, and labelled rows only."""

import io
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from synthfer import classifiers, images
from synthfer.classifiers import InputSpec
from synthfer.classifiers.network import Classifier
from synthfer.evaluation.inputs import VARIANTS
from synthfer.evaluation.scoring import FACTS, Scored, Scorer
from synthfer.sample import SCHEMA
from synthfer.store import Dataset
from synthfer.store.dataset_ref import UnitRange, open_ref, unit_ranges
from synthfer.store.view import View
from tests.audit.datasets import dataset, faces

CPU = torch.device("cpu")
SPLITS = ["test", "val", "test", "train", "test"]


def network(seed: int, size: int) -> Classifier:
    torch.manual_seed(seed)
    return classifiers.build("small", channels=(4,), spec=InputSpec(size=size))


@pytest.fixture(scope="module")
def models() -> dict[str, Classifier]:
    """Of two sizes."""
    return {"a": network(1, 16), "b": network(2, 24), "c": network(3, 16)}


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    """Twenty-three drawn faces of odd sizes in units of four; some without a label, some rejected, in three splits."""
    drawn = faces(range(23))
    pictures = [face[: 64 - row % 5, : 64 - row % 3].copy() for row, face in enumerate(drawn)]
    return dataset(
        tmp_path_factory.mktemp("data") / "mixed",
        pictures,
        [SPLITS[row % 5] for row in range(23)],
        unit_size=4,
        label=[None if row % 7 == 4 else row % 7 for row in range(23)],
        decision=["rejected" if row % 11 == 10 else "accepted" for row in range(23)],
    )


def wanted(uri: str, splits: tuple[str, ...]) -> list[dict]:
    """The rows to be judged, by hand."""
    rows = [row for batch in Dataset(uri).scan(SCHEMA.names) for row in batch.to_pylist()]
    return [r for r in rows if r["split"] in splits and r["decision"] == "accepted" and r["label"] is not None]


def by_hand(model: Classifier, variant: str, rows: list[dict]) -> np.ndarray:
    """One picture at a time, decoded by Pillow."""
    found = []
    for row in rows:
        pixels = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
        shown = images.grey48(pixels) if variant == "grey48" else pixels
        picture = torch.from_numpy(images.square(shown, model.input.size)).permute(2, 0, 1)[None]
        with torch.no_grad():
            found.append(model.eval()(picture).logits.double().softmax(1)[0].numpy())
    return np.array(found)


def scored(uri: str, scorer: Scorer, splits: tuple[str, ...], rows: int) -> list[Scored]:
    return [scorer.score(part, splits) for part in unit_ranges([open_ref(uri)], rows)]


@pytest.mark.parametrize(("batch", "rows"), [(1, 4), (3, 8), (5, 1000), (64, 12)])
def test_answers_are_those_of_the_network_for_each_picture(batch, rows, models, uri):
    splits = ("test", "val")
    found = scored(uri, Scorer(models, VARIANTS, batch, CPU), splits, rows)
    expected = wanted(uri, splits)
    facts = [row for one in found for row in one.facts.to_pylist()]
    assert facts == [{name: row[name] for name in FACTS} for row in expected]
    for name, model in models.items():
        for variant in VARIANTS:
            probs = np.concatenate([one.probs[name, variant] for one in found if one.probs])
            assert probs.dtype == np.float32
            np.testing.assert_allclose(probs, by_hand(model, variant, expected), atol=2e-6)


def test_the_variants_differ_and_only_those_asked_for_are_scored(models, uri):
    (both,) = scored(uri, Scorer(models, VARIANTS, 64, CPU), ("test",), 1000)
    assert both.probs.keys() == {(name, variant) for name in models for variant in VARIANTS}
    assert not np.allclose(both.probs["a", "original"], both.probs["a", "grey48"])
    (grey,) = scored(uri, Scorer(models, ["grey48"], 64, CPU), ("test",), 1000)
    assert grey.probs.keys() == {(name, "grey48") for name in models}
    assert all(np.array_equal(probs, both.probs[key]) for key, probs in grey.probs.items())


def test_a_network_in_training_is_judged_as_it_will_be_used(uri):
    model = network(1, 16).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    (found,) = scored(uri, Scorer({"a": model}, ["original"], 2, CPU), ("test",), 1000)
    assert not model.training and all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    np.testing.assert_allclose(
        found.probs["a", "original"], by_hand(model, "original", wanted(uri, ("test",))), atol=2e-6
    )


def test_a_part_alone_decides_over_its_answers(models, uri):
    """A worker that has scored other parts before gives the same bytes."""
    scorer = Scorer(models, VARIANTS, 3, CPU)
    there = list(unit_ranges([open_ref(uri)], 8))
    first = [scorer.score(part, ("test",)) for part in there]
    again = [Scorer(models, VARIANTS, 3, CPU).score(part, ("test",)) for part in reversed(there)][::-1]
    for one, other in zip(first, again, strict=True):
        assert one.facts.equals(other.facts) and one.probs.keys() == other.probs.keys()
        assert all(np.array_equal(probs, other.probs[key]) for key, probs in one.probs.items())


def test_a_view_is_opened_once_for_all_its_parts(models, uri, tmp_path):
    data = Dataset(uri)
    ids = [row["sample_id"] for row in wanted(uri, ("test",))[:3]]
    columns = {"sample_id": ids, "decision": ["rejected"] * 3, "reason": ["why"] * 3, "weight": [0.0] * 3}
    view = View.create(str(tmp_path / "view"), [data], pa.table(columns), {"name": "hand"})
    there = list(unit_ranges([open_ref(view.uri)], 8))
    fresh = [Scorer(models, VARIANTS, 3, CPU).score(part, ("test",)) for part in there]
    scorer = Scorer(models, VARIANTS, 3, CPU)
    found = [scorer.score(there[0], ("test",))]
    shutil.rmtree(view.uri)
    found += [scorer.score(part, ("test",)) for part in there[1:]]
    assert len(there) == 3 and all(one.facts.equals(other.facts) for one, other in zip(found, fresh, strict=True))
    kept = [key for one in found for key in one.facts["sample_id"].to_pylist()]
    assert kept == [row["sample_id"] for row in wanted(uri, ("test",))[3:]]


def test_a_part_without_a_labelled_row_has_no_answers(models, tmp_path):
    blank = dataset(tmp_path / "blank", faces(range(3)), "test", label=[None] * 3)
    (part,) = unit_ranges([open_ref(blank)], 100)
    found = Scorer(models, VARIANTS, 2, CPU).score(part, ("test",))
    assert found.facts.num_rows == 0 and found.facts.column_names == list(FACTS) and found.probs == {}
    assert Scorer(models, VARIANTS, 2, CPU).score(part, ("val",)).facts.num_rows == 0


@pytest.mark.parametrize("body", [b"no picture", b""])
def test_an_unreadable_picture_is_named(body, models, tmp_path):
    good = images.encode(faces([0])[0])
    files = [{"bytes": good, "path": None}, {"bytes": body, "path": None}]
    bad = dataset(tmp_path / "bad", faces(range(2)), "test", image=files)
    key = wanted(bad, ("test",))[1]["sample_id"]
    with pytest.raises(ValueError, match=rf"^{bad}, sample {key}: .*; leave it out by a view$"):
        Scorer(models, VARIANTS, 2, CPU).score(UnitRange(bad, (0,)), ("test",))
