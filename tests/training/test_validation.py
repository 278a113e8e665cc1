"""The split by lineage: components by brute force, no kin across, each expression's share, whatever the order."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.classifiers.training_fingerprint import TrainingFingerprint
from synthfer.sample import LINEAGE
from synthfer.training.validation import ROLES, components, cut_off, roles

COLUMNS = ("sample_id", *LINEAGE, "pixels_hash")
NAMES = st.sampled_from([f"n{i}" for i in range(14)])
ROW = st.tuples(NAMES, *[st.none() | NAMES] * len(LINEAGE), st.sampled_from([f"p{i}" for i in range(20)]))
TABLES = st.lists(st.tuples(ROW, st.integers(0, 6), st.booleans()), min_size=1, max_size=16)
TRAIN, VAL, OUT = range(3)


def table(rows, labels=None) -> pa.Table:
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    texts = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return pa.table(texts | {"label": pa.array(np.zeros(len(rows), int) if labels is None else labels)})


def strangers(labels, families=None) -> pa.Table:
    """Rows with these labels, all of their own, or of these families (source ids)."""
    roots = [f"s{i}" if families is None else f"f{families[i]}" for i in range(len(labels))]
    rows = [(f"s{i}", root, None, None, None, f"p{i}") for i, root in enumerate(roots)]
    return table(rows, labels)


def flooded(rows) -> list[int]:
    """Each row's component, by walking from row to row."""
    names = [({a for a in row[:-1] if a}, row[-1]) for row in rows]
    found = [-1] * len(rows)
    for start in range(len(rows)):
        todo = [start] if found[start] < 0 else []
        while todo:
            at = todo.pop()
            found[at] = start
            todo += [
                i for i in range(len(rows))
                if found[i] < 0 and (names[i][0] & names[at][0] or names[i][1] == names[at][1])
            ]  # fmt: skip
    return found


@given(TABLES)
@settings(max_examples=150, deadline=None)
def test_components_are_those_of_a_walk(rows):
    assert components(table([row for row, *_ in rows])).tolist() == flooded([row for row, *_ in rows])


