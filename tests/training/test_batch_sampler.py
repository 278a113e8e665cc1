"""BatchSampler: every row once per pass, exact quotas, functions of the step alone, classes drawn as asked."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.training.batch_sampler import BatchSampler, quotas

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda shares: sum(shares) > 0.01)


def two_sources(rows=100, shares=None, batch=8, seed=0, power=0.0):
    """Source 0 is real, 1 synthetic; every third row is real."""
    names = (np.arange(rows) % 3 > 0).astype(np.int64)
    labels = np.arange(rows) % 7
    return BatchSampler(labels, names, names == 1, shares, batch, seed, power), names


@given(SHARES, st.integers(1, 300))
@settings(max_examples=200, deadline=None)
def test_quotas_are_the_shares_to_within_a_row(shares, batch):
    exact = np.array(shares) / sum(shares) * batch
    try:
        rows = quotas(shares, batch)
    except ValueError:
        assert ((exact > 0) & (exact < 1 - 1e-12)).any()
        return
    assert rows.dtype == np.int64 and rows.sum() == batch
    assert (np.abs(rows - exact) < 1 + 1e-6).all()
    assert ((rows > 0) == (exact > 0)).all()
    short = exact - np.floor(exact + 1e-9)
    for up, down in itertools.permutations(range(len(shares)), 2):  # who got a row more had no smaller remainder
        if rows[up] > np.floor(exact[up] + 1e-9) and rows[down] == np.floor(exact[down] + 1e-9):
            assert short[up] >= short[down] - 1e-8


def test_quotas_by_hand():
    assert quotas([0.5, 0.25, 0.25], 64).tolist() == [32, 16, 16]
    assert quotas([1, 1, 1], 64).tolist() == [22, 21, 21]
    assert quotas([0.1, 0.2, 0.7], 10).tolist() == [1, 2, 7]
    assert quotas([3, 0, 1], 6).tolist() == [5, 0, 1]


@pytest.mark.parametrize("shares", [[0, 0], [-1, 2], [float("nan"), 1], []])
def test_wrong_shares_are_refused(shares):
    with pytest.raises(ValueError, match="at least 0 are needed"):
        quotas(shares, 8)


def test_a_share_without_a_row_is_refused():
    with pytest.raises(ValueError, match=r"share of 0.001 is less than one row in a batch of 64"):
        quotas([0.999, 0.001], 64)
    with pytest.raises(ValueError, match="source 2 has a share of each batch and no row"):
        two_sources(shares={0: 0.5, 2: 0.5})


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_one_stream_holds_every_row_once_per_pass(rows, batch, seed):
    batches, _ = two_sources(rows, batch=batch, seed=seed)
    steps = -(-3 * rows // batch)
    counts = np.bincount(np.concatenate([batches.at(step) for step in range(steps)]), minlength=rows)
    passes, rest = divmod(steps * batch, rows)
    assert set(counts.tolist()) <= {passes, passes + 1}
    assert (counts == passes + 1).sum() == rest


@given(st.integers(6, 50), st.floats(0.1, 0.9), st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_each_source_has_its_quota_in_every_batch_and_its_own_passes(rows, share, seed):
    batch = 16
    batches, names = two_sources(rows, {0: share, 1: 1 - share}, batch, seed)
    quota = quotas([share, 1 - share], batch)
    drawn = [batches.at(step) for step in range(20)]
    for found in drawn:
        assert found.dtype == np.int64
        assert np.bincount(names[found], minlength=2).tolist() == quota.tolist()
        assert names[found].tolist() == sorted(names[found])  # real rows first
    for source in (0, 1):
        mine = np.concatenate([found[names[found] == source] for found in drawn])
        counts = np.bincount(mine, minlength=rows)[names == source]
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("power", [0.0, 0.7])
@pytest.mark.parametrize("shares", [None, {0: 0.3, 1: 0.7}])
def test_a_batch_is_a_function_of_the_step(power, shares):
    forward, _ = two_sources(30, shares, power=power)
    expected = [forward.at(step).tolist() for step in range(40)]
    again, _ = two_sources(30, shares, power=power)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 2))
    assert all(again.at(int(step)).tolist() == expected[step] for step in order)
    other, _ = two_sources(30, shares, seed=1, power=power)
    assert [other.at(step).tolist() for step in range(40)] != expected


def test_a_source_is_walked_alike_whatever_is_mixed_in():
    alone, names = two_sources(60, {0: 1.0}, batch=4)
    mixed, _ = two_sources(60, {0: 0.5, 1: 0.5}, batch=8)
    for step in range(30):
        found = mixed.at(step)
        assert alone.at(step).tolist() == found[names[found] == 0].tolist()


def test_passes_have_orders_of_their_own():
    batches, _ = two_sources(50, batch=50)
    orders = [tuple(batches.at(step).tolist()) for step in range(5)]
    assert len(set(orders)) == 5
    first = [int(two_sources(50, batch=50, seed=seed)[0].at(0)[0]) for seed in range(400)]
    assert set(first) == set(range(0, 50, 3))  # any of the 17 real rows; the chance that one is missed is 5e-10


@pytest.mark.parametrize("shares", [None, {0: 0.5, 1: 0.5}])
def test_real_rows_stand_first_whatever_the_order_of_the_sources(shares):
    names = np.arange(60) % 2
    batches = BatchSampler(np.zeros(60, np.int64), names, names == 0, shares, 16, 0)
    kinds = [(names[batches.at(step)] == 0).tolist() for step in range(20)]
    assert all(found == sorted(found) for found in kinds)
    assert all(any(found) and not all(found) for found in kinds)


def test_workers_share_a_batch_with_real_rows_first():
    batches, names = two_sources(90, {0: 0.4, 1: 0.6}, batch=20)
    parts = [batches.at(3)[rank::4] for rank in range(4)]
    assert sorted(np.concatenate(parts).tolist()) == sorted(batches.at(3).tolist())
    assert all(names[part].tolist() == sorted(names[part]) for part in parts)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_classes_are_drawn_by_the_power_of_their_size(power):
    stats = pytest.importorskip("scipy.stats")
    labels = np.repeat(np.arange(7), [400, 200, 100, 50, 25, 12, 6])
    names = np.zeros(len(labels), np.int64)
    batches = BatchSampler(labels, names, names == 1, None, 64, 5, power)
    drawn = np.concatenate([batches.at(step) for step in range(400)])
    wanted = np.bincount(labels) ** (1 - power)
    told = stats.chisquare(np.bincount(labels[drawn]), wanted / wanted.sum() * len(drawn))
    assert told.pvalue > 0.001
    rarest = np.bincount(drawn, minlength=len(labels))[labels == 6]
    assert stats.chisquare(rarest).pvalue > 0.001  # alike within the class


def test_classes_are_drawn_within_their_source():
    labels = np.array([0] * 90 + [1] * 10 + [0] * 5 + [1] * 45)
    names = np.repeat([0, 1], [100, 50])
    batches = BatchSampler(labels, names, names == 1, {0: 0.5, 1: 0.5}, 40, 0, 1.0)
    drawn = np.concatenate([batches.at(step) for step in range(500)])
    for source in (0, 1):
        assert abs(labels[drawn[names[drawn] == source]].mean() - 0.5) < 0.02  # five standard errors
