"""Hostile and merely odd command lines and config files: exit code 2, one line for each problem, in bounded time."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer import cli
from synthfer.config import load
from synthfer.schema import ConfigError
from tests.small_command import Config, call
from tests.special_files import SPECIAL_FILES

SECRET = "S3cr3tS3cr3t"


WORDS: dict[str, tuple[str, str]] = {
    # id: the word, and what the message names
    "total of 30 digits": ("plan.total=" + "9" * 30, "plan.total: expected integer >= 1 or null"),
    "total of 400 digits": ("plan.total=" + "9" * 400, "plan.total: expected integer >= 1 or null"),
    "total of 5,000 digits": ("plan.total=" + "9" * 5000, "plan.total: expected integer >= 1 or null"),
    "total of 60,000 digits": ("plan.total=" + "9" * 60_000, "plan.total: expected integer >= 1 or null"),
    "per_cell of 30 digits": ("plan.per_cell=" + "9" * 30, "plan.per_cell: expected integer"),
    "per_cell of 400 digits": ("plan.per_cell=" + "9" * 400, "plan.per_cell: expected integer"),
    "per_cell of 5,000 digits": ("plan.per_cell=" + "9" * 5000, "plan.per_cell: expected integer"),
    "a quota of 30 digits": ("plan.per_expression={fear: " + "9" * 30 + "}", "plan.per_expression: expected"),
    "a quota of 5,000 digits": ("plan.per_expression.fear=" + "9" * 5000, "plan.per_expression: expected"),
    "hexadecimal digits": ("plan.total=0x" + "f" * 60, "plan.total: expected integer"),
    "octal digits": ("plan.total=0o" + "7" * 60, "plan.total: expected integer"),
    "1e400": ("plan.total=1e400", "plan.total: expected integer"),
    "-1e400": ("plan.share=-1e400", "plan.share: expected number"),
    "1e30": ("plan.total=1e30", "plan.total: expected integer"),
    "infinity": ("plan.share=.inf", "plan.share: expected number"),
    "not a number": ("plan.share=.nan", "plan.share: expected number"),
    "a share of 5,000 digits": ("plan.share=" + "9" * 5000, "plan.share: expected number"),
    "a key [": ("[=3", "'[=3' is not a key=value word"),
    "a key ]": ("]=3", "is not a key=value word"),
    "a key [0]": ("names[0]=3", "is not a key=value word"),
    "a key [x": ("plan.[x=3", "is not a key=value word"),
    "no key": ("=3", "'=3' is not a key=value word"),
    "only =": ("=", "'=' is not a key=value word"),
    "only dots": ("...=3", "is not a key=value word"),
    "two dots": ("plan..total=1", "'plan..total=1' is not a key=value word"),
    "a dot first": (".plan=1", "is not a key=value word"),
    "a dot last": ("plan.=1", "is not a key=value word"),
    "a key of braces": ("{a}=1", "is not a key=value word"),
    "a key ${": ("${plan}=1", "is not a key=value word"),
    "a key with a line break": ("pl\nan=1", "is not a key=value word"),
    "a key with a backslash": ("plan\\.total=1", "is not a key=value word"),
    "a key of 40,000 parts": ("a." * 20_000 + "a=1", "is not a key=value word"),
    "a key of 10,000 letters": ("a" * 10_000 + "=1", "is not a key=value word"),
    "a key __class__": ("plan.__class__=1", "unknown key plan.__class__"),
    "NUL in the value": ("name=a\0b", "NUL"),
    "NUL in the key": ("na\0me=ab", "is not a key=value word"),
    "half a surrogate": ("name=a\udcff", "Unicode"),
    "half a surrogate in a path": ("out=/tmp/\udcff", "Unicode"),
    "half a surrogate in the key": ("na\udcffme=1", "is not a key=value word"),
    "1 MB": ("name=" + "x" * 10**6, "characters"),
    "1 MB of brackets": ("names=" + "[" * 10**6, "characters"),
    "60,000 brackets": ("plan.total=" + "[" * 60_000, "plan.total: expected integer"),
    "1,000 lists deep": ("names=" + "[" * 1000 + "]" * 1000, "names: expected list"),
    "1,000 maps deep": ("plan=" + "{a: " * 1000 + "1" + "}" * 1000, "plan is a section"),
    "exploding aliases": (
        "names=[&a [x,x,x,x,x,x,x,x,x], "
        + ", ".join(f"&{b} [{','.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
        + "]",
        "names: expected list of text",
    ),
    "an alias of itself": ("names=&a [*a]", "names: expected list of text"),
    "a key twice": ("plan.per_expression={fear: 1, fear: 2}", "plan.per_expression: expected"),
    "a tag of Python": ("names=!!python/object/apply:os.system [id]", "names: expected list of text"),
    "a tag without meaning": ("plan.total=!x 3", "plan.total: expected integer"),
    "an open ${": ("plan.total=${", "plan.total"),
    "an open ${ in a text": ("name=${", "name"),
    "an empty ${}": ("name=${}", "name"),
    "${ with a name of no key": ("name=${nowhere}", "nowhere"),
    "${ through a value": ("name=${seed.x}", "seed.x"),
    "${ to itself": ("name=${name}", "name"),
    "${ within ${": ("name=${${out}}", "name"),
    "${ 10,000 deep": ("name=" + "${" * 10_000 + "}" * 10_000, "name"),
    "the environment": ("name=${oc.env:SECRET_OF_TEST}", "oc.env"),
    "the environment, with a default": ("name=${oc.env:SECRET_OF_TEST,x}", "oc.env"),
    "the environment in a list": ("names=['${oc.env:SECRET_OF_TEST}']", "oc.env"),
    "the environment, spaced": ("name=${ oc.env : SECRET_OF_TEST }", "oc.env"),
    "the environment, decoded": ("name=${oc.decode:${oc.env:SECRET_OF_TEST}}", "oc."),
    "the environment by ${env:}": ("name=${env:SECRET_OF_TEST}", "env:"),
    "another resolver": ("name=${oc.create:{a: 1}}", "oc.create"),
    "a relative key": ("plan.total=${.per_cell}", "plan.total"),
    "a flag with a value": ("--plan.total=3", "unknown flag"),
    "a flag of 10,000 dashes": ("-" * 10_000, "unknown flag"),
    "a flag that is not Unicode": ("--\udcff", "unknown flag"),
}


@pytest.mark.parametrize(("word", "said"), WORDS.values(), ids=WORDS.keys())
def test_an_odd_word_is_exit_code_2(
    word: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_TEST", SECRET)
    code, error, written = call(capsys, "out=x", word)
    assert code == cli.WRONG_INPUT
    assert said in error and len(error) < 2000
    assert "Traceback" not in written and SECRET not in written + error


CYCLES = {
    "two keys that name each other": ["name=${out}", "out=${name}"],
    "three keys in a ring": ["name=${out}", "out=x${plan.total}", "plan.total=${name}"],
    "a section within itself": ["plan.per_expression=${plan}"],
}


@pytest.mark.parametrize("words", CYCLES.values(), ids=CYCLES.keys())
def test_keys_that_name_each_other_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, error, written = call(capsys, "out=x", *words)
    assert code == cli.WRONG_INPUT and "leads back to itself" in error and "Traceback" not in written


def test_texts_that_double_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = [f"k{i}: '${{extra.k{i + 1}}}${{extra.k{i + 1}}}'" for i in range(30)]
    (tmp_path / "run.yaml").write_text("extra:\n  " + "\n  ".join([*lines, "k30: xx"]) + "\nname: ${extra.k0}\n")
    code, error, _ = call(capsys, "out=x", "--config", f"{tmp_path}/run.yaml")
    assert code == cli.WRONG_INPUT and "characters" in error


def test_values_that_double_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = [f"k{i}: ['${{extra.k{i + 1}}}', '${{extra.k{i + 1}}}']" for i in range(35)]
    (tmp_path / "run.yaml").write_text("extra:\n  " + "\n  ".join([*lines, "k35: xx"]) + "\nnames: ${extra.k0}\n")
    code, error, _ = call(capsys, "out=x", "--config", f"{tmp_path}/run.yaml")
    assert code == cli.WRONG_INPUT and "values" in error


def _aliases(depth: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(depth)]
    return "\n".join(lines)


FILES: dict[str, tuple[bytes | None, str]] = {
    # id: the content, and what the message says beside the file's name
    "1,000 lists deep": (b"names: " + b"[" * 1000 + b"]" * 1000, "deep"),
    "100,000 lists deep": (b"names: " + b"[" * 100_000, "deep"),
    "5,000 maps deep": ("\n".join(" " * i + "a:" for i in range(900)).encode(), "deep"),
    "exploding aliases": (_aliases(9).encode(), "values"),
    "an alias of itself": (b"a: &a [*a]", "deep"),
    "garbage": (b"{", "is not YAML"),
    "binary": (bytes(range(256)) * 4, "UTF-8"),
    "UTF-16": ("out: x".encode("utf-16"), "UTF-8"),
    "NUL": (b"out: a\0b", "is not YAML"),
    "a key twice": (b"name: a\nname: b\n", "stands 2 times"),
    "a tag of Python": (b"name: !!python/object/apply:os.system [id]", "is not YAML"),
    "two documents": (b"name: a\n---\nname: b\n", "is not YAML"),
    "a list": (b"- a\n", "must hold a map of keys"),
    "a text": (b"abc", "must hold a map of keys"),
    "a number of 5,000 digits": (b"seed: " + b"9" * 5000, "digits"),
    "an infinity": (b"plan: {share: .inf}", "not a number"),
    "a key [": (b"'[': 3\n", "is not a key"),
    "a key that is no text": (b"3: 3\n", "unknown key 3"),
    "a key that is null": (b"null: 3\n", "is not a key"),
    "a key of two dots": (b"plan..total: 3\n", "is not a key"),
    "the environment": (b"name: ${oc.env:SECRET_OF_TEST}\n", "oc.env"),
    "the environment in a section": (b"plan: {total: '${oc.env:SECRET_OF_TEST}'}\n", "oc.env"),
    "the environment as a key": (b"'${oc.env:SECRET_OF_TEST}': 3\n", "is not a key"),
    "2 MB": (b"name: " + b"x" * 2 * 2**20, "larger than"),
    "nowhere": (None, "cannot read the config file"),
}


@pytest.mark.parametrize(("body", "said"), FILES.values(), ids=FILES.keys())
def test_an_odd_config_file_is_exit_code_2(
    body: bytes | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_TEST", SECRET)
    path = tmp_path / "run.yaml"
    if body is not None:
        path.write_bytes(body)
    code, error, written = call(capsys, "out=x", "--config", str(path))
    assert code == cli.WRONG_INPUT and said in error
    assert "run.yaml" in error or "unknown key" in error or "oc.env" in error
    assert "Traceback" not in written and SECRET not in written + error and len(error) < 2000


SPECIAL = SPECIAL_FILES | {
    "the empty device": lambda path: path.symlink_to("/dev/null"),
    "a sparse file of 100 GB": lambda path: (path.touch(), os.truncate(path, 100 * 2**30)),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_config_file_that_is_no_file_is_refused_before_it_is_opened(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    SPECIAL[kind](path)
    code, error, written = call(capsys, "out=x", "--config", str(path))
    assert code == cli.WRONG_INPUT and "run.yaml" in error and "Traceback" not in written


PATHS = {"no text": "", "NUL": "a\0b", "5,000 letters": "a" * 5000, "not Unicode": "/tmp/\udcff.yaml"}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_an_odd_path_of_a_config_file_is_exit_code_2(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, error, written = call(capsys, "out=x", f"--config={path}")
    assert code == cli.WRONG_INPUT and "Traceback" not in written and len(error) < 500


TEXT = st.text(max_size=60) | st.text("${}[].,:&*! \n'\"=ab01", max_size=60)


@settings(max_examples=300, deadline=None, derandomize=False)
@given(words=st.lists(st.tuples(st.sampled_from(["name", "plan.total", "names", "plan", "", "x.y"]), TEXT), max_size=3))
def test_any_words_are_a_config_or_our_error(words: list[tuple[str, str]]) -> None:
    try:
        config = load(Config, ["out=x", *(f"{key}={text}" for key, text in words)])
    except ConfigError as error:
        assert str(error)
    else:
        assert isinstance(config, Config)


@settings(max_examples=200, deadline=None, derandomize=False)
@given(body=st.binary(max_size=80) | TEXT.map(lambda text: text.encode(errors="ignore")))
def test_any_config_file_is_a_config_or_our_error(body: bytes, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(body)
    try:
        assert load(Config, ["out=x"], [path])
    except ConfigError as error:
        assert str(error)


def test_keys_may_still_name_each_other() -> None:
    config = load(Config, ["out=run-${plan.total}-${seed}", "plan.total=${seed}", "seed=7", "names=['${out}', b]"])
    assert (config.out, config.plan.total, config.names) == ("run-7-7", 7, ["run-7-7", "b"])
