"""FFHQ as its repository lays it out; the records of the list have the published keys."""

import json
import os

import numpy as np
import pytest

from synthfer.images import decode
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import SourceError
from synthfer.sources.ffhq import Config, find
from synthfer.sources.index import Index
from tests.sources.images import save


def record(index, file=None, category="training", licence="Attribution License", **changes):
    """One record of ffhq-dataset-v2.json, shortened to few landmarks."""
    size = file.stat().st_size if file else 1
    name = f"{index // 1000 * 1000:05d}/{index:05d}.png"
    return {
        "category": category,
        "metadata": {
            "photo_url": "https://www.flickr.com/photos/x/1/",
            "photo_title": "DSCF0899.JPG",
            "author": f"author {index % 2}",
            "country": "",
            "license": licence,
            "license_url": "https://creativecommons.org/licenses/by/2.0/",
            "date_uploaded": "2007-08-16",
            "date_crawled": "2018-10-10",
        },
        "image": {
            "file_path": f"images1024x1024/{name}",
            "file_size": size,
            "file_md5": "ddeaeea6ce59569643715759d537fd1b",
            "pixel_size": [1024, 1024],
            "face_landmarks": [[131.62, 453.8]] * 3,
        },
        "thumbnail": {"file_path": f"thumbnails128x128/{name}", "file_size": size, "pixel_size": [128, 128]},
        "in_the_wild": {"file_path": f"in-the-wild-images/{name}", "face_rect": [667, 410, 1438, 1181]},
        **changes,
    }


def write_list(folder, records):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ffhq-dataset-v2.json").write_text(json.dumps({str(i): r for i, r in records.items()}))


@pytest.mark.parametrize(
    "form", ["images1024x1024/{group}/{name}", "thumbnails128x128/{group}/{name}", "{group}/{name}", "{name}"]
)
def test_pictures_are_found_by_number_in_every_layout(tmp_path, form):
    numbers = (69999, 0, 12345)
    pixels = {i: save(tmp_path / form.format(group=f"{i // 1000 * 1000:05d}", name=f"{i:05d}.png"), i) for i in numbers}
    found = find(tmp_path, Config())
    entries, reader = list(found.entries), CollectionReader(tmp_path)
    assert [e.source_id for e in entries] == ["ffhq:00000", "ffhq:12345", "ffhq:69999"]
    assert {(e.split, e.label, e.reason) for e in entries} == {("train", None, None)}
    for entry in entries:
        assert np.array_equal(decode(reader.read(entry.image)), pixels[int(entry.key)])
    assert (found.kind, found.official) == ("real", {"train": {"all": 70_000}})


def test_the_list_gives_splits_and_licences(tmp_path):
    files = {i: tmp_path / "images1024x1024" / f"{i // 1000 * 1000:05d}" / f"{i:05d}.png" for i in (59999, 60000)}
    for i, file in files.items():
        save(file, i)
    write_list(tmp_path, {
        59999: record(59999, files[59999]),
        60000: record(60000, files[60000], "validation", "Public Domain Mark"),
    })  # fmt: skip
    found = find(tmp_path, Config())
    assert [(e.key, e.split, e.reason) for e in found.entries] == [("59999", "train", None), ("60000", "val", None)]
    assert found.official == {"train": {"all": 60_000}, "val": {"all": 10_000}}
    assert "Attribution License 1, Public Domain Mark 1; 2 authors" in found.notes[0]


def test_a_size_that_differs_from_the_list_is_rejected(tmp_path):
    good, bad = (tmp_path / "images1024x1024" / "00000" / f"0000{i}.png" for i in (0, 1))
    save(good)
    save(bad)
    write_list(tmp_path, {0: record(0, good), 1: record(1, bad)})
    bad.write_bytes(bad.read_bytes()[:-7])
    entries = list(find(tmp_path, Config()).entries)
    assert entries[0].reason is None
    assert entries[1].image is not None
    assert f"has {bad.stat().st_size} bytes and not the {good.stat().st_size}" in entries[1].reason


def test_resized_copies_are_not_held_against_the_listed_sizes(tmp_path):
    save(tmp_path / "00000.png")
    write_list(tmp_path, {0: record(0)})
    assert [e.reason for e in find(tmp_path, Config()).entries] == [None]


