"""From a URI to a store."""

import pytest

from synthfer.store import open_store


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://", "s3://x", "s3://Not_A_Bucket/x", "file://host/x", ""])
def test_wrong_uris_are_refused_with_advice(uri):
    with pytest.raises(ValueError, match=r"s3://bucket/prefix|file:///|folder"):
        open_store(uri)
