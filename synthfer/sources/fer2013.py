"""FER2013: 35,887 grey faces of 48 x 48 pixels found by web search (Goodfellow et al. 2013, arXiv:1307.0414).

Layouts: `fer2013.csv` (emotion, pixels, Usage); `icml_face_data.csv`, whose header has spaces before its names; the
copy in class folders, whose `test` holds PublicTest and PrivateTest together; a Parquet file with the columns image,
fer_label, split, name. Known quirks: 557 groups of equal pictures lie across the splits, 26 of them with different
labels, and some pictures are black or no face.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from synthfer.expressions import ORDERS
from synthfer.sources import labels, layouts, tables
from synthfer.sources.entry import Collection, Entry, ImageRef, SplitCounts, relative, require_path

CSV_FILES = ("fer2013.csv", "icml_face_data.csv")
PARQUET_SPLITS = {"train": "train", "public_test": "val", "private_test": "test"}
LICENCE = "none stated: pictures of the web, given out for a research challenge (ICML 2013, Kaggle)"
_COLUMNS = ("name", "fer_label", "split")
_EXPECTED = f"{' or '.join(CSV_FILES)}, class folders train/ and test/, or Parquet with image, {', '.join(_COLUMNS)}"


OFFICIAL: SplitCounts = {
    "train": labels.counted(ORDERS["fer2013"], 3995, 436, 4097, 7215, 4830, 3171, 4965),
    "val": labels.counted(ORDERS["fer2013"], 467, 56, 496, 895, 653, 415, 607),
    "test": labels.counted(ORDERS["fer2013"], 491, 55, 528, 879, 594, 416, 626),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """FER2013 has no options."""


def find(path: Path | None, config: Config) -> Collection:
    """The faces of a folder in any of the layouts, or of a CSV or Parquet file by itself."""
    path = require_path(path, "fer2013", _EXPECTED)
    if csv := layouts.file_at(path, *CSV_FILES):
        return Collection(layout=csv.name, entries=_of_csv(csv, path), licence=LICENCE, official=OFFICIAL)
    if files := tables.parquet_tables(path, ("image", *_COLUMNS)):
        return Collection(layout="Parquet", entries=_of_parquet(files, path), licence=LICENCE, official=OFFICIAL)
    if (path / "train").is_dir():
        return _folders(path)
    raise layouts.unknown_layout(path, "fer2013", _EXPECTED)


def source_id(row: int) -> str:
    """The id of an image by its row in fer2013.csv (from 0), which FERPlus shares."""
    return f"fer2013:{row:07}"


def row_of(name: Any) -> int:
    """The row in fer2013.csv of an image with a FERPlus name (fer0000017.png); `ValueError` for another name."""
    match = re.fullmatch(r"fer([0-9]{7})\.png", str(name))
    if not match:
        raise ValueError(f"the name {name!r} is not of the form fer0000000.png")
    return int(match[1])


def image_of(csv: Path, root: Path, row: tables.PixelRow) -> ImageRef:
    """Where the pixels of a CSV row are."""
    return ImageRef("pixels", relative(csv, root), row.start, row.length)


def _of_csv(csv: Path, path: Path) -> Iterator[Entry]:
    root = layouts.folder_of(path)

    def read(number: int, row: tables.PixelRow) -> Entry:
        at = number - 2
        fields = {**labels.by_code(ORDERS["fer2013"], row.emotion), **labels.by_usage(row.usage)}
        return Entry(key=f"{at:07}", image=image_of(csv, root, row), source_id=source_id(at), **fields)

    return tables.read_entries(csv.name, tables.pixel_rows(csv), read)


def _of_parquet(files: Sequence[Path], path: Path) -> Iterator[Entry]:
    for file in files:
        read = partial(_of_row, relative(file, layouts.folder_of(path)))
        yield from tables.read_entries(file.name, tables.parquet_rows(file, _COLUMNS), read)


def _of_row(file: str, _: int, row: tables.ParquetRow) -> Entry:
    at = row_of(row.values["name"])
    fields = {**labels.by_code(ORDERS["fer2013"], str(row.values["fer_label"])), **parquet_split(row.values["split"])}
    ref = ImageRef("parquet", file, row.group, row.row, "image")
    return Entry(key=f"{at:07}", image=ref, source_id=source_id(at), **fields)


def parquet_split(split: Any) -> dict[str, Any]:
    """The split of a Parquet row, or a reason."""
    if str(split) in PARQUET_SPLITS:
        return {"split": PARQUET_SPLITS[str(split)]}
    return {"reason": f"split {split!r} is none of {', '.join(PARQUET_SPLITS)}"}


def _folders(path: Path) -> Collection:
    """The copy in class folders; if file names still say PublicTest, they separate the two test sets."""
    merged = not any(path.glob("test/*/PublicTest_*"))
    official = {"train": OFFICIAL["train"], "test": {k: n + OFFICIAL["val"][k] for k, n in OFFICIAL["test"].items()}}
    notes = [
        "this layout does not tell the rows of fer2013.csv: images shared with FERPlus are recognised by pixels only"
    ]
    if merged:
        notes.append("test holds PublicTest and PrivateTest together, 7,178 images: there is no validation split")
    else:
        notes.append("the folder test holds PublicTest and PrivateTest together: file names separate val from test")
    return Collection(
        layout="class folders",
        entries=_of_folders(path, notes),
        licence=LICENCE,
        official=official if merged else OFFICIAL,
        notes=notes,
    )


def _of_folders(path: Path, notes: list[str]) -> Iterator[Entry]:
    for folder in ("train", "test"):
        if not (path / folder).is_dir():
            notes.append(f"there is no folder {folder}")
            continue
        for word, file in layouts.class_folders(path, folder, notes):
            public = folder == "test" and Path(file).name.startswith("PublicTest_")
            yield Entry(
                key=file, image=ImageRef("file", file), split="val" if public else folder, **labels.by_word(word)
            )
