"""Opening training data: every mistake is told, every row has its role, nothing of split test is read."""

import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from synthfer.classifiers.training_fingerprint import TrainingFingerprint
from synthfer.config import load
from synthfer.expressions import EXPRESSIONS
from synthfer.sample import SCHEMA
from synthfer.schema import ConfigError
from synthfer.store import Dataset, Spec
from synthfer.store.view import View
from synthfer.training.data import Data, open_data
from synthfer.training.settings import TrainConfig
from tests.audit.datasets import dataset

PHOTOGRAPHS = {"name": "camera", "source_type": "digitalCapture"}


def noise(rows: int, seed: int = 0) -> list[np.ndarray]:
    """Pictures of 8 x 8 pixels, no two alike."""
    return list(np.random.default_rng(seed).integers(0, 256, (rows, 8, 8, 3), np.uint8))


def made(uri: Path, rows: int = 70, seed: int = 0, **columns) -> str:
    return dataset(uri, noise(rows, seed), **columns)


def made_by(uri: Path, producer: dict, there: str) -> str:
    """The dataset at `there` again, with another producer."""
    old = Dataset(there)
    spec = Spec(**{name: getattr(old.spec, name) for name in ("plan", "image", "rows", "unit_size")}, producer=producer)
    new = Dataset.create(str(uri), spec)
    for unit in range(spec.units):
        new.commit(unit, pa.Table.from_batches(old.scan(SCHEMA.names, units=[unit]), SCHEMA), {})
    new.seal()
    return str(uri)


def config(data: dict[str, str], **keys) -> TrainConfig:
    words = {"out": "x", "data": data, **keys}
    return load(TrainConfig, [f"{key}={json.dumps(value)}" for key, value in words.items()])


def opened(data: dict[str, str], **keys) -> Data:
    return open_data(config(data, **keys))


def problems(data: dict[str, str], **keys) -> str:
    with pytest.raises(ConfigError) as told:
        opened(data, **keys)
    return str(told.value)


def ids(data: Data, role: str) -> list[str]:
    return data.rows.filter(pc.equal(data.rows["role"], role))["sample_id"].to_pylist()


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> str:
    """70 photographs: the first 56 of split train, then 7 of val and 7 of test."""
    folder = tmp_path_factory.mktemp("real")
    splits = ["train"] * 56 + ["val"] * 7 + ["test"] * 7
    return made_by(folder / "camera", PHOTOGRAPHS, made(folder / "real", splits=splits))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> str:
    return made(tmp_path_factory.mktemp("drawn") / "drawn", seed=1)


@pytest.fixture(scope="module")
def both(real, drawn) -> dict[str, str]:
    return {"real": real, "drawn": drawn}


def test_rows_stand_in_reading_order_with_all_that_training_needs(both, real):
    data = opened(both)
    whole = pa.Table.from_batches(Dataset(real).scan(["sample_id", "label", "split", "pixels_hash"]))
    mine = data.rows.filter(pc.equal(data.rows["name"], 0))
    wanted = whole.filter(pc.not_equal(whole["split"], "test"))
    for name in wanted.column_names:
        assert mine[name].to_pylist() == wanted[name].to_pylist()
    assert mine["place"].to_pylist() == list(range(63))
    assert data.rows["name"].to_pylist() == [0] * 63 + [1] * 70
    assert data.rows["part"].to_pylist() == [0] * 63 + [1] * 70
    assert [source.synthetic for source in data.sources] == [False, True]
    assert set(data.rows["weight"].to_pylist()) == {1.0}
    assert data.labels.dtype == np.int64 and data.labels.tolist() == data.rows["label"].to_pylist()


def test_split_val_of_the_real_data_is_validation_data(both):
    data = opened(both)
    val = data.rows.filter(pc.equal(data.rows["role"], "val"))
    assert val["split"].to_pylist() == ["val"] * 7
    assert (data.count("train"), data.count("val"), data.count("out")) == (126, 7, 0)


