"""FERPlus: FER2013 labelled again by ten people each (Barsoum et al. 2016, arXiv:1608.01041).

Layouts: `fer2013new.csv` (votes) beside `fer2013.csv` (pictures), joined by row; folders FER2013Train, FER2013Valid,
FER2013Test with PNG files and `label.csv` (name, in some copies a box, ten votes; no header); a Parquet file with the
columns image, ferplus_votes, split, name. Quirks: 173 rows name no image; all their votes say "no face", and the
folders do not have them. Faces whose votes choose contempt, unknown or no face have no label here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from synthfer.expressions import EXPRESSIONS, index_of, other
from synthfer.schema import option
from synthfer.sources import fer2013, labels, layouts, tables
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

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF")
RULES = ("majority", "argmax")
FOLDERS = {"FER2013Train": "train", "FER2013Valid": "val", "FER2013Test": "test"}
LICENCE = f"votes: MIT (Microsoft); pictures, those of FER2013: {fer2013.LICENCE}"
_COLUMNS = ("name", "ferplus_votes", "split")
_EXPECTED = (
    "fer2013new.csv beside fer2013.csv, folders FER2013Train, FER2013Valid and FER2013Test with label.csv, "
    f"or Parquet with image, {', '.join(_COLUMNS)}"
)


MAJORITY: SplitCounts = {
    "train": labels.counted(VOTES[:7], 8740, 7287, 3149, 3014, 2100, 119, 532),
    "val": labels.counted(VOTES[:7], 1182, 865, 415, 351, 287, 24, 62),
    "test": labels.counted(VOTES[:7], 1090, 893, 396, 384, 273, 18, 83),
}
ROWS: SplitCounts = {"train": {"all": 28709}, "val": {"all": 3589}, "test": {"all": 3589}}
FOLDER_ROWS: SplitCounts = {"train": {"all": 28558}, "val": {"all": 3579}, "test": {"all": 3573}}


@dataclass(frozen=True, kw_only=True)
class Config:
    """How ten votes are made into one label."""

    rule: str = option("majority", "majority: the authors' rule; argmax: most votes, first of equals", choices=RULES)


def find(path: Path | None, config: Config) -> Collection:
    """The faces of a folder in any of the layouts, or of a Parquet file by itself."""
    path = require_path(path, "ferplus", _EXPECTED)
    if votes := layouts.file_at(path, "fer2013new.csv"):
        layout, rows, entries = "fer2013new.csv", ROWS, _joined(votes, votes.parent, config.rule)
    elif files := tables.parquet_tables(path, ("image", *_COLUMNS)):
        layout, rows, entries = "Parquet", ROWS, _of_parquet(files, path, config.rule)
    elif any((base / folder / "label.csv").is_file() for base in (path, path / "data") for folder in FOLDERS):
        return _folders(path, config.rule)
    else:
        raise layouts.unknown_layout(path, "ferplus", _EXPECTED)
    official = MAJORITY if config.rule == "majority" else rows
    return Collection(layout=layout, entries=entries, licence=LICENCE, official=official)


def choice(votes: Sequence[int], rule: str) -> str:
    """The word of `VOTES` that wins ten votes.

    majority is the rule of the authors' own reader: single votes are dropped, and the word with most votes wins if it
    has more than half of the rest; else the face is unknown. argmax: most votes win, the first of equals.
    """
    if rule == "majority":
        votes = [n if n > 1 else 0 for n in votes]
        if max(votes) <= sum(votes) / 2:
            return "unknown"
    return VOTES[votes.index(max(votes))]


def distribution(votes: Sequence[int]) -> tuple[float, ...] | None:
    """The votes for the seven expressions in the order of `EXPRESSIONS`, summing to 1; None where there are none."""
    counts = [0] * len(EXPRESSIONS)
    for word, n in zip(VOTES[:7], votes[:7], strict=True):
        counts[index_of(word)] = n
    total = sum(counts)
    return tuple(n / total for n in counts) if total else None


def _voted(votes: Sequence[int], rule: str) -> dict[str, Any]:
    """The fields of an entry that follow from its votes; `ValueError` if they are not valid votes."""
    if len(votes) != len(VOTES) or not all(isinstance(n, int) and n >= 0 for n in votes) or not sum(votes):
        raise ValueError(f"{list(votes)} are no votes for {', '.join(VOTES)}")
    scores = {f"votes_{other(word) or word}".replace(" ", "_"): float(n) for word, n in zip(VOTES, votes, strict=True)}
    return {**labels.by_word(choice(votes, rule)), "label_probs": distribution(votes), "scores": scores}


def _joined(csv: Path, root: Path, rule: str) -> Iterator[Entry]:
    """Votes and images of the same row; a row that only one of the two files has fails."""
    pictures = layouts.file_at(root, *fer2013.CSV_FILES)
    if pictures is None:
        raise SourceError(f"{root} has {csv.name}, but no fer2013.csv with the images: put that file there, too")

    def read(number: int, pair: tuple[tables.PixelRow, dict[str, str]]) -> Entry:
        (row, cells), at = pair, number - 2
        image, usage = cells["Image name"].strip(), cells["Usage"].strip()
        fields = {**_voted([tables.parse_int(cells[word], f"votes for {word}") for word in VOTES], rule)}
        fields |= {**labels.by_usage(usage), "source_id": fer2013.source_id(at)}
        if not image:
            fields.pop("reason", None)
            return tables.failed_entry(csv.name, number, "names no image", **fields)
        if fer2013.row_of(image) != at or row.usage != usage:
            raise ValueError(f"is {image} of {usage}, but {pictures.name} has row {at} of {row.usage} there")
        return Entry(key=f"{at:07}", image=fer2013.image_of(pictures, root, row), **fields)

    pairs = _pairs(tables.csv_table(csv, ("Usage", "Image name", *VOTES)), tables.pixel_rows(pictures), pictures.name)
    return tables.read_entries(csv.name, pairs, read)


def _pairs(
    votes: tables.Lines[dict[str, str]],
    rows: tables.Lines[tables.PixelRow],
    pictures: str,
) -> Iterator[tuple[int, tuple[tables.PixelRow, dict[str, str]] | ValueError]]:
    by_number = dict(votes)
    for number, row in rows:
        cells = by_number.pop(number, ValueError(f"is missing, but {pictures} has it"))
        if isinstance(row, ValueError):
            yield number, ValueError(f"its line in {pictures} {row}")
        else:
            yield number, cells if isinstance(cells, ValueError) else (row, cells)
    for number in sorted(by_number):
        yield number, ValueError(f"has no row in {pictures}")


def _of_parquet(files: Sequence[Path], path: Path, rule: str) -> Iterator[Entry]:
    for file in files:
        read = partial(_of_row, relative(file, layouts.folder_of(path)), rule)
        yield from tables.read_entries(file.name, tables.parquet_rows(file, _COLUMNS), read)


def _of_row(file: str, rule: str, _: int, row: tables.ParquetRow) -> Entry:
    at = fer2013.row_of(row.values["name"])
    votes = row.values["ferplus_votes"]
    if not isinstance(votes, list):
        raise ValueError(f"ferplus_votes {votes!r} is no list of votes")
    fields = {**_voted(votes, rule), **fer2013.parquet_split(row.values["split"])}
    ref = ImageRef("parquet", file, row.group, row.row, "image")
    return Entry(key=f"{at:07}", image=ref, source_id=fer2013.source_id(at), **fields)


def _folders(path: Path, rule: str) -> Collection:
    base = next(base for base in (path, path / "data") if any((base / f / "label.csv").is_file() for f in FOLDERS))
    notes = ["this layout has 35,710 of the 35,887 rows: those without an image name are left out of it"]
    entries = _of_folders(base, path, rule, notes)
    official = MAJORITY if rule == "majority" else FOLDER_ROWS
    return Collection(layout="folders with label.csv", entries=entries, licence=LICENCE, official=official, notes=notes)


def _of_folders(base: Path, root: Path, rule: str, notes: list[str]) -> Iterator[Entry]:
    for folder, split in FOLDERS.items():
        table = base / folder / "label.csv"
        if not table.is_file():
            notes.append(f"there is no {relative(table, root)}")
            continue
        listed: set[str] = set()
        read = partial(_of_label, relative(table.parent, root), split, rule, listed)
        yield from tables.read_entries(relative(table, root), tables.csv_lines(table), read)
        notes += layouts.unlisted(table.parent, listed, "label.csv")


def _of_label(folder: str, split: str, rule: str, listed: set[str], _: int, cells: list[str]) -> Entry:
    if len(cells) not in (1 + len(VOTES), 2 + len(VOTES)):
        raise ValueError(f"has {len(cells)} cells, not a name, perhaps a box, and {len(VOTES)} votes")
    name = safe_path(cells[0].strip())
    listed.add(name)
    at = fer2013.row_of(name)
    votes = [tables.parse_int(n, f"votes for {word}") for n, word in zip(cells[-len(VOTES) :], VOTES, strict=True)]
    return Entry(
        key=f"{at:07}",
        image=ImageRef("file", f"{folder}/{name}"),
        split=split,
        source_id=fer2013.source_id(at),
        **_voted(votes, rule),
    )