def test_listed_pictures_that_are_gone_fail_and_unlisted_ones_are_noted(tmp_path):
    save(tmp_path / "thumbnails128x128" / "00000" / "00002.png")
    (tmp_path / "thumbnails128x128" / "LICENSE.txt").write_text("x")
    write_list(tmp_path, {1001: record(1001)})
    found = find(tmp_path, Config())
    (entry,) = found.entries
    assert entry.image.path == "thumbnails128x128/01000/01001.png"
    with pytest.raises(FileNotFoundError):
        CollectionReader(tmp_path).read(entry.image)
    notes = " | ".join(found.notes)
    assert "images that are not in ffhq-dataset-v2.json, left out: 1 (thumbnails128x128/00000/00002.png)" in notes
    assert "LICENSE.txt" in notes


def test_records_that_are_not_as_published_fail_alone(tmp_path):
    file = tmp_path / "images1024x1024" / "00000" / "00000.png"
    save(file)
    bad = {1: record(1, category="testing"), "x": record(2), 3: None, 4: {}, "05": record(5), "9" * 5000: record(6)}
    write_list(tmp_path, {0: record(0, file), **bad})
    entries = list(find(tmp_path, Config()).entries)
    assert [(e.key, e.image is None) for e in entries] == [
        ("00000", False),
        *((f"ffhq-dataset-v2.json:{key}", True) for key in ("1", "x", "3", "4", "05", "9" * 200 + "...")),
    ]
    assert "'testing'" in entries[1].reason


def test_the_list_is_found_beside_the_folder_of_one_size(tmp_path):
    file = tmp_path / "thumbnails128x128" / "00000" / "00000.png"
    save(file)
    write_list(tmp_path, {0: record(0, file, "validation")})
    (entry,) = find(file.parents[1], Config()).entries
    assert (entry.split, entry.image.path) == ("val", "00000/00000.png")


def test_the_size_can_be_chosen(tmp_path):
    large = save(tmp_path / "images1024x1024" / "00000" / "00000.png", 1)
    small = save(tmp_path / "thumbnails128x128" / "00000" / "00000.png", 2)
    for config, pixels in ((Config(), large), (Config(pictures="thumbnails128x128"), small)):
        (entry,) = find(tmp_path, config).entries
        assert np.array_equal(decode(CollectionReader(tmp_path).read(entry.image)), pixels)
    with pytest.raises(SourceError, match="does not exist"):
        find(tmp_path / "thumbnails128x128", Config(pictures="images1024x1024"))


@pytest.mark.parametrize("text", ['{"0": {"category": "trai', "[]", "[" * 100_000])
def test_a_list_that_is_cut_off_or_another_is_refused(tmp_path, text):
    save(tmp_path / "00000.png")
    (tmp_path / "ffhq-dataset-v2.json").write_text(text)
    with pytest.raises(SourceError, match="or move it away"):
        find(tmp_path, Config())


def test_a_folder_of_other_pictures_is_refused(tmp_path):
    save(tmp_path / "face.png")
    with pytest.raises(SourceError, match="source ffhq, which expects"):
        find(tmp_path, Config())


def test_a_list_with_odd_values_fails_by_row(tmp_path):
    save(tmp_path / "thumbnails128x128" / "00000" / "00000.png")
    good = record(0, tmp_path / "thumbnails128x128" / "00000" / "00000.png")
    good["metadata"] |= {"author": ["x", "y"], "license": "\ud800"}
    write_list(tmp_path, {0: good, "\ud800": good, 1: None, 2: record(2, category=["training"]), -1: record(-1)})
    found = find(tmp_path, Config())
    index = Index.from_entries(found.entries)  # everything can be written
    entries = list(index.entries(range(len(index))))
    assert [e.image is None for e in entries] == [False, True, True, True, False]
    assert r"\ud800" in entries[1].reason
    assert "\n".join(found.notes).encode()
    with pytest.raises(FileNotFoundError):
        CollectionReader(tmp_path).read(entries[4].image)


def test_a_folder_whose_name_is_no_text_is_noted(tmp_path):
    save(tmp_path / "thumbnails128x128" / "00000" / "00000.png")
    try:
        save(tmp_path / "thumbnails128x128" / os.fsdecode(b"\xff") / "00001.png")
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    found = find(tmp_path, Config())
    assert [e.key for e in found.entries] == ["00000"]
    assert r"left out: 1 ('thumbnails128x128/\udcff/00001.png')" in found.notes[0]
