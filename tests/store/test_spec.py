"""Specs: units partition the rows of a plan, and keys name units."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthfer.store import Spec


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.data())
def test_units_partition_the_rows_and_keys_name_them(rows, unit_size, data):
    spec = Spec(plan={}, producer={}, image={}, rows=rows, unit_size=unit_size)
    unit = data.draw(st.integers(0, spec.units - 1))
    mine = spec.unit_rows(unit)
    assert 1 <= len(mine) <= unit_size
    assert mine.start == (spec.unit_rows(unit - 1).stop if unit else 0)
    assert mine.stop == rows or unit < spec.units - 1
    assert spec.unit_of(spec.key(unit)) == unit
    assert spec.unit_of(spec.key(unit) + "x") is None
    assert Spec.from_json(json.loads(json.dumps(spec.to_json()))).sha256 == spec.sha256
    with pytest.raises(ValueError, match="no unit"):
        spec.unit_rows(spec.units)