def test_split_val_of_synthetic_data_is_not_read_beside_real_data(tmp_path, real):
    drawn = made(tmp_path / "d", splits=["val"] * 35 + ["train"] * 35, seed=3)
    data = opened({"real": real, "drawn": drawn})
    assert data.count("val") == 7
    assert data.rows.num_rows == 63 + 35
    assert opened({"drawn": drawn}).count("val") == 35  # all are synthetic


def test_split_val_may_be_trained_on_and_a_part_is_cut_off_then(real):
    data = opened({"real": real}, splits=["train", "val"], validation_share=0.2)
    assert data.rows.num_rows == 63
    val = data.labels[data.numbers("val")]
    assert np.bincount(val, minlength=7).tolist() == [2] * 7  # of 9 each
    assert len({*ids(data, "train"), *ids(data, "val")}) == 63


def test_validation_data_may_be_named(tmp_path, both):
    held = made(tmp_path / "held", rows=21, seed=9, splits=["train"] * 7 + ["val"] * 7 + ["test"] * 7)
    data = opened(both, validation=held)
    assert data.validation is not None and data.validation.dataset_ref.uri == Dataset(held).uri
    assert data.rows["name"].to_pylist() == [0] * 56 + [1] * 70 + [-1] * 7
    assert [data.rows["split"][i].as_py() for i in data.numbers("val")] == ["val"] * 7
    assert data.describe()["validation"]["rows"]["val"] == dict.fromkeys(EXPRESSIONS, 1)
    no_val = made(tmp_path / "noval", rows=14, seed=10, splits=["train"] * 7 + ["test"] * 7)
    assert opened(both, validation=no_val).count("val") == 7


def test_training_rows_tied_to_validation_rows_are_left_out_and_counted(tmp_path, real, caplog):
    parents = pa.Table.from_batches(Dataset(real).scan(["sample_id", "split"]))
    val = parents.filter(pc.equal(parents["split"], "val"))["sample_id"].to_pylist()
    lineage = {"parent_id": [*val, *[None] * 63]}
    data = opened({"real": real, "edits": made(tmp_path / "edits", seed=5, **lineage)})
    assert data.numbers("out").tolist() == list(range(63, 70))
    assert "data.edits: 7 rows share a sample, original, identity or pixels with validation rows" in caplog.text
    kept = data.rows.filter(pc.equal(data.rows["role"], "train"))
    assert not TrainingFingerprint.of(kept).related(data.rows.filter(pc.equal(data.rows["role"], "val"))).any()


def test_views_give_their_decisions_and_weights(tmp_path, real, drawn):
    names = pa.Table.from_batches(Dataset(drawn).scan(["sample_id"]))["sample_id"].to_pylist()
    selection = pa.table({"sample_id": names[:3], "decision": ["rejected", "accepted", "accepted"],
                          "reason": ["blurred", None, None], "weight": [1.0, 0.25, 2.0]})  # fmt: skip
    view = View.create(str(tmp_path / "view"), [Dataset(drawn)], selection, {"name": "test"})
    data = opened({"view": view.uri, "real": real}, synthetic=["view"])
    mine = data.rows.filter(pc.equal(data.rows["name"], 0))
    assert mine["sample_id"].to_pylist() == names[1:]
    assert mine["weight"].to_pylist() == [0.25, 2.0] + [1.0] * 67
    assert data.sources[0].dataset_ref.hash == view.view_hash
    assert data.describe()["sources"][0]["view"]


def test_a_view_with_a_weight_below_zero_is_told(tmp_path, drawn):
    name = next(Dataset(drawn).scan(["sample_id"]))["sample_id"][0].as_py()
    row = {"sample_id": [name], "decision": ["accepted"], "reason": [""], "weight": [-1.0]}
    with pytest.raises(ValueError, match="a weight that is no number from 0 up"):
        View.create(str(tmp_path / "view"), [Dataset(drawn)], pa.table(row), {})


