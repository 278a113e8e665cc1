"""Errors of S3 that a person has to mend say what to do."""

import pytest

from synthfer.store import StoreUnavailable, open_store
from synthfer.store.s3 import S3Store
from tests.s3_server import BUCKET


def test_s3_troubles_say_what_to_do(s3_uri, monkeypatch):
    with pytest.raises(ValueError, match=r"bucket does not exist.*create it"):
        open_store("s3://no-such-bucket/x").get("a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")  # so that a new client is made
    with pytest.raises(ValueError, match="credentials") as caught:
        S3Store(f"s3://{BUCKET}/another-client").put_new("a", b"")
    assert "wrong-secret" not in str(caught.value)


def test_no_credentials_and_no_server(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID"):
        S3Store("s3://bucket/x").get("a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9.*run the same command again"):
        S3Store("s3://bucket/x", first_contact_s=0.5).get("a")


ENDPOINTS = {
    "no scheme": "localhost:9",
    "a path and no scheme": "127.0.0.1:9/path",
    "no host": "http://",
    "half of an IPv6 address": "http://[::1",
    "another scheme": "ftp://127.0.0.1:9",
    "a blank": "http://127.0.0.1 :9",
    "a port that is none": "http://127.0.0.1:x",
    "a password and no scheme": "somebody:pAssw0rd@127.0.0.1:9",
    "a password": "http://somebody:pAssw0rd@127.0.0.1:9",
}


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize("case", ENDPOINTS)
def test_an_endpoint_that_is_no_address_is_named_and_not_quoted(variable, case, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv(variable, ENDPOINTS[case])
    with pytest.raises(ValueError, match=f"^{variable}") as error:
        S3Store("s3://bucket/x").get("a")
    assert "pAssw0rd" not in str(error.value)
