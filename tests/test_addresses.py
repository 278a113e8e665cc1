"""Addresses that hold secrets: hidden wherever they are shown or logged, refused wherever they are given."""

import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer import cli
from synthfer.addresses import check, problem_of, redact
from synthfer.schema import ConfigError
from synthfer.store.backends import open_store
from synthfer.store.s3 import S3Store
from tests.small_command import Config, call

SECRET = "pAssw0rd/+x9"

# id: a text with the secret in it, and what is left of it
HELD = {
    "s3 key and secret": (f"s3://AKIAX:{SECRET}@bucket/a", "s3://***@bucket/a"),
    "s3 secret alone": ("s3://pAssw0rd@bucket/a", "s3://***@bucket/a"),
    "https user and password": ("https://me:pAssw0rd@host:8080/a", "https://***@host:8080/a"),
    "https password with a slash": (f"https://me:{SECRET}@host/a", "https://***@host/a"),
    "https token as user": ("https://pAssw0rd@huggingface.co/x/y", "https://***@huggingface.co/x/y"),
    "an empty user": ("redis://:pAssw0rd@host:6379", "redis://***@host:6379"),
    "postgresql": ("postgresql+psycopg2://u:pAssw0rd@db/mlflow", "postgresql+psycopg2://***@db/mlflow"),
    "an at sign in the password": ("https://me:pA@ss:pAssw0rd@host/a", "https://***@"),
    "upper case": ("HTTPS://me:pAssw0rd@host", "HTTPS://***@host"),
    "a presigned address": ("https://b.s3.amazonaws.com/k?X-Amz-Signature=pAssw0rd&X-Amz-Expires=9", "/k?***"),
    "an old presigned address": ("https://b/k?AWSAccessKeyId=A&Signature=pAssw0rd%3D", "https://b/k?***"),
    "a shared access signature": ("https://x.blob.core.windows.net/c?sv=1&sig=pAssw0rd", "/c?***"),
    "a token in the query": ("https://host/model?token=pAssw0rd", "https://host/model?***"),
    "a query of s3": ("s3://bucket/k?versionId=pAssw0rd", "s3://bucket/k?***"),
    "user and query": ("https://a:pAssw0rd@host/k?x=pAssw0rd", "https://***@host/k?***"),
    "in quotes": ("cannot read 'https://a:pAssw0rd@host/k', sorry", "cannot read 'https://***@host/k', sorry"),
    "in JSON": ('{"uri": "https://a:pAssw0rd@host/k?a=pAssw0rd", "n": 1}', '"https://***@host/k?***", "n": 1'),
    "in a list": ("[s3://a:pAssw0rd@b/x, s3://c/d]", "[s3://***@b/x, s3://c/d]"),
    "two in one line": ("s3://a:pAssw0rd@b s3://c:pAssw0rd@d", "s3://***@b s3://***@d"),
    "a secret that looks like a port": (f"s3://AKIAX:123/{SECRET}@bucket/a", "s3://***@bucket/a"),
    "a slash too many": (f"s3:///AKIAX:{SECRET}@bucket/a", "s3:///***@bucket/a"),
    "a slash too few": (f"s3:/AKIAX:{SECRET}@bucket/a", "s3:/***@bucket/a"),
    "no scheme": (f"cannot read //AKIAX:{SECRET}@bucket/a", "//***@bucket/a"),
    "a token in the fragment": ("https://host/x#access_token=pAssw0rd", "https://host/x#***"),
    "a signature after a semicolon": ("s3://bucket/x;sig=pAssw0rd", "s3://bucket/x;***"),
    "on several lines": ("one\nhttps://a:pAssw0rd@host\nthree", "one\nhttps://***@host\nthree"),
}


@pytest.mark.parametrize(("text", "left"), HELD.values(), ids=HELD.keys())
def test_a_secret_in_an_address_is_hidden(text: str, left: str) -> None:
    shown = redact(text)
    assert left in shown and "pAssw0rd" not in shown
    assert redact(shown) == shown


TOKENS = {
    "of the Hugging Face hub": "hf_abcdefghijklmnopqrstuvwxyz",
    "of GitHub": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "a key id of AWS": "AKIAIOSFODNN7EXAMPLE",
    "a session's key id of AWS": "ASIAIOSFODNN7EXAMPLE",
    "a JSON web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    "a bearer": "Bearer abcdefghijklmnop0123",
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS.keys())
def test_a_token_of_a_known_kind_is_hidden(token: str) -> None:
    assert token.split()[-1] not in redact(f"refused: {token} (403)")
    assert redact(f"refused: {token} (403)").startswith("refused: ")


