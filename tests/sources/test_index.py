"""The index of a collection keeps every entry, each under a key of its own."""

from synthfer.sources.entry import Entry, ImageRef
from synthfer.sources.index import Index


def test_entries_that_are_listed_again_fail_under_keys_of_their_own():
    keys = ["a", "a#2", "a", "a", "b"]
    index = Index.from_entries(Entry(key=key, image=ImageRef("file", key)) for key in keys)
    entries = list(index.entries(range(len(index))))
    assert len({entry.key for entry in entries}) == 5
    assert [entry.reason for entry in entries] == [None, None, "a is listed again", "a is listed again", None]
    assert [entry.image is None for entry in entries] == [False, False, True, True, False]


def test_the_same_key_in_another_split_is_another_entry():
    index = Index.from_entries(Entry(key="a", image=ImageRef("file", "a"), split=split) for split in ("train", "test"))
    assert all(entry.image for entry in index.entries(range(2)))
