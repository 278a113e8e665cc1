"""A map with threads is a map."""

from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.store.threads import ordered_thread_map


@settings(deadline=None)  # threads wait for a busy machine
@given(st.lists(st.integers(), max_size=30), st.integers(1, 5))
def test_the_order_of_items_is_kept(items, threads):
    assert list(ordered_thread_map(lambda item: item + 1, items, threads)) == [item + 1 for item in items]
