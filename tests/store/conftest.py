"""The two kinds of store that every dataset test runs on."""

import pytest

from synthfer.store import objects


@pytest.fixture(params=["local", "s3"])
def store_uri(request: pytest.FixtureRequest, tmp_path) -> str:
    """The URI of an empty store: a folder, and a prefix on the S3 server."""
    return str(tmp_path / "dataset") if request.param == "local" else request.getfixturevalue("s3_uri")


@pytest.fixture(autouse=True)
def short_probe(monkeypatch):
    """One race of two for each dataset made: this server takes seconds over a big one, and a test has it once."""
    monkeypatch.setattr(objects, "_RACES", (2,))
