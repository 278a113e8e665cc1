"""Which Ray cluster a job joins: the one that was started here and still answers, none that is gone."""

import socket

import pytest

from synthfer.engine import cluster


@pytest.fixture
def started(tmp_path, monkeypatch):
    file = tmp_path / "ray_current_cluster"
    monkeypatch.setattr(cluster, "_ADDRESS_FILE", file)
    return file


def test_without_a_file_there_is_no_cluster(started, caplog):
    assert cluster._running_cluster() is None
    assert not caplog.text


def test_a_cluster_that_answers_is_joined_by_its_address(started):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        started.write_text(f"{address}\n")
        assert cluster._running_cluster() == address


@pytest.mark.parametrize("text", ["127.0.0.1:{free}", "no address", ""])
def test_one_that_is_gone_is_told_and_not_joined(started, caplog, text):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    started.write_text(text.format(free=free))
    assert cluster._running_cluster() is None
    assert "does not answer" in caplog.text
