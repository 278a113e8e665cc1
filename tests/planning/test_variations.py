"""Plans of variations: classes filled up, sources used evenly, partners of the same class, nothing but split train."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.config import load
from synthfer.expressions import EXPRESSIONS
from synthfer.planning import variations
from synthfer.planning.faces import read_faces
from synthfer.planning.variations import FOREIGN, OPERATIONS, OWN, PAIRED, VariationPlan
from synthfer.schema import ConfigError
from synthfer.store import open_store
from tests.planning.face_datasets import faces_dataset

# Faces of split train by expression, from anger to surprise; one more of each is of split test.
COUNTS = (9, 2, 3, 12, 6, 5, 4)
LABELS = [label for label, count in enumerate(COUNTS) for _ in range(count)] + list(range(7))


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> str:
    splits = ["train"] * sum(COUNTS) + ["test"] * 7
    return faces_dataset(tmp_path_factory.mktemp("tail") / "d", LABELS, splits=splits)


def plan(*words: str) -> VariationPlan:
    return variations.build(load(variations.Config, list(words)))


def test_every_class_is_filled_to_the_largest_from_its_own_faces(faces):
    made = plan(f"balance={faces}")
    assert made.counts() == {name: 12 - count for name, count in zip(EXPRESSIONS, COUNTS, strict=True)}
    rows = made.rows(range(len(made)))
    for row in rows:
        number = int(row.parent_id[-4:])
        assert LABELS[number] == row.label and number < sum(COUNTS)  # split train alone
        assert row.operation == "noise" and 0.5 <= row.code[0] <= 1.5 and row.split == "train"
    uses = {label: Counter(row.parent_id for row in rows if row.label == label) for label in range(7)}
    assert sorted(uses[1].values()) == [5, 5] and sorted(uses[2].values()) == [3, 3, 3]
    assert made.uses()["disgust"] == (2, 5, 5)
    assert made.uses()["surprise"] == (4, 2, 2)
    assert len({row.sample_id for row in rows}) == len(rows)


def test_a_cap_and_a_goal_bound_what_is_made(faces):
    assert list(plan(f"balance={faces}", "most_times=2").counts().values()) == [3, 2, 3, 0, 6, 5, 4]
    assert list(plan(f"balance={faces}", "balance_to=6").counts().values()) == [0, 4, 3, 0, 0, 1, 2]
    with pytest.raises(ConfigError, match=r"most_times=1\.0 leaves nothing"):
        plan(f"balance={faces}", "most_times=1")
    with pytest.raises(ConfigError, match=r"most_times needs plan\.balance"):
        plan(f"faces={faces}", "total=7", "most_times=2")


@settings(max_examples=25, deadline=None)
@given(
    shares=st.dictionaries(st.sampled_from(OPERATIONS), st.floats(0.1, 5), min_size=1),
    total=st.integers(7, 90),
    seed=st.integers(0, 9),
)
def test_operations_get_their_shares_and_their_faces(faces, shares, total, seed):
    config = variations.Config(faces=faces, total=total, operations=shares, seed=seed)
    made = variations.build(config)
    rows = made.rows(range(total))
    for label in range(7):
        mine = [row for row in rows if row.label == label]
        for operation, share in shares.items():
            wanted = share / sum(shares.values()) * len(mine)
            assert abs(sum(row.operation == operation for row in mine) - wanted) < 1
        own = Counter(row.parent_id for row in mine if row.operation in OWN)
        if own:
            least = min(own.values()) if len(own) == COUNTS[label] else 0
            assert max(own.values()) - least <= 1
    for row in rows:
        numbers = [int(one[-4:]) for one in (row.parent_id, row.partner_id) if one]
        assert [int(made.faces.image_ref(face).sample_id[-4:]) for face in row.faces] == numbers
        assert len(numbers) == (0 if row.operation == "tail" else 2 if row.operation in PAIRED else 1)
        if row.operation in FOREIGN:
            assert LABELS[numbers[0]] != row.label and row.code[-1] == LABELS[numbers[0]]
        elif numbers:
            assert {LABELS[number] for number in numbers} == {row.label} and len(set(numbers)) == len(numbers)
            assert row.partner_source_id == row.partner_id


def test_a_spec_and_the_stored_faces_give_the_same_rows(faces, tmp_path):
    made = plan(f"balance={faces}", "operations={noise: 2, interpolate: 1, recondition: 1, tail: 1}", "seed=3")
    store = open_store(str(tmp_path / "out"))
    made.faces.write(store)
    spec = json.loads(json.dumps(made.spec(), sort_keys=True))
    again = variations.from_spec(spec, read_faces(store, spec["faces"]["sha256"]))
    assert again.rows(range(len(made))) == made.rows(range(len(made)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "plan.balance or plan.faces is needed"),
        (("total=7", "operations={nois: 1}"), "no operation 'nois'.*noise"),
        (("total=7", "operations={noise: 0}"), "give at least one a share"),
        (("total=7", "scale=[2,1]"), "scale: expected the least and the most"),
    ],
)
def test_wrong_words_are_told(faces, words, message):
    with pytest.raises(ConfigError, match=message):
        plan(*((f"faces={faces}", *words) if words else ()))


def test_faces_of_other_splits_are_refused(tmp_path):
    uri = faces_dataset(tmp_path / "d", list(range(7)), splits=["test"] * 7)
    with pytest.raises(ConfigError, match="no face of split train; it has test"):
        plan(f"faces={uri}", "total=7")
    with pytest.raises(ConfigError, match="unknown key splits"):
        plan(f"faces={uri}", "total=7", "splits=[test]")


def test_a_class_with_one_face_has_no_partner_for_it(tmp_path):
    uri = faces_dataset(tmp_path / "d", [0, 0, 1, 2, 3, 4, 5, 6])
    with pytest.raises(
        ConfigError, match=r"interpolate: 1 rows of disgust need at least 2 training face.s. of disgust"
    ):
        plan(f"faces={uri}", "total=7", "operations={interpolate: 1}")


def test_prefixes_are_balanced(faces):
    made = plan(f"faces={faces}", "total=700")
    labels = np.array([row.label for row in made.rows(range(70))])
    assert np.bincount(labels, minlength=7).tolist() == [10] * 7
