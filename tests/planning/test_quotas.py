import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthfer.expressions import EXPRESSIONS
from synthfer.planning.quotas import PUBLISHED, csv_counts, even, quotas
from synthfer.sample import SCHEMA
from synthfer.schema import ConfigError
from synthfer.store import Dataset, Spec

CELLS = {name: 10 + i for i, name in enumerate(EXPRESSIONS)}
LINES = [
    "label,count",
    "angry,5",
    "Disgusted,0",
    "fear, 7",
    "happiness,9",
    "neutral,1",
    "sadness,2",
    "surprise,3",
]


@given(st.integers(0, 10**12))
def test_a_total_is_spread_evenly(total):
    counts = even(total).values()
    assert sum(counts) == total
    assert max(counts) - min(counts) <= 1


def test_700_rows_are_made_when_nothing_is_asked():
    assert quotas(CELLS) == dict.fromkeys(EXPRESSIONS, 100)


def test_numbers_per_expression_and_per_cell():
    assert quotas(CELLS, per_cell=3) == {name: 3 * n for name, n in CELLS.items()}
    assert quotas(CELLS, per_expression=4) == dict.fromkeys(EXPRESSIONS, 4)
    some = quotas(CELLS, per_expression={"fearful": 2, "sad": 5})
    assert {name: n for name, n in some.items() if n} == {"fear": 2, "sad": 5}


def test_the_published_counts_have_the_published_totals():
    totals = {name: sum(counts.values()) for name, counts in PUBLISHED.items()}
    assert totals == {"fer2013": 28_709, "rafdb": 12_271, "affectnet7": 283_901}
    assert PUBLISHED["fer2013"]["neutral"] == 4965
    assert PUBLISHED["affectnet7"]["anger"] == 24_882


def test_what_rafdb_lacks():
    lacks = quotas(CELLS, balance="rafdb")
    assert list(lacks) == list(EXPRESSIONS)
    assert list(lacks.values()) == [4067, 4055, 4491, 0, 2248, 2790, 3482]
    assert sum(lacks.values()) == 21_133


def test_balance_to_a_number_makes_nothing_of_a_class_that_has_more():
    lacks = quotas(CELLS, balance="rafdb", balance_to=2000)
    assert (lacks["happy"], lacks["neutral"], lacks["sad"], lacks["fear"]) == (0, 0, 18, 1719)


def test_a_csv_of_counts(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("\ufeff" + "\r\n".join([*LINES, "", ""]), encoding="utf-8")
    assert list(csv_counts(str(path)).values()) == [5, 0, 7, 9, 1, 2, 3]
    assert quotas(CELLS, balance=str(path))["disgust"] == 9


@pytest.mark.parametrize(
    ("line", "text", "words"),
    [
        (1, "name,n", ["line 1", "label,count", "name,n"]),
        (3, "disgst,4", ["line 3", "did you mean 'disgust'"]),
        (3, "disgust,-4", ["line 3", "'-4'"]),
        (3, "disgust,four", ["line 3", "'four'"]),
        (3, "disgust", ["line 3", "label,count"]),
        (3, "anger,4", ["line 3", "anger", "earlier"]),
        (3, "", ["line 8", "disgust"]),
    ],
)
def test_a_wrong_csv_is_refused_with_file_and_line(tmp_path, line, text, words):
    path = tmp_path / "counts.csv"
    path.write_text("\n".join([*LINES[: line - 1], text, *LINES[line:]]))
    with pytest.raises(ConfigError) as caught:
        csv_counts(str(path))
    for word in [str(path), *words]:
        assert word in str(caught.value)


@pytest.fixture
def labelled(tmp_path):
    """A dataset that is not sealed yet: class c has c + 1 accepted training rows, and others that do not count."""
    kept = [(label, "train", "accepted") for label in range(7) for _ in range(label + 1)]
    others = [(0, "test", "accepted"), (0, "train", "rejected"), (0, "train", "failed"), (None, "train", "accepted")]
    rows = [
        {
            "sample_id": f"{i:032x}",
            "label": label,
            "split": split,
            "decision": decision,
            "pixels_hash": None if decision == "failed" else "00",
            "image": None if decision == "failed" else {"bytes": b"picture", "path": None},
        }
        for i, (label, split, decision) in enumerate([*kept, *others])
    ]
    spec = Spec(plan={}, producer={}, image={}, rows=len(rows), unit_size=10)
    dataset = Dataset.create(str(tmp_path / "labelled"), spec)
    for unit in range(spec.units):
        part = [rows[i] for i in spec.unit_rows(unit)]
        columns = {name: [row.get(name) for row in part] for name in SCHEMA.names}
        dataset.commit(unit, pa.table(columns, schema=SCHEMA), {})
    return dataset


def test_what_a_dataset_lacks_is_counted_from_its_accepted_training_rows(labelled):
    labelled.seal()
    assert list(quotas(CELLS, balance=labelled.uri).values()) == [6, 5, 4, 3, 2, 1, 0]
    assert quotas(CELLS, balance=labelled.uri, balance_to=10)["surprise"] == 3


def test_a_dataset_that_is_not_complete_or_not_there_is_refused(labelled, tmp_path):
    with pytest.raises(ConfigError, match="not complete"):
        quotas(CELLS, balance=labelled.uri)
    with pytest.raises(ConfigError, match=r"plan\.balance=.*nowhere"):
        quotas(CELLS, balance=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"total": 7, "per_cell": 1}, ["plan.total and plan.per_cell", "contradict"]),
        ({"balance": "rafdb", "per_expression": 3}, ["plan.per_expression and plan.balance", "contradict"]),
        ({"balance_to": 5}, ["plan.balance_to needs plan.balance"]),
        ({"total": -1}, ["plan.total", "-1"]),
        ({"total": 0}, ["plan.total", "nothing to make"]),
        ({"per_cell": -2}, ["plan.per_cell", "-2"]),
        ({"per_expression": True}, ["plan.per_expression", "True"]),
        ({"per_expression": {"feer": 3}}, ["plan.per_expression.feer", "did you mean 'fear'"]),
        ({"per_expression": {"fear": 3, "afraid": 2}}, ["fear and afraid are the same"]),
        ({"per_expression": {"fear": 0}}, ["plan.per_expression", "nothing to make"]),
        ({"balance": "rafdb", "balance_to": 10}, ["plan.balance", "nothing to make"]),
        ({"balance": "raf-db"}, ["plan.balance=raf-db", "did you mean 'rafdb'"]),
        ({"balance": "missing.csv"}, ["plan.balance=missing.csv", "cannot be read"]),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(asked, words):
    with pytest.raises(ConfigError) as caught:
        quotas(CELLS, **asked)
    for word in words:
        assert word in str(caught.value)
