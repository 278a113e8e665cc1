"""Configs: what is read from files and words, and what is said where something is wrong."""

import dataclasses
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from synthfer.config import keys, load
from synthfer.schema import REQUIRED, Choice, ConfigError, option, registry_section, registry_sections, to_dict


@dataclass(frozen=True, kw_only=True)
class Plan:
    preset: str = option("portrait", "Vocabularies.")
    total: int | None = option(None, "Rows in all.", low=1)
    per_expression: int | dict[str, int] | None = option(None, "Rows of each expression.", low=0)
    attributes: dict[str, list[str] | str] = option({}, "Restrict vocabularies.")
    seed: int = option(0, "Seed.", low=0)


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    model: str = option("builtin:faces", "Weights.")
    revision: str | None = option(None, "Revision.")
    steps: int | None = option(None, "Steps.", low=1, high=1000)
    guidance: float = option(2.0, "Guidance.", low=0)
    lora: list[str] = option([], "LoRA weights.")
    size: tuple[int, ...] = option((64, 64), "Size.", low=8)
    dtype: Literal["auto", "float32", "off"] = option("auto", "Precision.")
    compile: bool = option(False, "Compile.")

    def __post_init__(self) -> None:
        if self.compile and self.dtype == "off":
            raise ValueError("compile needs a dtype")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    delay: float = option(0.0, "Seconds per picture.", low=0)


MODULES = {"diffusion": Diffusion, "drawn": Drawn}


def names() -> list[str]:
    return list(MODULES)


def module(name: str) -> Any:
    if name not in MODULES:
        raise ValueError(f"unknown generator {name!r}; did you mean 'drawn'?")
    return SimpleNamespace(Config=MODULES[name])


@dataclass(frozen=True, kw_only=True)
class Config:
    out: str = option(REQUIRED, "Where to.")
    plan: Plan = field(default_factory=Plan)
    generator: Any = registry_section(names, module, default="diffusion", of="what draws")
    share: float = option(0.02, "Share of failures.", low=0, high=1)
    format: str = option("jpeg", "Format.", choices=("jpeg", "png"))
    hf_token: str | None = option(None, "Token of the hub.")
    max_tokens: int = option(77, "Longest prompt.")
    anything: Any = option(None, "Anything.")


def problems(*words: str, out: str = "out=x", files: tuple[Path, ...] = ()) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(Config, [out, *words], files)
    return caught.value.args


