"""The sources that ship, by name."""

import dataclasses
from pathlib import Path

import pytest

from synthfer import sources
from synthfer.config import load
from synthfer.sources.entry import Collection, SourceError


@pytest.mark.parametrize("name", sources.names())
def test_every_source_has_options_with_defaults_and_finds(name):
    source = sources.module(name)
    assert dataclasses.is_dataclass(source.Config)
    config = load(source.Config, [])
    try:
        found = source.find(None, config)
    except SourceError as error:
        assert f"source {name} needs path=" in str(error)
    else:
        assert isinstance(found, Collection)


def test_what_the_sources_share_is_no_source():
    modules = {file.stem for file in Path(sources.__file__).parent.glob("*.py")} - {"__init__"}
    shared = {"entry", "index", "labels", "layouts", "collection_reader", "tables", "archives", "parquet_files"}
    assert modules - set(sources.names()) == shared
    with pytest.raises(ValueError, match="unknown source 'layouts'"):
        sources.module("layouts")


@pytest.mark.parametrize("name", sorted(set(sources.names()) - {"avatars"}))
@pytest.mark.parametrize("body", [None, b"", b"x", b"PK\x03\x04", b"PAR1PAR1"])
def test_something_else_is_refused_or_fails_as_a_row(tmp_path, name, body):
    path = tmp_path
    if body is not None:
        path = tmp_path / "x.parquet"
        path.write_bytes(body)
    source = sources.module(name)
    try:
        entries = list(source.find(path, source.Config()).entries)
    except SourceError as error:
        assert str(path) in str(error)
    else:
        assert all(entry.image is None and path.name in entry.reason for entry in entries)
        assert entries
