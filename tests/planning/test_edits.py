"""Plans of edits: each face as often as was asked, its lineage kept, its code as the design says."""

import json
import math
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from synthfer.config import load
from synthfer.expressions import EXPRESSIONS
from synthfer.planning import edits
from synthfer.planning.faces import INHERITED, FaceTable, open_faces, read_faces
from synthfer.schema import ConfigError
from synthfer.store import View, open_store
from synthfer.store.dataset_ref import open_ref
from synthfer.store.view import SCHEMA
from tests.planning.face_datasets import even, faces_dataset


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> str:
    return forty_faces(tmp_path_factory.mktemp("faces") / "d")


def forty_faces(folder, **options) -> str:
    """Forty faces of twenty identities; those of two are of split test, and one is rejected."""
    people = [f"person-{i // 2}" for i in range(40)]
    splits = ["test" if i >= 36 else "train" for i in range(40)]
    return faces_dataset(folder, even(40), identities=people, splits=splits, rejected=(4,), kind="real", **options)


def plan(faces: str, *words: str) -> edits.EditPlan:
    return edits.build(load(edits.Config, [f"faces={faces}", *words]))


def test_each_identity_in_all_seven_with_its_lineage_and_split(faces):
    made = plan(faces)
    rows = made.rows(range(len(made)))
    assert len(rows) == 18 * 7  # identities of split train
    by_face = Counter(row.parent_id for row in rows)
    assert set(by_face.values()) == {7} and len(by_face) == 18
    assert "face-0004" not in by_face  # rejected
    for row in rows:
        number = int(row.parent_id[-4:])
        assert row.source_id == f"person-{number // 2}" and row.split == "train" and row.real
        assert dict(row.attributes) == {"gender": "female" if number % 2 else "male"}  # not the intensity of the source
        assert (row.operation, row.code) == ("expression", (1.0,))
        assert made.faces.image_ref(row.faces[0]).sample_id == row.parent_id
    assert Counter(row.label for row in rows) == dict.fromkeys(range(7), 18)
    assert len({row.sample_id for row in rows}) == len(rows)


def test_by_face_every_face_is_used_and_prefixes_are_balanced(faces):
    made = plan(faces, "by=face", "per_face=one", "splits=[train,test]")
    rows = made.rows(range(len(made)))
    assert len(rows) == len({row.parent_id for row in rows}) == 39
    assert {row.split for row in rows} == {"train", "test"}
    for end in range(1, 40):
        counts = Counter(row.label for row in rows[:end])
        assert max(counts.values()) - min(counts.get(i, 0) for i in range(7)) <= 2


def test_labels_that_are_made_are_not_tied_to_those_of_the_faces(tmp_path):
    uri = faces_dataset(tmp_path / "d", even(210))
    made = plan(uri, "per_face=one")
    same = sum(int(row.parent_id[-4:]) % 7 == row.label for row in made.rows(range(210)))
    assert 12 <= same <= 50  # 30 by chance


def test_counts_draw_faces_without_replacement(faces, tmp_path):
    made = plan(faces, "per_expression={fear: 5, happy: 2}")
    rows = made.rows(range(len(made)))
    assert Counter(EXPRESSIONS[row.label] for row in rows) == {"fear": 5, "happy": 2}
    assert len({row.source_id for row in rows}) == 7
    counts = dict(zip(EXPRESSIONS, (0, 1, 2, 3, 4, 1, 2), strict=True))
    lines = "".join(f"{name},{count}\n" for name, count in counts.items())
    (tmp_path / "like.csv").write_text(f"label,count\n{lines}")
    assert plan(faces, f"like={tmp_path / 'like.csv'}").counts() == counts
    with pytest.raises(ConfigError, match=r"20 rows need as many identities, and there are 18 \(plan.by=face"):
        plan(faces, "total=20")
    assert len(plan(faces, "total=20", "by=face")) == 20


