"""Plans of latents: unlabelled by the number, or of the expressions that are asked for."""

import pytest

from synthfer.config import load
from synthfer.expressions import EXPRESSIONS
from synthfer.planning import latents
from synthfer.schema import ConfigError


def plan(*words: str) -> latents.LatentPlan:
    return latents.build(load(latents.Config, list(words)))


def test_unlabelled_rows_differ_by_their_seeds_alone():
    made = plan("total=50", "seed=2")
    rows = made.rows(range(50))
    assert made.counts() == {"none": 50}
    assert {row.label for row in rows} == {None} and {row.operation for row in rows} == {"sample"}
    assert len({row.seed for row in rows}) == len({row.sample_id for row in rows}) == 50
    assert latents.from_spec(made.spec()).rows(range(50)) == rows
    assert plan("total=50", "seed=3")[0].seed != rows[0].seed


def test_rows_of_expressions():
    made = plan("per_expression={fear: 3, sad: 1}")
    assert [EXPRESSIONS[row.label] for row in made.rows(range(4))].count("fear") == 3
    assert plan("balance=rafdb").counts()["happy"] == 0


def test_contradictions_are_told():
    with pytest.raises(ConfigError, match="contradict"):
        plan("total=5", "per_expression=3")
    with pytest.raises(ConfigError, match=r"needs plan\.balance"):
        plan("balance_to=5")
    with pytest.raises(IndexError, match="row 5"):
        plan("total=5")[5]