def test_labels_come_from_label_probs_where_there_is_no_label(tmp_path, caplog):
    soft = [None] * 70
    soft[:3] = [[0.1] * 5 + [0.4, 0.1], [0.0] * 6 + [1.0], [1.0] + [0.0] * 6]
    labels = [None, None, 4, None, *(row % 7 for row in range(4, 70))]
    data = opened({"a": made(tmp_path / "a", label=labels, label_probs=soft)})
    assert data.rows.num_rows == 69
    assert data.labels[:4].tolist() == [5, 6, 4, 4]  # the fourth row has neither
    assert data.rows["place"].to_pylist()[:4] == [0, 1, 2, 4]
    assert data.rows["label_probs"][0].as_py() == pytest.approx(soft[0])
    assert "data.a: 1 of 70 rows have no label and are left out" in caplog.text


@pytest.mark.parametrize("wrong", [[0.5, 0.5], [float("nan")] * 7])
def test_label_probs_that_are_none_are_not_stored(tmp_path, wrong):
    with pytest.raises(ValueError, match="label_probs"):
        made(tmp_path / "a", rows=14, label_probs=[wrong] + [None] * 13)


@pytest.mark.parametrize("wrong", [[0.0] * 7, [-0.5, 1.5, 0, 0, 0, 0, 0]])
def test_wrong_label_probs_are_told(tmp_path, wrong):
    uri = made(tmp_path / "a", rows=14, label_probs=[wrong] + [None] * 13)
    assert "label_probs are not 7 numbers of at least 0, one above 0" in problems({"a": uri})


def test_all_that_is_wrong_with_the_config_is_told_at_once(real, tmp_path):
    text = problems(
        {"rafdb": real, "gone": str(tmp_path / "nowhere")},
        mix={"rafbd": 1.0}, synthetic=["sd3"], splits=["train", "test"], ancestors=["rafdb", "rafdb:train", "x:all"],
        validation=str(tmp_path / "nothing"),
    )  # fmt: skip
    for part in (
        "mix: no data is called 'rafbd'; did you mean 'rafdb'?",
        "mix gives no share to rafdb, gone",
        "synthetic: no data is called 'sd3'",
        "training does not open the split test",
        "ancestors: 'rafdb' is not of the form collection:split",
        "ancestors: 'x:all' is not",
        "data.gone: there is no dataset at",
        "validation: there is no dataset at",
    ):
        assert part in text
    assert "'rafdb:train'" not in text


def test_data_that_is_not_whole_is_told(tmp_path):
    spec = Spec(plan={}, producer={}, image={}, rows=3, unit_size=3)
    Dataset.create(str(tmp_path / "half"), spec)
    assert "is not complete" in problems({"half": str(tmp_path / "half")})
    assert "data is empty" in problems({})


def test_shares_that_cannot_be_are_told(both):
    assert "at least 0 are needed, one of them above 0" in problems(both, mix={"real": 0, "drawn": 0})
    assert "less than one row in a batch of 16" in problems(both, mix={"real": 1, "drawn": 0.01}, batch=16)
    assert "mix gives no share to drawn: give one, 0 to leave it out" in problems(both, mix={"real": 1})
    assert opened(both, mix={"real": 1, "drawn": 3}).count("train") == 126  # relative shares


def test_rows_and_labels_that_are_not_there_are_told(tmp_path, both):
    empty = made(tmp_path / "empty", rows=7, splits="test")
    blank = made(tmp_path / "blank", rows=7, label=[None] * 7)
    text = problems({**both, "empty": empty, "blank": blank})
    assert f"data.empty: {Dataset(empty).uri} has no accepted row of split train" in text
    assert f"data.blank: none of the 7 accepted rows of {Dataset(blank).uri} has a label" in text


def test_an_expression_without_a_training_row_is_told(tmp_path):
    few = made(tmp_path / "few", rows=40, label=[row % 5 for row in range(40)])
    assert "no training row shows sad, surprise: add data that does" in problems({"few": few})
    rest = made(tmp_path / "rest", rows=14, seed=2)
    assert opened({"few": few, "rest": rest}).count("train") > 0
    assert "no training row shows sad, surprise" in problems({"few": few, "rest": rest}, mix={"few": 1, "rest": 0})