def test_other_seeds_draw_other_faces_and_the_same_seed_the_same(faces):
    ids = [[row.parent_id for row in plan(faces, "total=9", f"seed={seed}").rows(range(9))] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_codes_of_syntfer(faces):
    rows = plan(faces, "code=syntfer-v").rows(range(18 * 7))
    for row in rows:
        theta, rho = row.code
        if EXPRESSIONS[row.label] == "neutral":
            assert -math.pi <= theta <= math.pi and 0 <= rho <= 0.1
        else:
            assert 0.5 <= rho <= 1.2
    happy = {round(row.code[0], 4) for row in rows if EXPRESSIONS[row.label] == "happy"}
    assert happy == {round(math.atan2(0.1275, 0.9918), 4)}
    strengths = np.array([row.code[1] for row in rows if EXPRESSIONS[row.label] == "sad"])
    assert strengths.std() > 0.1 and len(set(strengths)) == len(strengths)
    points = {EXPRESSIONS[row.label]: row.code for row in plan(faces, "code=syntfer-f").rows(range(7))}
    assert points["surprise"] == pytest.approx((0.9617, -0.451))
    ranged = plan(faces, "intensity=[0.5,1]").rows(range(60))
    assert all(0.5 <= row.code[0] <= 1 for row in ranged) and len({row.code for row in ranged}) == 60


def test_own_codes_are_checked(faces):
    seven = ", ".join(f"{name}: [0.{i}, -1]" for i, name in enumerate(EXPRESSIONS, 1))
    assert plan(faces, "code=point", f"codes={{{seven}}}")[0].code == (pytest.approx(0.1), -1.0)
    for words, message in {
        ("code=point", "codes={happy: [0, 0]}"): "anger, disgust.* is missing",
        ("code=point", "codes={happy: [0, 9]}"): r"plan.codes.happy: a point code has 2 number.*, not \[0.0, 9.0\]",
        ("code=polar", "codes={happy: [0, 1]}"): r"a polar code has 1 number",
        ("codes={happy: [0, 1]}",): "goes with plan.code=point or polar",
        ("code=point", "codes={hapy: [0, 1]}"): r"plan\.codes\.hapy",
        ("intensity=[1,0.5]",): "intensity: expected the least and the most",
        ("intensity=[1]",): "intensity: expected the least and the most",
    }.items():
        with pytest.raises(ConfigError, match=message):
            plan(faces, *words)


def test_a_spec_and_the_stored_faces_give_the_same_rows(faces, tmp_path):
    made = plan(faces, "code=syntfer-v", "total=14")
    store = open_store(str(tmp_path / "out"))
    made.faces.write(store)
    spec = json.loads(json.dumps(made.spec(), sort_keys=True))
    again = edits.from_spec(spec, read_faces(store, spec["faces"]["sha256"]))
    assert again == made
    assert again.rows(range(14)) == made.rows(range(14))
    with pytest.raises(ValueError, match="other faces"):
        read_faces(store, "0" * 64)


def test_a_copy_of_the_faces_is_the_same_plan_and_a_view_another(faces, tmp_path):
    copy = forty_faces(tmp_path / "copy", unit_size=5)
    assert plan(copy) == plan(faces)
    out = pa.table({"sample_id": ["face-0000", "face-0001"], "decision": ["rejected"] * 2, "reason": ["x"] * 2,
                    "weight": [0.0] * 2}, schema=SCHEMA)  # fmt: skip
    view = View.create(str(tmp_path / "view"), open_ref(faces).datasets, out, {})
    table = open_faces("plan.faces", view.uri, ["train"])
    assert isinstance(table, FaceTable) and "face-0000" not in table.rows["sample_id"].to_pylist()
    assert table.image_ref(0).sample_id == "face-0002" and (table.image_ref(0).unit, table.image_ref(0).row) == (0, 2)
    assert plan(view.uri) != plan(faces)


def test_what_is_not_there_is_told(faces, tmp_path):
    with pytest.raises(ConfigError, match=r"plan\.faces: there is no dataset"):
        plan(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"no face of split val; it has test, train"):
        plan(faces, "splits=[val]")
    with pytest.raises(ConfigError, match="contradict one another"):
        plan(faces, "like=rafdb", "total=7")


def test_the_summary_says_how_often_faces_are_used(faces):
    told = plan(faces).summary()
    assert told["faces"]["faces"] == told["faces"]["identities"] == 18
    assert told["faces"]["uses"] == {"all": {"faces": 18, "each": [7, 7]}}
    assert told["faces"]["of_real_persons"] is True
    assert sum(told["attributes"]["gender"].values()) == 126
    assert "intensity" not in INHERITED
