"""The runs of an experiment: which strategies make which, all of the same number of steps."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.schema import ConfigError
from synthfer.training.runs import REWEIGHTED_POWER, Run, folder, plan
from tests.training.classifier_trainings import config_of

BASE = ("data={a: a, b: b, c: c}", "out=out", "batch=16", "steps=100")
REAL, SYNTHETIC = ("a", "b"), ("c",)
CONTROLS = ["real_only", "synthetic_only", "real_reweighted"]


def runs_of(*words: str, real=REAL, synthetic=SYNTHETIC, rows=1000) -> list[Run]:
    return plan(config_of(*BASE, *words), real, synthetic, rows)


def by_name(runs: list[Run]) -> dict[str, Run]:
    found = {run.name: run for run in runs}
    assert len(found) == len(runs)
    return found


def test_a_mix_stands_beside_its_controls():
    runs = runs_of()
    assert [run.name for run in runs] == ["mixed", *CONTROLS]
    assert {run.steps for run in runs} == {100} and {run.seed for run in runs} == {0}
    assert [run.sources for run in runs] == [("a", "b", "c"), ("a", "b"), ("c",), ("a", "b")]
    assert [run.power for run in runs] == [0, 0, 0, REWEIGHTED_POWER]
    assert all(run.shares is None and run.begins_with is None for run in runs)


def test_without_controls_or_with_one_kind_there_is_one_run():
    assert [run.name for run in runs_of("controls=false")] == ["mixed"]
    for real, synthetic, name in ((REAL, (), "real_only"), ((), ("c",), "synthetic_only")):
        (run,) = runs_of(real=real, synthetic=synthetic)
        assert (run.name, run.sources) == (name, (*real, *synthetic))


def test_controls_keep_the_shares_among_their_own_sources():
    found = by_name(runs_of("mix={a: 0.3, b: 0.1, c: 0.6}"))
    assert found["mixed"].shares == {"a": 0.3, "b": 0.1, "c": 0.6}
    assert found["real_only"].shares == found["real_reweighted"].shares == {"a": 0.3, "b": 0.1}
    assert found["synthetic_only"].shares == {"c": 0.6}


def test_a_source_without_a_share_is_in_no_run():
    """What no step reads is no training data: a card must not say so."""
    found = by_name(runs_of("mix={a: 0.5, b: 0, c: 0.5}"))
    assert found["mixed"].sources == ("a", "c") and found["mixed"].shares == {"a": 0.5, "c": 0.5}
    assert found["real_only"].sources == ("a",) and found["real_only"].shares == {"a": 0.5}


def test_the_reweighted_control_is_no_weaker_than_the_run_it_stands_beside():
    found = by_name(runs_of("sampler_power=0.8"))
    assert {run.power for run in found.values()} == {0.8}
    assert by_name(runs_of("sampler_power=0.2"))["real_reweighted"].power == REWEIGHTED_POWER


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5000), st.floats(0.05, 0.95))
def test_fine_tuning_has_the_steps_of_one_run_in_two_parts(steps, share):
    runs = runs_of("strategy=finetune", f"finetune_share={share}", f"steps={steps}")
    first, second, *controls = runs
    assert (first.name, first.sources, first.begins_with) == ("pretrained", ("c",), None)
    assert (second.name, second.sources, second.begins_with) == ("finetuned", ("a", "b"), "pretrained")
    assert first.steps + second.steps == steps and min(first.steps, second.steps) >= 1
    assert abs(first.steps - share * steps) <= 1
    assert [run.name for run in controls] == CONTROLS and {run.steps for run in controls} == {steps}


def test_fine_tuning_divides_a_mix_by_kind():
    found = by_name(runs_of("strategy=finetune", "mix={a: 0.3, b: 0.1, c: 0.6}"))
    assert found["pretrained"].shares == {"c": 0.6} and found["finetuned"].shares == {"a": 0.3, "b": 0.1}


def test_a_sweep_has_a_run_for_each_real_share():
    found = by_name(runs_of("strategy=sweep", "sweep=[0,0.25,1]"))
    assert list(found) == ["real_000", "real_025", "real_100", *CONTROLS]
    assert {run.steps for run in found.values()} == {100}
    assert found["real_000"].shares == {"c": 1} and found["real_000"].sources == ("c",)
    assert found["real_025"].shares == {"a": 0.125, "b": 0.125, "c": 0.75}
    assert found["real_100"].shares == {"a": 0.5, "b": 0.5} and found["real_100"].sources == ("a", "b")


def test_within_a_kind_a_sweep_divides_as_the_mix_does():
    found = by_name(runs_of("strategy=sweep", "sweep=[0.4]", "mix={a: 0.3, b: 0.1, c: 0.6}", "controls=false"))
    assert found["real_040"].shares == pytest.approx({"a": 0.3, "b": 0.1, "c": 0.6})


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=12, unique=True), st.floats(0.01, 0.99))
def test_the_shares_of_a_sweep_sum_to_one_and_real_ones_to_theirs(percents, part):
    shares = [percent / 100 for percent in percents]
    mix = f"mix={{a: {part}, b: {1 - part}, c: 2}}"
    runs = runs_of("strategy=sweep", f"sweep={shares}", mix, "controls=false")
    assert len({run.name for run in runs}) == len(shares)
    for run, share in zip(runs, shares, strict=True):
        real = sum(run.shares.get(name, 0) for name in REAL)
        assert real == pytest.approx(share) and sum(run.shares.values()) == pytest.approx(1)
        assert set(run.sources) == set(run.shares) and all(run.shares.values())


@pytest.mark.parametrize("shares", ["[]", "[0.1,0.1]", "[0.121,0.124]"])
def test_a_sweep_of_nothing_or_of_one_name_twice_is_refused(shares):
    """Runs of one name would have one place below the experiment."""
    with pytest.raises(ConfigError, match=r"sweep=\["):
        runs_of("strategy=sweep", f"sweep={shares}")


def test_each_seed_has_all_runs_once():
    one, both = runs_of("strategy=finetune"), runs_of("strategy=finetune", "seeds=[4,9,4]")
    assert both == [replace(run, seed=seed) for seed in (4, 9) for run in one]


def test_no_seed_is_refused():
    with pytest.raises(ConfigError, match="seeds"):
        runs_of("seeds=[]")


@pytest.mark.parametrize(("epochs", "rows", "steps"), [(2, 1000, 125), (0.01, 16, 1), (1, 17, 1), (3, 100, 19)])
def test_steps_go_by_epochs_over_all_rows(epochs, rows, steps):
    assert {run.steps for run in runs_of("steps=null", f"epochs={epochs}", rows=rows)} == {steps}


@pytest.mark.parametrize("strategy", ["finetune", "sweep"])
def test_one_kind_of_data_has_nothing_to_go_between(strategy):
    with pytest.raises(ConfigError, match=rf"strategy={strategy} needs real and synthetic data; a, b are all real"):
        runs_of(f"strategy={strategy}", synthetic=())
    with pytest.raises(ConfigError, match=r"c is synthetic: add data, or say which is synthetic by synthetic="):
        runs_of(f"strategy={strategy}", real=())


def test_fine_tuning_of_one_step_is_refused():
    with pytest.raises(ConfigError, match="finetune"):
        runs_of("strategy=finetune", "steps=1")


def test_a_run_says_where_it_stands_and_all_that_it_is():
    run = runs_of("mix={a: 0.5, b: 0.25, c: 0.25}", "seeds=[7]")[0]
    assert run.key == folder("mixed", 7) == "mixed/seed-7"
    told = json.loads(json.dumps(run.to_json()))
    assert Run(**told | {"sources": tuple(told["sources"])}) == run


def test_all_runs_are_validated_equally_often():
    assert {run.epoch for run in runs_of("strategy=finetune", rows=1600)} == {100}


@pytest.mark.parametrize(
    ("mix", "name"), [("{a: 0.5, b: 0.5, c: 0}", "real_only"), ("{a: 0, b: 0, c: 1}", "synthetic_only")]
)
def test_a_mix_of_one_kind_is_called_what_it_is(mix, name):
    assert [run.name for run in runs_of(f"mix={mix}")] == [name]