def test_defaults_and_nested_sections() -> None:
    config = load(Config, ["out=s3://bucket/run"])
    assert config == Config(out="s3://bucket/run")
    assert config.generator == Choice("diffusion", Diffusion())


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("plan.total=7", "plan.total", 7),
        ("plan.total=1e6", "plan.total", 1_000_000),
        ("plan.total=1_000", "plan.total", 1000),
        ("plan.total=null", "plan.total", None),
        ("plan.per_expression=3", "plan.per_expression", 3),
        ("plan.per_expression={fear: 3, sad: 0}", "plan.per_expression", {"fear": 3, "sad": 0}),
        ("plan.per_expression.fear=3", "plan.per_expression", {"fear": 3}),
        ("plan.attributes.age=[young, old]", "plan.attributes", {"age": ["young", "old"]}),
        ("plan.attributes.age=old", "plan.attributes", {"age": "old"}),
        ("generator.lora=[a, b]", "generator.options.lora", ["a", "b"]),
        ("generator.size=[32, 32]", "generator.options.size", (32, 32)),
        ("generator.guidance=3", "generator.options.guidance", 3.0),
        ("generator.compile=true", "generator.options.compile", True),
        ("generator.dtype=off", "generator.options.dtype", "off"),  # YAML reads it as false
        ("generator.revision=1234567", "generator.options.revision", "1234567"),
        ("generator.revision=12e45", "generator.options.revision", "12e45"),
        ("generator.revision=null", "generator.options.revision", None),
        ("plan.preset=#1: a, b]", "plan.preset", "#1: a, b]"),
        ("plan.preset=a=b", "plan.preset", "a=b"),
        ("plan.preset=''", "plan.preset", ""),
        ("anything={a: [1, x]}", "anything", {"a": [1, "x"]}),
    ],
)
def test_words(word: str, path: str, value: Any) -> None:
    found: Any = load(Config, ["out=x", word])
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_files_combine_in_order_and_words_win(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("out: a\nplan: {total: 5, seed: 3, attributes: {age: [old], gender: male}}\n")
    second.write_text("plan.total: 6\ngenerator:\n  name: drawn\n")
    config = load(Config, ["plan.seed=9", "plan.attributes.age=young", "generator.delay=1"], [first, second])
    assert (config.out, config.plan.total, config.plan.seed) == ("a", 6, 9)
    assert config.plan.attributes == {"age": "young", "gender": "male"}
    assert config.generator == Choice("drawn", Drawn(delay=1.0))


def test_references_reach_defaults_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET", "s3://mine")
    config = load(Config, ["out=s3://mine/run-${plan.seed}", "plan.total=${max_tokens}"])
    assert (config.out, config.plan.total) == ("s3://mine/run-0", 77)
    assert "nowhere" in problems("plan.preset=${nowhere}")[0]
    assert "neither the environment" in problems("plan.preset=${oc.env:BUCKET}")[0]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("plan.totl=5", "unknown key plan.totl; did you mean plan.total?"),
        ("total=5", "unknown key total; did you mean plan.total?"),
        ("guidence=5", "unknown key guidence; did you mean generator.guidance?"),
        ("xyzzy=5", "unknown key xyzzy; --help lists the keys"),
        ("generator.delay=1", "unknown key generator.delay; --help lists the keys"),
        ("plan.total=many", "plan.total: expected integer >= 1 or null, got many"),
        ("plan.total=0", "plan.total: expected integer >= 1 or null, got 0"),
        ("plan.total=1.5", "plan.total: expected integer >= 1 or null, got 1.5"),
        ("plan.total=true", "plan.total: expected integer >= 1 or null, got true"),
        (
            "plan.per_expression={fear: -1}",
            "plan.per_expression: expected integer >= 0 or map of text to integer >= 0 or null, got {'fear': -1}",
        ),
        ("share=2", "share: expected number from 0 to 1, got 2"),
        ("share=.nan", "share: expected number from 0 to 1, got .nan"),
        ("format=gif", "format: expected one of jpeg, png, got gif"),
        ("generator.dtype=int8", "generator.dtype: expected one of auto, float32, off, got int8"),
        ("generator.lora=a", "generator.lora: expected list of text, got a"),
        ("generator.compile=1", "generator.compile: expected true or false, got 1"),
        ("generator.name=drown", "generator.name: unknown generator 'drown'; did you mean 'drawn'?"),
        ("generator=drown", "generator.name: unknown generator 'drown'; did you mean 'drawn'?"),
        ("plan=5", "plan is a section: give its keys (plan.…=…), not 5"),
        ("plan=[5]", "plan is a section: give its keys (plan.…=…), not [5]"),
        ("generator.lora={a: b}", "generator.lora: expected list of text, got {'a': 'b'}"),
        ("plan.total=", "plan.total= has no value; write plan.total=null for none, plan.total=\"''\" for empty text"),
        ("plan.total", "'plan.total' is not a key=value word; --help lists the keys"),
        ("=5", "'=5' is not a key=value word; --help lists the keys"),
    ],
)
def test_errors_name_key_value_and_expectation(word: str, said: str) -> None:
    assert problems(word) == (said,)


def test_a_check_across_keys_is_told_with_its_section() -> None:
    assert problems("generator.compile=true", "generator.dtype=off") == ("generator: compile needs a dtype",)


def test_all_problems_at_once() -> None:
    found = problems("plan.totl=1", "plan.seed=-1", "format=gif", "share=", out="plan.preset=a")
    assert found == (
        "share= has no value; write share=null for none, share=\"''\" for empty text",
        "out is needed, add out=…: Where to.",
        "unknown key plan.totl; did you mean plan.total?",
        "plan.seed: expected integer >= 0, got -1",
        "format: expected one of jpeg, png, got gif",
    )
    text = str(ConfigError(*found))
    assert text.startswith("5 problems:\n  - share=")
    assert str(pickle.loads(pickle.dumps(ConfigError(*found)))) == text  # noqa: S301 - it crosses processes


