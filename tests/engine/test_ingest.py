"""The ingest job on real Ray workers: pictures and labels as in the collection, trouble reported by row, resumed."""

import io
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from synthfer.cli import Invocation, main
from synthfer.config import load
from synthfer.engine.dataset_job import TooManyFailures
from synthfer.engine.ingest import (
    COMMAND,
    IngestConfig,
    SampleDefaults,
    SampleReader,
    ingest,
    open_dataset,
    preview,
)
from synthfer.expressions import EXPRESSIONS
from synthfer.images import decode
from synthfer.report.collection import print_counts
from synthfer.sample import SCHEMA, pixels_hash
from synthfer.sources.avatars import draw, sample_attributes
from synthfer.sources.entry import SourceError
from synthfer.sources.index import Index, StoredIndex, differences
from synthfer.store import Dataset, SpecMismatch
from tests.ray_sessions import start_job

pytestmark = pytest.mark.usefixtures("ray_session")


def run(out, *words) -> tuple[dict, str]:
    """The job's summary, and what it printed."""
    printed = io.StringIO()
    invocation = Invocation(Console(file=printed, width=200), Console(file=io.StringIO()))
    return dict(ingest(load(IngestConfig, [f"out={out}", *words]), invocation).summary), printed.getvalue()


def rows(out) -> list[dict]:
    return [row for batch in Dataset.open(str(out)).scan(SCHEMA.names) for row in batch.to_pylist()]


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two drawn faces of each expression in class folders, as PNG, and one BMP."""
    for label, name in enumerate(EXPRESSIONS):
        folder = tmp_path / "tree" / name
        folder.mkdir(parents=True)
        for k in range(2):
            Image.fromarray(draw(sample_attributes(10 * label + k, name))).save(folder / f"{k}.png")
    Image.fromarray(draw(sample_attributes(99, "sad"))).save(tmp_path / "tree" / "sad" / "2.bmp")
    return tmp_path / "tree"


def test_files_are_kept_byte_for_byte_and_labelled_by_name(tree, tmp_path):
    summary, _ = run(tmp_path / "d", "source=folder", f"path={tree}", "unit_size=4")
    assert summary["rows"] == 15
    for row in rows(tmp_path / "d"):
        file = tree / row["image"]["path"]
        assert EXPRESSIONS[row["label"]] == file.parent.name
        assert row["source"] == "folder"
        assert row["source_id"] == row["sample_id"]
        pixels = np.asarray(Image.open(file).convert("RGB"))
        assert row["pixels_hash"] == pixels_hash(pixels) == pixels_hash(decode(row["image"]["bytes"]))
        assert (row["image"]["bytes"] == file.read_bytes()) == (file.suffix == ".png")
    assert Dataset.open(str(tmp_path / "d")).verify(pixels=True) == []


def test_trouble_is_a_row_with_its_reason(tree, tmp_path):
    (tree / "fear" / "0.png").write_bytes((tree / "fear" / "0.png").read_bytes()[:200])
    (tree / "happy" / "0.png").write_bytes(b"no picture")
    (tree / "contempt").mkdir()
    Image.fromarray(draw(sample_attributes(3))).save(tree / "contempt" / "0.png")
    summary, _ = run(tmp_path / "d", f"path={tree}")
    assert summary["counts"]["fear"] == {"accepted": 1, "failed": 1}
    assert summary["counts"]["none"] == {"rejected": 1}
    by_path = {row["image"]["path"] if row["image"] else row["reason"]: row for row in rows(tmp_path / "d")}
    contempt = by_path["contempt/0.png"]
    assert (contempt["label"], contempt["attributes"]["emotion"]) == (None, "contempt")
    assert "contempt" in contempt["reason"]
    assert sum(row["decision"] == "failed" for row in by_path.values()) == 2


def test_a_collection_that_cannot_be_read_stops_the_job(tree, tmp_path):
    for k in range(100):
        (tree / "sad" / f"x{k}.png").write_bytes(b"")
    with pytest.raises(TooManyFailures, match=r"max_failed_share=0\.5"):
        run(tmp_path / "d", f"path={tree}")


@pytest.mark.parametrize("words", [[], ["unit_size=4"]])
def test_a_collection_of_which_no_picture_can_be_read_says_so_before_there_is_a_dataset(tree, tmp_path, words):
    for file in tree.rglob("*.*"):
        file.write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"nothing in it can be read as source folder\. The first: image: cannot be"):
        run(tmp_path / "d", f"path={tree}", *words)
    assert not (tmp_path / "d" / "_dataset.json").exists()


def linked(tmp_path, name):
    """A link of that name to a file named by its hash, as in the cache of Hugging Face."""
    blob, link = tmp_path / "blobs" / "abc123", tmp_path / "snapshots" / "data" / name
    for file in (blob, link):
        file.parent.mkdir(parents=True)
    link.symlink_to("../../blobs/abc123")
    return blob, link


def test_a_link_to_a_file_keeps_its_name(tmp_path, monkeypatch):
    blob, link = linked(tmp_path, "test-00000-of-00001.parquet")
    body = io.BytesIO()
    Image.fromarray(draw(sample_attributes(1, "sad"))).save(body, "PNG")
    pq.write_table(pa.table({"image": [body.getvalue()], "label": ["sad"]}), blob)
    monkeypatch.chdir(tmp_path)
    for path in (link, "snapshots/data/" + link.name):
        config = load(IngestConfig, ["out=x", "source=parquet", f"path={path}"])
        (entry,) = config.find().entries
        assert (entry.split, entry.key) == ("test", f"{link.name}#0")
        reader = SampleReader(
            config.root,
            SampleDefaults(
                source="parquet", producer="", source_type="", face=config.face, image=config.image, real=True
            ),
        )
        assert reader.read(entry).image.data == body.getvalue()


def test_a_linked_list_is_known_by_its_name_and_a_linked_folder_is_followed(tmp_path):
    blob, link = linked(tmp_path, "fer2013.csv")
    blob.write_text("emotion,pixels,Usage\n0,1 2 3 4,Training\n")
    (tmp_path / "folder").symlink_to(link.parent)
    for path in (link, tmp_path / "folder"):
        config = load(IngestConfig, ["out=x", "source=fer2013", f"path={path}"])
        assert len(list(config.find().entries)) == 1
        assert config.root == (link if path == link else link.parent)


def test_a_collection_of_which_no_line_can_be_read_says_so_at_once(tmp_path):
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n" + "x\n" * 1000)
    config = load(IngestConfig, [f"out={tmp_path / 'd'}", f"path={tmp_path}", "source=fer2013"])
    with pytest.raises(SourceError, match=r"nothing in it can be read as source fer2013.*line 2: has 1 cells"):
        preview(config, Invocation(Console(file=io.StringIO()), Console(file=io.StringIO()), json=True))


@pytest.mark.parametrize("path", ["loop", "x" * 5000, "pipe", "/dev/zero"])
def test_a_path_that_is_no_collection_is_named(tmp_path, path):
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    config = IngestConfig(out=str(tmp_path / "d"), path=str(tmp_path / path))
    with pytest.raises(SourceError, match=r"^path: "):
        config.find()


def test_an_empty_or_absent_collection_is_named(tmp_path):
    with pytest.raises(SourceError, match="absent does not exist"):
        run(tmp_path / "d", "source=folder", f"path={tmp_path / 'absent'}")
    with pytest.raises(SourceError, match="needs path"):
        run(tmp_path / "d", "source=folder")


def test_a_dry_run_counts_and_writes_nothing(tree, tmp_path):
    printed = io.StringIO()
    config = load(IngestConfig, [f"out={tmp_path / 'd'}", f"path={tree}"])
    outcome = preview(config, Invocation(Console(file=printed), Console(file=io.StringIO()), json=True))
    assert outcome.summary["rows"] == 15
    assert outcome.summary["found"]["train"]["sad"] == 3
    assert not (tmp_path / "d").exists()


def test_a_changed_collection_is_not_mixed_in(tree, tmp_path):
    run(tmp_path / "d", f"path={tree}")
    (tree / "sad" / "2.bmp").unlink()
    with pytest.raises(SpecMismatch, match="index_sha256"):
        run(tmp_path / "d", f"path={tree}")


def test_a_moved_collection_is_the_same(tree, tmp_path):
    first, _ = run(tmp_path / "d", f"path={tree}", "unit_size=4")
    tree.rename(tmp_path / "moved")
    again, _ = run(tmp_path / "e", f"path={tmp_path / 'moved'}", "unit_size=5")
    assert again["manifest_hash"] == first["manifest_hash"]
    assert Dataset.open(str(tmp_path / "d")).spec.plan == Dataset.open(str(tmp_path / "e")).spec.plan


def test_faces_are_cut_to_a_size(tree, tmp_path):
    run(tmp_path / "d", f"path={tree}", "face.size=32")
    assert {(row["width"], row["height"]) for row in rows(tmp_path / "d")} == {(32, 32)}


def test_drawn_faces_need_no_download_and_say_what_they_are(tmp_path):
    run(tmp_path / "d", "source=avatars", "source.total=14", "source.size=32")
    samples = rows(tmp_path / "d")
    assert [row["label"] for row in samples] == [*range(7), *range(7)]
    assert all(row["attributes"]["gender"] and row["width"] == 32 for row in samples)
    card = (tmp_path / "d" / "README.md").read_text()
    assert "All images are synthetic" in card
    assert "py-avataaars" in card


@pytest.mark.fault
def test_a_killed_job_goes_on_where_it_was(tmp_path):
    words = ("source=avatars", "source.total=600", "unit_size=10", "engine.max_workers=1")
    first = start_job("ingest.py", f"out={tmp_path / 'd'}", *words)
    deadline = time.monotonic() + 240
    while len(list((tmp_path / "d").glob("data/*.parquet"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    there = len(list((tmp_path / "d").glob("data/*.parquet")))
    assert 5 <= there < 60
    summary, _ = run(tmp_path / "d", *words)
    calm, _ = run(tmp_path / "e", *words)
    assert summary["manifest_hash"] == calm["manifest_hash"]
    assert summary["made_now"] < 600


def test_a_class_that_is_missing_altogether_is_shown_beside_its_published_number():
    printed = io.StringIO()
    console = Console(file=printed, width=200)
    print_counts({"train": {"anger": 2}}, {"train": {"anger": 2, "fear": 40, "sad": 0}}, ["a note"], console)
    title, here, published, note = printed.getvalue().splitlines()
    assert title.split() == ["split", "anger", "fear", "all"]
    assert here.split() == ["train", "2", "0", "2"]
    assert published.split() == ["train,", "published", "2", "40"]
    assert note == "a note"


def test_differences_from_the_published_counts_are_reported():
    index = Index.from_entries([])
    index.counts = {"train": {"anger": 2, "fear": 3}, "val": {"fear": 1}}
    assert differences(None, index.counts) == []
    assert differences({"train": {"anger": 2, "fear": 4}}, index.counts) == [
        "train fear: 3 here, 4 published (-1)",
        "val all: 1 here, 0 published (+1)",
    ]
    assert differences({"train": {"all": 5}, "test": {"all": 7}}, {"train": {"fear": 5}}) == [
        "test all: 0 here, 7 published (-7)"
    ]


def imported(folder: Path, out: Path, names: dict[str, str]) -> Dataset:
    """The pictures of a folder as a dataset, in this process; `names` gives their class folders others."""
    for name, other in names.items():
        (folder / name).rename(folder / f"{name}-for-a-while")
        (folder / f"{name}-for-a-while").rename(folder / f"_{other}")
    for name in names.values():
        (folder / f"_{name}").rename(folder / name)
    config = load(IngestConfig, [f"out={out}", f"path={folder}", "unit_size=4"])
    collection = config.find()
    index = Index.from_entries(collection.entries)
    dataset = open_dataset(config, collection, index)
    stored = StoredIndex(dataset.store, len(index), 4)
    defaults = SampleDefaults(
        source="folder", producer="p", source_type="digitalCapture", face=config.face, image=config.image, real=True
    )
    reader = SampleReader(config.root, defaults)
    dataset.seal([dataset.commit(unit, reader.table(stored.unit(unit)), {}) for unit in range(dataset.spec.units)])
    return dataset


def test_the_same_pictures_with_swapped_labels_are_another_dataset(tree, tmp_path):
    keys = ("sample_id", "label", "pixels_hash")
    datasets = [imported(tree, tmp_path / "a", {}), imported(tree, tmp_path / "b", {"fear": "sad", "sad": "fear"})]
    first, second = ([tuple(row[key] for key in keys) for row in rows(dataset.uri)] for dataset in datasets)
    assert sorted(pixels for *_, pixels in first) == sorted(pixels for *_, pixels in second)
    assert datasets[0].manifest.manifest_hash != datasets[1].manifest.manifest_hash


def test_two_imports_of_unreadable_pictures_are_the_same_to_the_byte(tree, tmp_path):
    (tree / "fear" / "0.png").write_bytes(b"no picture")
    (tree / "happy" / "0.png").write_bytes((tree / "happy" / "0.png").read_bytes()[:300])
    (tree / "sad" / "2.bmp").write_bytes(b"BM" + bytes(60))
    one, other = (imported(tree, tmp_path / name, {}) for name in "ab")
    assert sum(row["decision"] == "failed" for row in rows(one.uri)) >= 2
    assert one.manifest == other.manifest
    assert all("0x" not in (row["reason"] or "") for row in rows(one.uri))


@pytest.mark.parametrize("change", ["labels", "order"])
def test_an_index_that_was_edited_between_two_runs_is_refused(tree, tmp_path, change):
    dataset = imported(tree, tmp_path / "d", {})
    path = tmp_path / "d" / "_index.parquet"
    lines = pq.read_table(path)["entry"].to_pylist()
    edited = [line.replace('"label":2', '"label":5') for line in lines] if change == "labels" else lines[::-1]
    pq.write_table(pa.table({"entry": edited}), path, row_group_size=4)
    (tmp_path / "d" / "_SUCCESS").unlink()
    (tmp_path / "d" / dataset.spec.key(1)).unlink()
    assert main({"": COMMAND}, [f"out={dataset.uri}", f"path={tree}", "unit_size=4"]) == 2
    assert Dataset(dataset.uri).missing().tolist() == [1]
