"""Hostile manifests: one error that names what is wrong, whatever stands in YAML that people pass around."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthfer.k8s.objects import is_kustomization, job_config, parse
from synthfer.schema import ConfigError

OBJECT = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
STREAMS = {
    "garbage": "{",
    "NUL": "a: \0",
    "deep": "[" * 100_000,
    "deep maps": "{a: " * 1000,
    "a tag of Python": "!!python/object/apply:os.system [id]",
    "a key twice": "kind: a\nkind: b\n",
    "an alias of itself": "&a [*a]",
    "exploding aliases": "\n".join(
        ["a0: &a0 [x,x,x,x,x,x,x,x,x]", *(f"a{i + 1}: &a{i + 1} [{','.join([f'*a{i}'] * 9)}]" for i in range(9))]
    ),
    "a text": "abc",
    "a list": "- a\n",
    "a number": "3",
    "no kind": "apiVersion: v1\nmetadata: {name: a}\n",
    "no metadata": "apiVersion: v1\nkind: A\n",
    "metadata a list": "apiVersion: v1\nkind: A\nmetadata: []\n",
    "no name": "apiVersion: v1\nkind: A\nmetadata: {}\n",
    "a name that is no text": "apiVersion: v1\nkind: A\nmetadata: {name: 3}\n",
    "a kind that is a list": "apiVersion: v1\nkind: []\nmetadata: {name: a}\n",
    "the second is none": f"{OBJECT}---\nabc\n",
    "5 MB": "a: " + "x" * 5 * 2**20,
    "5,000 digits": f"{OBJECT}data: {'9' * 5000}\n",
}


@pytest.mark.parametrize("text", STREAMS.values(), ids=STREAMS.keys())
def test_hostile_manifests_are_one_error(text: str) -> None:
    with pytest.raises(ConfigError, match="the manifests") as caught:
        parse(text)
    assert len(str(caught.value)) < 1000


def test_a_stream_of_objects_is_read() -> None:
    assert [one["kind"] for one in parse(f"{OBJECT}---\n---\n{OBJECT}")] == ["ConfigMap", "ConfigMap"]


KUSTOMIZATIONS = {"garbage": b"{", "a list": b"- a", "binary": b"\xff\xfe", "deep": b"[" * 100_000, "empty": b""}


@pytest.mark.parametrize("body", KUSTOMIZATIONS.values(), ids=KUSTOMIZATIONS.keys())
def test_a_hostile_kustomization_is_one_error(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_bytes(body)
    with pytest.raises(ConfigError, match=r"kustomization\.yaml"):
        is_kustomization(tmp_path)


def job(text: str) -> tuple[dict, list]:
    pod = {"volumes": [{"configMap": {"name": "keys"}}], "containers": [{}]}
    spec = {"rayClusterSpec": {"headGroupSpec": {"template": {"spec": pod}}}}
    maps = {"kind": "ConfigMap", "metadata": {"name": "keys"}, "data": {"run.yaml": text}}
    return {"kind": "RayJob", "spec": spec}, [maps]


@pytest.mark.parametrize("text", ["{", "- a", "abc", "[" * 100_000, "!!python/name:os.system"])
def test_hostile_keys_in_a_config_map_are_one_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"run\.yaml of ConfigMap keys"):
        job_config(*job(text))


def test_keys_in_a_config_map_are_plain_data() -> None:
    assert job_config(*job("out: ${oc.env:HOME}\nwhen: 2026-11-30")) == {"out": "${oc.env:HOME}", "when": "2026-11-30"}


@settings(max_examples=200, deadline=None, derandomize=False)
@given(st.text(max_size=80) | st.text("{}[]:-&*!? \nab", max_size=80).map(lambda text: OBJECT + text))
def test_any_text_is_objects_or_our_error(text: str) -> None:
    try:
        assert all(isinstance(one["kind"], str) for one in parse(text))
    except ConfigError as error:
        assert "the manifests" in str(error)