def test_the_same_samples_under_two_names_are_told(tmp_path, drawn, real):
    again = made_by(tmp_path / "again", {"name": "other"}, drawn)
    assert "data.a and data.b have 70 samples in common" in problems({"a": drawn, "b": again}, validation=real)
    same_plan = made_by(tmp_path / "x" / "drawn", {"name": "o"}, made(tmp_path / "drawn", seed=77))
    data = opened({"a": drawn, "b": same_plan})  # equal ids, other pictures
    assert data.count("train") + data.count("val") == 140
    assert (
        not TrainingFingerprint.of(data.rows.take(data.numbers("train")))
        .related(data.rows.take(data.numbers("val")))
        .any()
    )


def test_a_source_that_is_all_validation_data_is_told(real, tmp_path):
    text = problems({"real": real}, validation=made_by(tmp_path / "copy", PHOTOGRAPHS, real), splits=["val"])
    assert "data.real: no row is left to train on, as all are validation data or tied to it" in text


def test_rows_that_all_descend_from_each_other_cannot_be_split(tmp_path):
    assert "no part can be cut off" in problems({"a": made(tmp_path / "a", source_id=["one"] * 70)})


def test_a_view_of_both_kinds_must_be_told_apart(tmp_path, real, drawn):
    selection = pa.table({name: pa.array([], kind) for name, kind in
                          (("sample_id", "string"), ("decision", "string"), ("reason", "string"), ("weight", "double"))
                          })  # fmt: skip
    view = View.create(str(tmp_path / "view"), [Dataset(real), Dataset(drawn)], selection, {"trained_on": ["v:val"]})
    assert "the view shows real and synthetic datasets" in problems({"all": view.uri})
    data = opened({"all": view.uri}, synthetic=[])
    assert data.rows["part"].to_pylist() == [0] * 63 + [1] * 70
    assert data.rows["place"].to_pylist() == [*range(63), *range(70)]
    assert "v:val" in data.describe()["sources"][0]["trained_on"]


def test_ancestors_are_those_that_are_declared(tmp_path, real, drawn):
    uri = made_by(tmp_path / "gan", {"name": "gan", "trained_on": ["rafdb:train"]}, drawn)
    told = opened({"real": real, "gan": uri}, ancestors=["affectnet:train"]).describe()
    camera, gan = told["sources"]
    assert gan["trained_on"] == ["affectnet:train", "drawn:train", "rafdb:train"]
    assert camera["trained_on"] == ["real:train"]
    assert camera["collections"] == {"train": ["real:train"], "val": ["real:val"], "out": []}
    alone = opened({"real": real}, ancestors=["affectnet:train"]).describe()
    assert alone["sources"][0]["trained_on"] == ["affectnet:train", "real:train"]  # a teacher's labels
    wrong = made_by(tmp_path / "wrong", {"trained_on": "rafdb"}, drawn)
    assert "trained_on: 'rafdb' is no list" in problems({"wrong": wrong})


def test_what_is_described_is_json_and_counts_every_row(both):
    data = opened(both, synthetic=["real"])
    told = data.describe()
    assert json.loads(json.dumps(told)) == told
    assert told["validation"] is None
    assert [source["synthetic"] for source in told["sources"]] == [True, False]
    assert sum(sum(rows.values()) for source in told["sources"] for rows in source["rows"].values()) == len(data.rows)
    assert [source["hash"] for source in told["sources"]] == [
        Dataset(uri).manifest.manifest_hash for uri in both.values()
    ]


def test_opened_data_goes_to_workers_and_is_the_same_each_time(both):
    data = opened(both)
    sent = pickle.loads(pickle.dumps(data))  # noqa: S301 - our own, as Ray sends it
    assert sent.rows.equals(data.rows) and sent.parts == data.parts
    assert sent.describe() == data.describe()
    assert opened(both).rows.equals(data.rows)


def test_missing_expressions_of_validation_data_are_a_warning(tmp_path, both, caplog):
    held = made(tmp_path / "held", rows=6, seed=4)
    with caplog.at_level(logging.WARNING):
        opened(both, validation=held)
    assert "validation data has no row of surprise" in caplog.text