PLAIN = [
    "s3://bucket/model@v1/x",
    "s3://bucket/run-7",
    "file:///tmp/a@b",
    "https://host:8080/a@b",
    "http://127.0.0.1:9000",
    "hf://datasets/x/y@main/data",
    "mail me@example.org: x=1",
    "out/a?b=c",
    "https://host/what?",
    "plan.total=3; a_b=c",
    "https://host/a#test",
]


@pytest.mark.parametrize("text", PLAIN)
def test_an_address_without_secrets_stays_as_it_is(text: str) -> None:
    assert redact(text) == text and problem_of(text) is None and check(text) == text


@settings(max_examples=300, deadline=None, derandomize=False)
@given(
    st.text("abc:/@?=&[] '\"#.%+-", max_size=30),
    st.text("abcXYZ019+%._~!$*,;/-", min_size=1, max_size=20),
    st.text("abc:/@?=& '\"", max_size=30),
)
def test_no_password_stays_whatever_stands_around_it(before: str, password: str, after: str) -> None:
    shown = redact(f"{before} s3://user:QQ{password}QQ@bucket/x {after}")
    assert "QQ" not in shown


GIVEN = {
    "out": "out=s3://AKIA:pAssw0rd@bucket/x",
    "out, presigned": "out=https://host/x?X-Amz-Signature=pAssw0rd",
    "a text": "name=https://pAssw0rd@host/x",
    "a list": "names=[a, 's3://k:pAssw0rd@bucket']",
    "a reference": "name=${out}/x",
    "an unknown key": "nme=https://a:pAssw0rd@host",
    "a word that is none": "https://a:pAssw0rd@host",
    "a flag": "--out=https://a:pAssw0rd@host",
    "a number": "seed=https://a:pAssw0rd@host",
}


@pytest.mark.parametrize("word", GIVEN.values(), ids=GIVEN.keys())
@pytest.mark.parametrize("flag", ["--quiet", "--verbose", "--dry-run"])
def test_an_address_with_a_secret_is_refused_and_not_shown(
    word: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error, written = call(capsys, "out=s3://a:pAssw0rd@b" if "${" in word else "out=x", word, flag)
    assert code == cli.WRONG_INPUT
    assert "pAssw0rd" not in error + written
    if not word.startswith(("nme", "https", "--", "seed")):
        assert "AWS_ACCESS_KEY_ID" in error and "role" in error


@pytest.mark.parametrize("uri", ["s3://k:pAssw0rd@bucket/x", "s3://bucket/x?a=pAssw0rd", "https://u:pAssw0rd@host/x"])
@pytest.mark.parametrize("open_it", [open_store, S3Store])
def test_a_store_with_a_secret_in_its_address_is_refused(uri: str, open_it: Any) -> None:
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID") as caught:
        open_it(uri)
    assert "pAssw0rd" not in str(caught.value)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_an_endpoint_with_a_password_is_refused_and_not_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://u:pAssw0rd@127.0.0.1:1")
    with pytest.raises(ValueError, match=name) as caught:
        S3Store("s3://bucket/x", first_contact_s=0).get("a")
    assert "pAssw0rd" not in str(caught.value)


def test_a_proxy_with_a_password_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://u:pAssw0rd@127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "https://s3.invalid")
    with caplog.at_level(logging.DEBUG, "synthfer"), pytest.raises(ConnectionError) as caught:
        S3Store("s3://bucket/x", first_contact_s=0).get("a")
    assert "pAssw0rd" not in str(caught.value) + caplog.text


def test_what_a_job_returns_prints_and_logs_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    def job(config: Config, invocation: cli.Invocation) -> cli.Outcome:
        logging.getLogger("synthfer.job").warning("at %s", "https://u:pAssw0rd@host")
        try:
            raise OSError("https://u:pAssw0rd@host")
        except OSError:
            logging.getLogger("synthfer.job").exception("failed")
        return cli.Outcome({"a": {"b": ["https://u:pAssw0rd@host"]}, "https://u:pAssw0rd@h": 1})

    handlers = logging.getLogger().handlers[:]
    for flags in (["--json"], ["--verbose"], []):
        cli.main({"": cli.Command(Config, job)}, ["out=x", *flags])
        logging.getLogger().handlers = handlers
        out, errors = capsys.readouterr()
        assert "pAssw0rd" not in out + errors and "https://***@host" in out and "https://***@host" in errors
        assert flags != ["--json"] or json.loads(out)["a"] == {"b": ["https://***@host"]}


def test_a_config_error_is_redacted_wherever_it_is_printed() -> None:
    assert str(ConfigError("s3://a:pAssw0rd@b")) == "s3://***@b"
    assert "pAssw0rd" not in str(ConfigError("s3://a:pAssw0rd@b", "s3://a:pAssw0rd@b"))
