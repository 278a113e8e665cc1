"""The batch size of a dataset once a device was out of memory."""

import pytest

from synthfer.engine.batch_size import halve_batch_size, recorded_batch_size
from synthfer.generators import OutOfMemory
from synthfer.store import open_store


def test_workers_that_run_out_of_memory_together_share_one_halving(tmp_path):
    store = open_store(str(tmp_path))
    assert recorded_batch_size(store) is None
    assert [halve_batch_size(store, 16) for _ in range(3)] == [8, 8, 8]
    assert recorded_batch_size(store) == 8


def test_the_batch_is_halved_once_and_never_below_one_row(tmp_path):
    store = open_store(str(tmp_path))
    halve_batch_size(store, 16)
    with pytest.raises(OutOfMemory, match="batch size 8"):
        halve_batch_size(store, 8)
    with pytest.raises(OutOfMemory, match="batch size 1"):
        halve_batch_size(open_store(str(tmp_path / "other")), 1)
