"""JSON and YAML from outside: every kind of hostile text is one `DocumentError` that names the file."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.documents import MAX_DEPTH, DocumentError, check_plain, parse, read_json, read_library_json, read_yaml
from synthfer.schema import REQUIRED, option
from synthfer.validation import MAX_INTEGER


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str = option(REQUIRED, "what it is called")
    size: int = option(1, "pixels", low=1, high=100)


@dataclass(frozen=True, kw_only=True)
class Whole:
    rows: int = option(REQUIRED, "how many", low=0)
    parts: list[Part] = option([], "parts")
    by_name: dict[str, Part] = field(default_factory=dict)
    note: str | None = option(None, "words")
    anything: Any = option(None, "any")


DEEP = 100_000
JSON = {
    "empty": "",
    "garbage": "\x00\x01",
    "cut off": '{"rows": 1',
    "deep lists": "[" * DEEP + "]" * DEEP,
    "deep maps": '{"a":' * DEEP + "1" + "}" * DEEP,
    "deep within the parser's limit": "[" * (MAX_DEPTH + 5) + "]" * (MAX_DEPTH + 5),
    "NaN": '{"rows": NaN}',
    "infinity": '{"rows": -Infinity}',
    "a float beyond all": '{"rows": 1e999}',
    "400 digits": '{"rows": ' + "9" * 400 + "}",
    "5,000 digits": '{"rows": ' + "9" * 5000 + "}",
    "5,000 digits below": '{"rows": -' + "9" * 5000 + "}",
    "2 to the 63": f'{{"rows": {2**63}}}',
    "a key twice": '{"rows": 1, "rows": 2}',
    "half a surrogate": '{"rows": 1, "note": "\\ud800"}',
    "half a surrogate as a key": '{"rows": 1, "\\ud800": 1}',
    "not UTF-8": b'{"rows": 1, "note": "\xff"}',
    "null": "null",
    "a list": "[1]",
    "a text": '"rows"',
    "a number": "7",
    "no keys": "{}",
    "rows as text": '{"rows": "7"}',
    "rows as a float": '{"rows": 7.5}',
    "rows as true": '{"rows": true}',
    "rows as null": '{"rows": null}',
    "rows below": '{"rows": -1}',
    "an unknown key": '{"rows": 1, "row": 2}',
    "a long unknown key": json.dumps({"rows": 1, "x" * 500_000: 2}),
    "100,000 unknown keys": json.dumps({"rows": 1, **{f"k{n}": n for n in range(100_000)}}),
    "parts are a map": '{"rows": 1, "parts": {}}',
    "a part is null": '{"rows": 1, "parts": [null]}',
    "a part lacks its name": '{"rows": 1, "parts": [{"size": 2}]}',
    "a part is too large": '{"rows": 1, "parts": [{"name": "a", "size": 101}]}',
    "a part by name is a list": '{"rows": 1, "by_name": {"a": []}}',
    "by_name is a list": '{"rows": 1, "by_name": []}',
    "a note of another type": '{"rows": 1, "note": [1]}',
    "larger than the limit": '{"rows": 1, "note": "' + "x" * 3_000_000 + '"}',
}
YAML = {
    "empty": "",
    "garbage": "\x00\x01",
    "cut off": "{rows: 1",
    "deep lists": "[" * DEEP,
    "deep lists on lines": "\n".join(" " * n + "- " for n in range(500)),
    "deep maps": "{a: " * DEEP,
    "deep blocks": "\n".join(" " * n + "a:" for n in range(500)),
    "an alias of itself": "rows: 1\nanything: &a [*a]",
    "a billion laughs": "rows: 1\na0: &a0 [x, x]\n"
    + "\n".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30)),
    "merges that double": "rows: 1\na0: &a0 {x: 1}\n<<: [*a0, *a0]",
    "a tag of Python": "rows: !!python/object/apply:os.system [id]",
    "a tag of Python's modules": "rows: !!python/module:os",
    "an own tag": "rows: !mine 1",
    "binary": "rows: !!binary aGk=",
    "two documents": "rows: 1\n---\nrows: 2",
    "5,000 digits": "rows: " + "9" * 5000,
    "digits of hex": "rows: 0x" + "f" * 5000,
    "NaN": "rows: .nan",
    "infinity": "rows: -.inf",
    "a float beyond all": "rows: 1.0e+999",
    "a key twice": "rows: 1\nrows: 2",
    "a list as a key": "rows: 1\n? [a]\n: 1",
    "a map as a key": "rows: 1\n? {a: 1}\n: 1",
    "a number as a key": "rows: 1\n7: 1",
    "not UTF-8": b"rows: 1\nnote: \xff",
    "a tab": "rows:\t1\n\t- 2",
    "interpolated rows": "rows: ${oc.env:HOME}",
    "a date": "rows: 2026-11-30",
    "minutes": "rows: 1:30",
    "rows as text": "rows: '7'",
    "an unknown key": "rows: 1\nrow: 2",
    "too many values in a list": "rows: 1\nanything: [" + "a," * 60_000 + "]",
    "too many anchors": "rows: 1\nanything:\n" + "".join(f"- &a{n} x\n" for n in range(55_000)),
    "larger than the limit": "rows: 1\nnote: " + "x" * 3_000_000,
}


@pytest.mark.parametrize("body", JSON.values(), ids=JSON)
def test_hostile_json_is_one_error_that_names_the_file(body):
    with pytest.raises(DocumentError, match=r"^s3://b/_dataset\.json") as error:
        read_json(body, "s3://b/_dataset.json", Whole, max_bytes=2_500_000)
    assert len(str(error.value)) < 4000


LIBRARY = {
    "garbage": b"\x00",
    "cut off": b'{"a": 1',
    "NaN": b'{"a": NaN}',
    "deep": b"[" * DEEP,
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a key twice": b'{"a": 1, "a": 2}',
    "half a surrogate": b'{"a": "\\ud800"}',
    "not UTF-8": b'{"a": "\xff"}',
    "larger than the limit": b" " * 1001,
}


@pytest.mark.parametrize("body", LIBRARY.values(), ids=LIBRARY)
def test_what_no_library_writes_is_one_error_that_names_the_file(body):
    with pytest.raises(DocumentError, match=r"^unet/config\.json"):
        read_library_json(body, "unet/config.json", max_bytes=200_001 if len(body) > 2000 else 1000)


def test_libraries_write_infinities_and_integers_of_thirty_digits_for_no_limit():
    body = b'{"a": -Infinity, "b": 1000000000000000019884624838656, "c": [0.5, 7]}'
    assert read_library_json(body, "a") == {"a": None, "b": MAX_INTEGER, "c": [0.5, 7]}


@pytest.mark.parametrize("body", YAML.values(), ids=YAML)
def test_hostile_yaml_is_one_error_that_names_the_file(body):
    with pytest.raises(DocumentError, match=r"^a\.card\.yaml") as error:
        read_yaml(body, "a.card.yaml", Whole)
    assert len(str(error.value)) < 4000


def test_what_is_sound_is_read():
    text = '{"rows": 7, "parts": [{"name": "é", "size": 3}], "by_name": {"a": {"name": "b"}}, "anything": [1.5, null]}'
    expected = Whole(rows=7, parts=[Part(name="é", size=3)], by_name={"a": Part(name="b")}, anything=[1.5, None])
    assert read_json(text, "x", Whole) == read_yaml(text, "x", Whole) == expected
    assert read_json(b"\xef\xbb\xbf" + text.encode(), "x", Whole) == expected


def test_interpolation_and_dates_stay_text_and_floats_are_numbers():
    text = "a: ${oc.env:HOME}\nb: 2026-11-30\nc: 1e-3\nd: 1_000\ne: [0x1f, -.5, +3, 1.]\nf: yes\ng: 1:30"
    assert read_yaml(text, "x") == {
        "a": "${oc.env:HOME}",
        "b": "2026-11-30",
        "c": 1e-3,
        "d": 1000,
        "e": [31, -0.5, 3, 1.0],
        "f": True,
        "g": "1:30",
    }


def test_all_problems_are_reported_at_once_with_their_keys():
    with pytest.raises(DocumentError) as error:
        read_json('{"row": 1, "parts": [{"name": 3}, {"size": 0}]}', "x", Whole)
    for part in ("unknown key row; did you mean 'rows'?", "rows is missing", "parts[0].name", "parts[1].size"):
        assert part in str(error.value)


def test_a_wide_document_is_refused_before_it_fills_the_memory():
    with pytest.raises(DocumentError, match="values"):
        check_plain([0] * 3_000_000, "x")


def test_a_megabyte_of_open_brackets_ends():
    """The time of YAML's parser grows with the square of the depth, which would be hours here."""
    with pytest.raises(DocumentError, match="deep"):
        read_yaml("[" * 1_000_000, "x")


# PyYAML writes its line breaks into keys as they are, and reads spaces.
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029"))
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(PLAIN)
def test_every_plain_value_survives(value):
    assert read_json(json.dumps(value), "x") == value
    assert read_yaml(yaml.safe_dump(value, allow_unicode=True), "x") == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_any_bytes_are_a_value_or_a_document_error(body):
    for read in (read_json, read_yaml):
        for schema in (None, Whole):
            try:
                read(body, "x", schema)
            except DocumentError as error:
                assert str(error).startswith("x")


@settings(max_examples=200, deadline=None)
@given(PLAIN)
def test_any_value_fits_a_schema_or_is_a_document_error(value):
    try:
        assert isinstance(parse(value, "x", Whole), Whole)
    except DocumentError as error:
        assert str(error).startswith("x")
