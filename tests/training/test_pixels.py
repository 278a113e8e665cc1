"""Decoded pictures: the rows' own, in their order, whole files only, one builder at a time, killed ones replaced."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from synthfer import images
from synthfer.config import load as load_config
from synthfer.sample import SCHEMA
from synthfer.store import Dataset
from synthfer.store.view import View
from synthfer.training import pixels
from synthfer.training.data import Data, open_data
from synthfer.training.settings import TrainConfig
from tests.audit.datasets import dataset

SIZE = 12


def noise(rows: int, seed: int) -> list[np.ndarray]:
    """Pictures of several sizes, some not square."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*sides, 3), np.uint8) for sides in rng.choice([8, 12, 20], (rows, 2))]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """Two datasets, one seen through a view that rejects some rows; not all rows have a label."""
    folder = tmp_path_factory.mktemp("pixels")
    labels = [None if row % 11 == 0 else row % 7 for row in range(100)]
    first = dataset(folder / "a", noise(100, 0), splits=["train", "test"] * 50, label=labels, unit_size=30)
    second = dataset(folder / "b", noise(700, 1), unit_size=600)
    names = pa.Table.from_batches(Dataset(second).scan(["sample_id"]))["sample_id"].to_pylist()
    selection = pa.table({"sample_id": names[::5], "decision": ["rejected"] * 140, "reason": ["test"] * 140,
                          "weight": [1.0] * 140})  # fmt: skip
    view = View.create(str(folder / "view"), [Dataset(second)], selection, {})
    return {"a": first, "b": view.uri}


@pytest.fixture(scope="module")
def data(places) -> Data:
    return opened(places)


def opened(places: dict[str, str], **keys) -> Data:
    words = {"out": "x", "data": places, "synthetic": [], **keys}
    return open_data(load_config(TrainConfig, [f"{key}={json.dumps(value)}" for key, value in words.items()]))


def expected(data: Data, size: int = SIZE) -> np.ndarray:
    """Row by row, found by dataset and sample id."""
    uris = {part.dataset for part in data.parts}
    bodies = {
        (uri, sample["sample_id"]): sample["image"]["bytes"]
        for uri in uris
        for batch in Dataset(uri).scan(["sample_id", "image"])
        for sample in batch.to_pylist()
    }
    keys = zip(data.rows["part"].to_pylist(), data.rows["sample_id"].to_pylist(), strict=True)
    squares = [images.square(images.decode(bodies[data.parts[part].dataset, key]), size) for part, key in keys]
    return np.stack(squares).transpose(0, 3, 1, 2)


def built(data: Data, folder: str, queue, pause: float) -> None:
    """What a process of a node does; `pause` slows the decoding, so that others meet it at work."""

    def progress(done: int, total: int) -> None:
        queue.put(done)
        time.sleep(pause)

    queue.put(int(pixels.load(data, SIZE, folder, progress).sum()))


def process(*arguments) -> multiprocessing.process.BaseProcess:
    started = multiprocessing.get_context("spawn").Process(target=built, args=arguments)
    started.start()
    return started


def files(folder: Path, suffix: str) -> list[Path]:
    return sorted(folder.glob(f"*{suffix}"))


def test_pictures_are_those_of_the_rows(data):
    told = []
    found = pixels.load(data, SIZE, progress=lambda done, total: told.append((done, total)))
    assert found.dtype == np.uint8 and found.shape == (data.rows.num_rows, 3, SIZE, SIZE)
    np.testing.assert_array_equal(found, expected(data))
    assert told[-1] == (data.rows.num_rows, data.rows.num_rows)
    assert [done for done, _ in told] == sorted(done for done, _ in told) and len(told) > 2


def test_a_folder_gives_the_same_and_is_read_the_next_time(data, tmp_path):
    told = []
    first = pixels.load(data, SIZE, str(tmp_path / "new" / "folder"), lambda *_: told.append(1))
    assert told
    told.clear()
    second = pixels.load(data, SIZE, str(tmp_path / "new" / "folder"), lambda *_: told.append(1))
    assert not told
    for found in (first, second):
        assert isinstance(found, np.memmap) and not found.flags.writeable
        np.testing.assert_array_equal(found, expected(data))
    assert not files(tmp_path / "new" / "folder", ".part")


def test_other_rows_and_sizes_have_files_of_their_own(places, data, tmp_path):
    fewer, held_out = opened({"a": places["a"]}), opened({"b": places["b"]}, validation=places["a"])
    for one, size in ((data, SIZE), (data, 8), (fewer, SIZE), (held_out, SIZE)):
        np.testing.assert_array_equal(pixels.load(one, size, str(tmp_path)), expected(one, size))
    assert len(files(tmp_path, ".npy")) == 4


def test_other_pictures_in_the_same_places_have_a_file_of_their_own(tmp_path):
    for seed in (7, 8):
        one = opened({"a": dataset(tmp_path / str(seed) / "faces", noise(20, seed))})
        np.testing.assert_array_equal(pixels.load(one, SIZE, str(tmp_path)), expected(one))
    assert len(files(tmp_path, ".npy")) == 2


def test_damaged_files_are_made_again(data, tmp_path, caplog):
    pixels.load(data, SIZE, str(tmp_path))
    (file,), (key,) = files(tmp_path, ".npy"), files(tmp_path, ".json")
    body, told = file.read_bytes(), key.read_bytes()
    for wrong, its_key in ((body[:-1], told), (b"", told), (body, b"{"), (body, b"{}"), (body[:60] + b"\0" * 9, told)):
        file.write_bytes(wrong)
        key.write_bytes(its_key)
        caplog.clear()
        np.testing.assert_array_equal(pixels.load(data, SIZE, str(tmp_path)), expected(data))
        assert "written again" in caplog.text
        assert (file.read_bytes(), key.read_bytes()) == (body, told)


def test_of_several_processes_one_builds(data, tmp_path):
    queues = [multiprocessing.get_context("spawn").Queue() for _ in range(3)]
    started = [process(data, str(tmp_path), queue, 0.1) for queue in queues]
    said = [[queue.get(timeout=240)] for queue in queues]
    for one, queue in zip(said, queues, strict=True):
        while one[-1] <= data.rows.num_rows:
            one.append(queue.get(timeout=240))
    for one in started:
        one.join(240)
    assert {one[-1] for one in said} == {int(expected(data).sum())}
    assert sorted(len(one) > 1 for one in said) == [False, False, True]


def test_a_killed_builder_blocks_nobody(data, tmp_path):
    queue = multiprocessing.get_context("spawn").Queue()
    killed = process(data, str(tmp_path), queue, 30)
    queue.get(timeout=240)
    assert killed.pid is not None
    assert files(tmp_path, ".part") and not files(tmp_path, ".npy")
    os.kill(killed.pid, signal.SIGKILL)
    killed.join(240)
    np.testing.assert_array_equal(pixels.load(data, SIZE, str(tmp_path)), expected(data))
    assert not files(tmp_path, ".part")


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    uri = dataset(tmp_path / "good", noise(20, 3))
    rows = pa.Table.from_batches(Dataset(uri).scan(SCHEMA.names)).to_pylist()
    rows[9]["image"]["bytes"] = rows[9]["image"]["bytes"][:40]
    bad = Dataset.create(str(tmp_path / "bad"), Dataset(uri).spec)
    bad.commit(0, pa.Table.from_pylist(rows, SCHEMA), {})
    bad.seal()
    data = opened({"bad": str(tmp_path / "bad")})
    for folder in (None, str(tmp_path / "cache")):
        with pytest.raises(ValueError, match=rf"{tmp_path}/bad, sample {rows[9]['sample_id']}: png: .*by a view"):
            pixels.load(data, SIZE, folder)
    assert not files(tmp_path / "cache", ".npy") and not files(tmp_path / "cache", ".part")


def test_a_dataset_that_was_replaced_is_refused(tmp_path):
    here, there = tmp_path / "x" / "faces", tmp_path / "other"
    uri = dataset(here, noise(20, 4))
    data = opened({"a": uri})
    here.rename(there)
    dataset(here, noise(20, 5), splits="train", sample_id=[f"{i:032x}" for i in range(20)])
    with pytest.raises(ValueError, match="has other samples than when it was opened"):
        pixels.load(data, SIZE)
