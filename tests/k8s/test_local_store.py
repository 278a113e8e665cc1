"""The store of the local overlay: its command, as it stands in the manifest, is a store that datasets can trust."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from synthfer.store import open_store
from tests.k8s.overlays import rendered
from tests.s3_server import free_ports, remove_sockets

WEED = Path(sys.executable).with_name("weed")
PORTS = ("master", "volume", "filer")


def container() -> dict:
    (deployment,) = [one for one in rendered("local") if one["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.slow
def test_the_local_store_makes_its_bucket_and_creates_once(tmp_path, monkeypatch):
    (secret,) = [one for one in rendered("local") if one["kind"] == "Secret"]
    keys = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    first = free_ports()
    ports = {name: first + i for i, name in enumerate(("s3", *PORTS))}
    here = {
        "-dir=/data": f"-dir={tmp_path}",
        "-logdir=/tmp": f"-logdir={tmp_path}",
        "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1",
    }
    here["-s3.port=8333"] = f"-s3.port={ports['s3']}"
    words = [here.get(word, word) for word in container()["command"]]
    words += [f"-{name}.port={ports[name]}" for name in PORTS]
    env = {**os.environ, **{name: keys[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([str(WEED), *words[1:]], env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        script = container()["lifecycle"]["postStart"]["exec"]["command"][-1].replace(
            "weed shell", f"{WEED} shell -master=127.0.0.1:{ports['master']} -filer=127.0.0.1:{ports['filer']}"
        )
        subprocess.run(["sh", "-c", script], check=True, timeout=100, env=env)
        for name, value in (keys | {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{ports['s3']}"}).items():
            monkeypatch.setenv(name, value)
        store = open_store("s3://synthfer/faces")
        assert store.probe() == "atomic"
        assert store.put_new("a", b"x") and not store.put_new("a", b"y")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        with pytest.raises(ValueError, match="access is refused"):
            open_store("s3://synthfer/faces").put_new("b", b"x")
    finally:
        server.kill()
        server.wait()
        remove_sockets(first)
