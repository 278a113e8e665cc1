"""Entries keep what they say through JSON, and no path leads out of a collection."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthfer.sources.entry import Entry, ImageRef, SourceError, relative, require_path, safe_path

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WHOLE = st.integers(0, 2**63)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
PLACES = st.builds(ImageRef, TEXT, TEXT, WHOLE, WHOLE, TEXT)
ENTRIES = st.builds(
    Entry,
    key=TEXT,
    image=PLACES,
    label=st.none() | st.integers(0, 6),
    split=st.sampled_from(["train", "val", "test"]),
    source_id=st.none() | TEXT.filter(bool),
    attributes=st.dictionaries(TEXT, TEXT, max_size=3),
    label_probs=st.none() | st.tuples(*[st.floats(0, 1)] * 7),
    scores=st.dictionaries(TEXT, NUMBER, max_size=3),
    box=st.none() | st.tuples(*[st.floats(-1e6, 1e6)] * 4),
    reason=st.none() | TEXT.filter(bool),
)


@given(ENTRIES)
def test_an_entry_comes_back_from_its_json(entry):
    text = entry.to_json()
    assert Entry.from_json(text) == entry
    assert Entry.from_json(text).to_json() == text


def test_the_json_is_short_and_always_says_the_label():
    entry = Entry(key="1", image=ImageRef("file", "a.png"))
    value = json.loads(entry.to_json())
    assert set(value) == {"key", "place", "label", "split"}
    assert value["label"] is None


def test_anger_is_not_lost_for_being_zero():
    assert Entry.from_json(Entry(key="1", image=ImageRef("file"), label=0).to_json()).label == 0


def test_an_entry_has_a_picture_or_a_reason():
    with pytest.raises(ValueError, match="'7' has neither an image nor a reason"):
        Entry(key="7")
    assert Entry(key="7", reason="gone").image is None


@pytest.mark.parametrize("count", [0, 6, 8])
def test_label_probs_are_seven(count):
    with pytest.raises(ValueError, match=f"has {count} label_probs, not 7"):
        Entry(key="7", image=ImageRef("file"), label_probs=(0.1,) * count)


@pytest.mark.parametrize(
    "text",
    [
        "../x",
        "a/../../x",
        "a/..",
        "..",
        "/x",
        "\\x",
        "\\\\server\\x",
        "..\\x",
        "C:/x",
        "c:x",
        "a\0.png",
        "",
        " ",
        "//x",
    ],
)
def test_paths_that_leave_are_refused(text):
    with pytest.raises(SourceError, match="leaves the collection"):
        safe_path(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a/b.png", "a/b.png"),
        ("./a//b.png", "a/b.png"),
        ("a\\b.png", "a/b.png"),
        ("..a/b..png", "..a/b..png"),
        ("a/b:c.png", "a/b:c.png"),
        (" a.png", " a.png"),
    ],
)
def test_paths_that_stay_are_written_with_forward_slashes(text, path):
    assert safe_path(text) == path


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b c", "..."]), min_size=1, max_size=6), st.sampled_from("/\\"))
def test_no_accepted_path_leads_out(tmp_path_factory, parts, slash):
    root = tmp_path_factory.getbasetemp().resolve()
    try:
        path = safe_path(slash.join(parts))
    except SourceError:
        return
    assert (root / path).resolve().is_relative_to(root)


def test_relative_paths_have_forward_slashes(tmp_path):
    assert relative(tmp_path / "a" / "b.png", tmp_path) == "a/b.png"


def test_the_error_of_an_absent_path_says_what_is_expected(tmp_path):
    assert require_path(tmp_path, "x", "a folder") == tmp_path
    with pytest.raises(SourceError, match=r"source x needs path=\.\.\., which is a folder"):
        require_path(None, "x", "a folder")
    with pytest.raises(SourceError, match=r"none does not exist; source x expects a folder"):
        require_path(tmp_path / "none", "x", "a folder")