@pytest.mark.parametrize(
    ("text", "said"), [("a: [1", "is not YAML as it should be"), ("- a\n", "must hold a map"), (None, "cannot read")]
)
def test_bad_files(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "run.yaml"
    if text is not None:
        path.write_text(text)
    (found,) = problems(files=(path,))
    assert said in found and "run.yaml" in found


def test_to_dict_is_plain_and_keeps_secrets() -> None:
    config = load(Config, ["out=x", "hf_token=abc", "generator.size=[8, 8]", "anything={password: abc, n: 1}"])
    plain = to_dict(config)
    assert "abc" not in json.dumps(plain)
    assert plain["hf_token"] == plain["anything"]["password"] == "***"
    assert plain["max_tokens"] == 77
    assert plain["generator"] == {"name": "diffusion", **dataclasses.asdict(Diffusion()), "size": [8, 8]}
    assert to_dict(load(Config, ["out=x"]))["hf_token"] is None


def test_errors_keep_secrets() -> None:
    assert problems("anything=1", "hf_token.a=abc") == ("hf_token: expected text or null, got (hidden)",)


def test_keys_follow_the_chosen_name() -> None:
    shown = {key.path: key for key in keys(Config)}
    assert shown["out"].default is None
    assert shown["plan.total"].default == "null"
    assert shown["plan.total"].takes == "integer >= 1 or null"
    assert shown["generator.name"].default == "diffusion"
    assert "drawn" in shown["generator.name"].help
    assert "generator.model" in shown
    other = [key.path for key in keys(Config, ["generator.name=drawn"])]
    assert "generator.delay" in other and "generator.model" not in other


def test_the_name_of_what_is_picked_may_stand_alone(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("generator: drawn\n")
    for config in (
        load(Config, ["out=x", "generator=drawn", "generator.delay=2"]),
        load(Config, ["out=x", "generator.delay=2"], [file]),
    ):
        assert (config.generator.name, config.generator.options.delay) == ("drawn", 2.0)


@dataclass(frozen=True, kw_only=True)
class Several:
    plan: Plan = field(default_factory=Plan)
    stages: Any = registry_sections(names, module, of="what draws, one after another")

    @classmethod
    def preset_of(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {"stages": {"drawn": {}}} if (given.get("plan") or {}).get("preset") == "drawn" else {}


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ([], ()),
        (["stages=drawn"], (Choice("drawn", Drawn()),)),
        (["stages=[drawn, diffusion]"], (Choice("diffusion", Diffusion()), Choice("drawn", Drawn()))),
        (["stages.drawn.delay=2"], (Choice("drawn", Drawn(delay=2.0)),)),
        (
            ["stages=drawn", "stages.diffusion.steps=3"],
            (Choice("diffusion", Diffusion(steps=3)), Choice("drawn", Drawn())),
        ),
        (["stages={drawn: {delay: 1}}"], (Choice("drawn", Drawn(delay=1.0)),)),
        (["stages.drawn.delay=${plan.seed}", "plan.seed=4"], (Choice("drawn", Drawn(delay=4.0)),)),
        (["plan.preset=drawn"], (Choice("drawn", Drawn()),)),
        (["plan.preset=drawn", "stages.drawn.delay=3"], (Choice("drawn", Drawn(delay=3.0)),)),
        (["plan.preset=drawn", "stages=diffusion"], (Choice("diffusion", Diffusion()), Choice("drawn", Drawn()))),
        (["plan.preset=drawn", "stages.drawn=null"], ()),
        (["plan.preset=drawn", "stages=null"], ()),
    ],
)
def test_several_members_are_chosen_by_name(words: list[str], chosen: tuple[Choice, ...]) -> None:
    assert load(Several, words).stages == chosen


def test_several_members_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    for text in ("stages: drawn\n", "stages: [drawn]\n", "stages:\n  drawn: {}\n"):
        file.write_text(text)
        assert load(Several, [], [file]).stages == (Choice("drawn", Drawn()),)
    assert to_dict(load(Several, ["stages=drawn"]))["stages"] == [{"name": "drawn", "delay": 0.0}]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("stages=drown", "stages: unknown generator 'drown'; did you mean 'drawn'?"),
        ("stages.delay=2", "unknown key stages.delay; did you mean stages.drawn.delay?"),
        ("stages.drawn.dely=2", "unknown key stages.drawn.dely; did you mean stages.drawn.delay?"),
        ("stages.drawn.delay=-1", "stages.drawn.delay: expected number >= 0, got -1"),
        ("stages.drawn=5", "stages.drawn is a section: give its keys (stages.drawn.…=…), not 5"),
        ("stages=5", "stages takes names: write stages=NAME or stages=[NAME, NAME], not 5"),
    ],
)
def test_errors_of_several_members_name_key_and_value(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(Several, [word])
    assert caught.value.args == (said,)


def test_the_keys_of_all_members_are_shown() -> None:
    shown = {key.path: key for key in keys(Several, ["plan.preset=drawn"])}
    assert shown["stages"].default == "[drawn]"
    assert "diffusion, drawn" in shown["stages"].help
    assert {"stages.drawn.delay", "stages.diffusion.model"} <= shown.keys()
