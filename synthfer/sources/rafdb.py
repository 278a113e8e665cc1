"""RAF-DB, basic expressions: 15,339 faces of the web, labelled by some forty people each (Li et al., CVPR 2017).

Layouts: the authors' `basic/` with EmoLabel/list_patition_label.txt (their spelling; "train_00001.jpg 5") and
Image/aligned/train_00001_aligned.jpg (100 x 100) or Image/original/train_00001.jpg; the Kaggle copy with
DATASET/{train,test}/{1..7}/train_00001_aligned.jpg, train_labels.csv and test_labels.csv (image, label). There is no
official validation split. Labels count from 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from synthfer.expressions import ORDERS
from synthfer.schema import option
from synthfer.sources import labels, layouts, tables
from synthfer.sources.entry import (
    Collection,
    Entry,
    ImageRef,
    SourceError,
    SplitCounts,
    relative,
    require_path,
    safe_path,
)

LIST = "EmoLabel/list_patition_label.txt"
LICENCE = "non-commercial research only, no redistribution (RAF-DB terms of use)"
_EXPECTED = f"basic/{LIST} beside basic/Image, or the Kaggle copy with DATASET/train and DATASET/test"


OFFICIAL: SplitCounts = {
    "train": labels.counted(ORDERS["rafdb"], 1290, 281, 717, 4772, 1982, 705, 2524),
    "test": labels.counted(ORDERS["rafdb"], 329, 74, 160, 1185, 478, 162, 680),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which images to read."""

    image: str = option("aligned", "aligned: 100 x 100 faces; original: whole photos", choices=("aligned", "original"))


def find(path: Path | None, config: Config) -> Collection:
    """The faces of the folder `basic`, the folder above it, or a Kaggle copy."""
    path = require_path(path, "rafdb", _EXPECTED)
    notes = ["there is no official validation split"]
    for base in (path, path / "basic"):
        if (base / LIST).is_file():
            layout, entries = f"{LIST}, {config.image}", _of_list(base, path, config.image, notes)
            break
    else:
        data = next((base for base in (path / "DATASET", path) if (base / "train" / "1").is_dir()), None)
        if data is None:
            raise layouts.unknown_layout(path, "rafdb", _EXPECTED)
        if config.image != "aligned":
            raise SourceError(f"image: the Kaggle copy at {path} has aligned faces only; set image=aligned")
        layout, entries = "Kaggle copy", _of_copy(data, path, notes)
    return Collection(layout=layout, entries=entries, licence=LICENCE, official=OFFICIAL, notes=notes)


def _of_list(base: Path, root: Path, image: str, notes: list[str]) -> Iterator[Entry]:
    folder, listed = base / "Image" / image, set[str]()

    def read(_: int, words: list[str]) -> Entry:
        if len(words) != 2:
            raise ValueError(f"has {len(words)} words, not a name and a label")
        name = safe_path(words[0])
        stem, dot, suffix = name.rpartition(".")
        file = f"{stem}_aligned{dot}{suffix}" if image == "aligned" else name
        listed.add(file)
        return _entry(stem, f"{relative(folder, root)}/{file}", words[1])

    yield from tables.read_entries(LIST, tables.split_lines(base / LIST), read)
    notes += layouts.unlisted(folder, listed, LIST)


def _of_copy(data: Path, root: Path, notes: list[str]) -> Iterator[Entry]:
    parts = []
    for split in ("train", "test"):
        name = f"{split}_labels.csv"
        csv = next((base / name for base in (root, data) if (base / name).is_file()), None)
        if csv:
            parts.append(_of_labels(tables.csv_table(csv, ("image", "label")), name, data / split, root, notes))
        elif (data / split).is_dir():
            notes.append(f"there is no {name}: the class folders alone give the labels of {split}")
            parts.append(_of_folders(root, relative(data / split, root), split, notes))
        else:
            notes.append(f"there is no {split}")
    return chain.from_iterable(parts)


def _of_labels(
    lines: tables.Lines[dict[str, str]], name: str, folder: Path, root: Path, notes: list[str]
) -> Iterator[Entry]:
    listed: set[str] = set()
    read = partial(_of_label, relative(folder, root), folder.name, listed)
    yield from tables.read_entries(name, lines, read)
    notes += layouts.unlisted(folder, listed, name)


def _of_folders(root: Path, folder: str, split: str, notes: list[str]) -> Iterator[Entry]:
    for code, file in layouts.class_folders(root, folder, notes):
        try:
            yield _entry(_stem(file), file, code, split)
        except ValueError as error:
            yield Entry(key=file, split=split, reason=str(error))


def _of_label(folder: str, split: str, listed: set[str], _: int, cells: dict[str, str]) -> Entry:
    code = cells["label"].strip()
    file = safe_path(f"{code}/{safe_path(cells['image'].strip())}")
    listed.add(file)
    return _entry(_stem(file), f"{folder}/{file}", code, split)


def _stem(file: str) -> str:
    return Path(file).stem.removesuffix("_aligned")


def _entry(stem: str, file: str, code: str, split: str | None = None) -> Entry:
    """The entry of an image; `stem`, such as train_00001, is the same in both layouts and starts with the split."""
    named_split = stem.partition("_")[0]
    if named_split not in OFFICIAL or split not in (None, named_split):
        raise ValueError(f"the name {stem!r} begins with neither train_ nor test_, or is in the other's list")
    return Entry(
        key=stem,
        image=ImageRef("file", file),
        split=named_split,
        source_id=f"rafdb:{stem}",
        **labels.by_code(ORDERS["rafdb"], code, first=1),
    )