def test_a_long_chain_in_any_order_is_one_component():
    count = 3000
    chain = [(f"s{i}", None, f"s{i - 1}" if i else None, None, None, f"p{i}") for i in range(count)]
    order = np.random.default_rng(0).permutation(count)
    assert not components(table([chain[i] for i in order])).any()
    cut = [chain[i] for i in order if i != count // 2]
    assert len(np.unique(components(table(cut)))) == 2


@given(TABLES, st.floats(0.01, 0.5), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_no_training_row_is_tied_to_a_validation_row(rows, share, given_split, random):
    whole = table([row for row, *_ in rows], [label for _, label, _ in rows])
    synthetic = np.array([kind for *_, kind in rows])
    held_out = np.array([given_split and random.random() < 0.3 for _ in rows])
    found = roles(whole, synthetic, held_out, share)
    assert found.dtype == np.int8
    train, val = whole.filter(found == TRAIN), whole.filter(found == VAL)
    assert not TrainingFingerprint.of(train).related(val).any()
    if held_out.any():
        assert ((found == VAL) == held_out).all()
    elif not synthetic.all():
        assert not (found == VAL)[synthetic].any()
        assert not (found == OUT)[~synthetic].any()  # real components are cut off whole
    component = components(whole)
    for root in np.unique(component[found == OUT]):
        assert (found[component == root] == VAL).any()


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("rows", [140, 7001])
def test_strangers_are_cut_to_the_row(share, rows):
    labels = np.random.default_rng(0).choice(7, rows, p=[0.3, 0.25, 0.2, 0.1, 0.08, 0.05, 0.02])
    marks = cut_off(strangers(labels), np.arange(rows), np.zeros(rows, bool), share)
    total = np.bincount(labels)
    held = np.bincount(labels[marks], minlength=7)
    assert (held >= 1).all()
    assert (np.abs(held - np.maximum(share * total, 1)) <= 0.5 + 1e-9).all()


@pytest.mark.parametrize("seed", range(5))
def test_families_are_cut_whole_and_near_to_the_share(seed):
    rng = np.random.default_rng(seed)
    families = rng.integers(0, 300, 4000) ** 2 // 300  # some families are large
    labels = rng.integers(0, 7, 4000)
    whole = strangers(labels, families)
    marks = cut_off(whole, components(whole), np.zeros(4000, bool), 0.1)
    assert not set(families[marks].tolist()) & set(families[~marks].tolist())
    held = np.bincount(labels[marks], minlength=7) / np.bincount(labels)
    assert (np.abs(held - 0.1) < 0.01).all()


def test_large_and_small_families_are_cut_alike():
    families = np.concatenate([np.arange(900), 900 + np.arange(900) // 9])  # 900 rows alone, 100 families of nine
    labels = np.arange(1800) % 7
    whole = strangers(labels, families)
    marks = cut_off(whole, components(whole), np.zeros(1800, bool), 0.2)
    assert abs(marks[:900].mean() - 0.2) < 0.03
    assert abs(marks[900:].mean() - 0.2) < 0.03


@given(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=2, max_size=12), st.floats(0.02, 0.5))
@settings(max_examples=150, deadline=None)
def test_an_expression_of_two_families_is_on_both_sides_if_rows_of_it_stand_alone(families, share):
    families = families + [[label] for label in range(7)] * 2
    labels = np.concatenate(families)
    whole = strangers(labels, np.repeat(np.arange(len(families)), [len(family) for family in families]))
    marks = cut_off(whole, components(whole), np.zeros(len(labels), bool), share)
    assert set(labels[marks]) == set(labels[~marks]) == set(range(7))


def test_an_expression_of_one_family_is_trained_on():
    labels = np.array([0] * 50 + [1] * 20)
    whole = strangers(labels, np.concatenate([np.arange(50), np.full(20, 99)]))
    marks = cut_off(whole, components(whole), np.zeros(70, bool), 0.3)
    assert not marks[labels == 1].any()
    assert marks[labels == 0].sum() == 15


def test_one_family_is_never_cut():
    whole = strangers(np.arange(14) % 7, np.zeros(14, int))
    assert not (roles(whole, np.zeros(14, bool), np.zeros(14, bool), 0.5) == VAL).any()


def test_the_cut_depends_on_the_sample_ids_alone():
    labels = np.random.default_rng(0).integers(0, 7, 500)
    whole = strangers(labels, np.arange(500) // 2)
    order = np.random.default_rng(1).permutation(500)
    real = np.zeros(500, bool)
    marks = cut_off(whole, components(whole), real, 0.1)
    mixed = whole.take(pa.array(order))
    assert cut_off(mixed, components(mixed), real, 0.1).tolist() == marks[order].tolist()
    children = table([(f"c{i}", None, f"s{i}", None, None, f"q{i}") for i in range(500)], labels)
    both = pa.concat_tables([whole, children])
    found = roles(both, np.repeat([False, True], 500), np.zeros(1000, bool), 0.1)
    assert (found[:500] == VAL).tolist() == marks.tolist()
    assert ((found[500:] == OUT) == marks).all()  # a child follows its parent out of training


def test_synthetic_rows_alone_are_cut_themselves():
    whole = strangers(np.arange(700) % 7)
    found = roles(whole, np.ones(700, bool), np.zeros(700, bool), 0.1)
    assert np.bincount(found, minlength=3).tolist() == [630, 70, 0]


def test_kin_of_kin_of_a_validation_row_is_out():
    rows = [
        ("val", "val", None, None, None, "same picture"),
        ("copy", "copy", None, None, None, "same picture"),  # a duplicate in the training split
        ("edit", None, "copy", None, None, "p2"),  # made from the duplicate
        ("free", "free", None, None, None, "p3"),
        ("mix", None, None, None, "copy", "p4"),  # made from the duplicate and another
        ("kin", None, None, "val", None, "p5"),  # from a second face of the identity
    ]
    found = roles(table(rows), np.zeros(6, bool), np.arange(6) == 0, 0.1)
    assert [ROLES[role] for role in found] == ["val", "out", "out", "train", "out", "out"]
