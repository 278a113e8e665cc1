"""The scores of edits summed up by expression, and whether stronger codes show more."""

import pytest

from synthfer.expressions import EXPRESSIONS
from synthfer.gates.totals import monotonicity, totals

HAPPY, NEUTRAL = EXPRESSIONS.index("happy"), EXPRESSIONS.index("neutral")


def test_monotonicity_is_spearmans():
    assert monotonicity([0.1, 0.4, 0.9], [0.2, 0.3, 0.31]) == pytest.approx(1)
    assert monotonicity([0.1, 0.4, 0.9], [0.5, 0.3, 0.1]) == pytest.approx(-1)
    # By hand, with a tie: ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4.
    assert monotonicity([1, 2, 2, 3], [0.1, 0.6, 0.5, 0.9]) == pytest.approx(0.9486832980505138)
    assert monotonicity([1, 1, 1], [0.1, 0.2, 0.3]) is None
    assert monotonicity([1, 2], [0.1, 0.2]) is None


def test_totals_are_means_per_expression():
    def row(label, code, **scores):
        listed = [{"gate": gate, "value": value} for gate, value in scores.items()]
        return {"label": label, "operation": "polar", "code": [0.3, code], "scores": listed}

    rows = [
        row(HAPPY, 0.5, identity=0.9, gain=0.1, expression=0.2),
        row(HAPPY, 0.8, identity=0.7, gain=0.3, expression=0.4),
        row(HAPPY, 1.1, identity=0.8, gain=0.2, expression=0.3),
        row(NEUTRAL, 0.05, identity=0.5, blur=3.0),
        {"label": NEUTRAL, "operation": "polar", "code": [0, 0], "scores": None},
        {"label": None, "operation": None, "code": None, "scores": []},
    ]
    sums = totals(rows)
    assert list(sums) == [HAPPY, NEUTRAL]
    assert sums[HAPPY] == pytest.approx(
        {"rows": 3, "identity": 0.8, "gain": 0.2, "expression": 0.3, "monotonicity": 0.5}
    )
    assert sums[NEUTRAL] == {"rows": 1, "identity": 0.5}
