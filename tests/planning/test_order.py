import math
from collections import Counter
from itertools import accumulate, combinations, product
from operator import mul

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthfer.planning.order import Cycles, Interleave

sizes = st.lists(st.integers(1, 9), max_size=5).filter(lambda ns: math.prod(ns) <= 3000)


def spans(digits, size):
    """Most minus least count of a digit, for every prefix."""
    counts = np.cumsum(np.eye(size, dtype=int)[list(digits)], axis=0)
    return counts.max(axis=1) - counts.min(axis=1)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_interleave_holds_every_item_once_and_in_order(lengths):
    order = Interleave(lengths)
    places = [order.locate(i) for i in range(len(order))]
    for sequence, length in enumerate(lengths):
        assert [item for which, item in places if which == sequence] == list(range(length))


@given(st.lists(st.integers(0, 40), min_size=7, max_size=7))
def test_every_prefix_of_an_interleaving_is_proportional(lengths):
    order = Interleave(lengths)
    met = Counter()
    for i in range(len(order)):
        met[order.locate(i)[0]] += 1
        assert all(abs(met[s] - (i + 1) * n / len(order)) < 3 for s, n in enumerate(lengths))


@given(st.lists(st.integers(0, 10**15), min_size=2, max_size=7).filter(any), st.data())
def test_interleave_is_exact_at_any_size(lengths, data):
    order = Interleave(lengths)
    which, item = order.locate(data.draw(st.integers(0, len(order) - 1)))
    assert 0 <= item < lengths[which]


@given(sizes)
def test_cycles_meet_every_combination_once(ns):
    cycles = Cycles(ns)
    assert len(cycles) == math.prod(ns)
    met = Counter(tuple(cycles.digits(k)) for k in range(len(cycles)))
    assert met == Counter(product(*map(range, ns)))


@given(sizes)
def test_in_every_prefix_the_digits_of_an_axis_are_even(ns):
    cycles = Cycles(ns)
    columns = zip(*(cycles.digits(k) for k in range(len(cycles))), strict=True)
    for digits, size, before in zip(columns, ns, accumulate(ns, mul, initial=1), strict=False):
        simple = math.gcd(before, size) == 1 or before % size == 0
        assert spans(digits, size).max() <= (1 if simple else 2)


@pytest.mark.parametrize("ns", [(2, 2, 3, 4, 5, 6), (2, 4, 6, 8), (5, 5, 5, 5), (3, 5, 6, 92)])
def test_no_two_axes_are_locked_together(ns):
    """Pairs of digits are nearer to even, at worst over a long prefix, than in a random order."""
    cycles = Cycles(ns)
    prefix = min(len(cycles), 1500)
    shuffled = np.random.default_rng(0).permutation(len(cycles))[:prefix]
    ours, random = (np.array([cycles.digits(int(k)) for k in order]) for order in (range(prefix), shuffled))
    for i, j in combinations(range(len(ns)), 2):
        worst = [spans(table[:, i] * ns[j] + table[:, j], ns[i] * ns[j]).max() for table in (ours, random)]
        assert worst[0] <= worst[1]


def test_cycles_are_exact_at_any_size():
    ns = (97, 97 * 2, 97 * 3, 97 * 5, 97 * 7, 97 * 11, 97 * 13)
    cycles = Cycles(ns)
    assert all(0 <= digit < size for digit, size in zip(cycles.digits(len(cycles) - 1), ns, strict=True))
