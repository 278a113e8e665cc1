"""Weights arrive whole, once, and only where they belong."""

import subprocess
import sys

import pytest

from synthfer.k8s import fetch as fetching
from synthfer.k8s.fetch import fetch
from synthfer.store import open_store

FILES = {"model_index.json": b"{}", "unet/weights.safetensors": bytes(range(256)) * 4000, "unet/empty": b""}


def filled(uri: str) -> str:
    store = open_store(uri)
    for key, body in FILES.items():
        store.put_new(key, body)
    return uri


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_every_file_is_copied_once_and_whole(tmp_path, request, monkeypatch, kind):
    monkeypatch.setattr(fetching, "PIECE_BYTES", 100_000)
    source = filled(request.getfixturevalue("s3_uri") if kind == "s3" else str(tmp_path / "models"))
    out = tmp_path / "out"
    assert fetch(source, out) == (3, sum(map(len, FILES.values())))
    assert {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.is_file()} == FILES
    assert fetch(source, out) == (0, 0)
    (out / "unet/weights.safetensors").write_bytes(b"half")  # a pod that was killed while it copied
    assert fetch(source, out)[0] == 1
    assert (out / "unet/weights.safetensors").read_bytes() == FILES["unet/weights.safetensors"]


def test_a_copy_that_is_not_what_the_store_has_is_not_kept(s3_uri, tmp_path, monkeypatch):
    from synthfer.store.s3 import S3Store

    filled(s3_uri)
    get = S3Store.get
    monkeypatch.setattr(S3Store, "get", lambda self, *words: get(self, *words)[:-1] + b"?")
    with pytest.raises(OSError, match="changed while it was copied"):
        fetch(s3_uri, tmp_path / "out")
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file() and file.stat().st_size > 0]


def test_nothing_to_copy_is_an_error_and_not_an_empty_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "synthfer.k8s", "fetch", f"source={tmp_path / 'nothing'}", f"out={tmp_path / 'out'}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "is empty: give the bucket and prefix" in done.stderr
    assert not (tmp_path / "out").exists()
