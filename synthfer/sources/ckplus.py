"""CK+, the Extended Cohn-Kanade set: posed expressions filmed in a laboratory (Lucey et al., CVPR Workshops 2010).

Layouts: the copy in class folders known as CK+48, the last three frames of each of the 327 labelled sequences, named
S010_004_00000017.png after subject, sequence and frame; `ckextended.csv` (emotion, pixels, Usage) with the last frame
of each and a neutral one of all 593, codes as FER2013 and 7 for contempt. Quirks: there are no official splits, and
frames of one subject look alike: the folders are split by subject; the CSV names no subject.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synthfer.expressions import ORDERS
from synthfer.sources import labels, layouts, tables
from synthfer.sources.entry import Collection, Entry, ImageRef, SplitCounts, relative, require_path

CSV_FILE = "ckextended.csv"
CODES = (*ORDERS["fer2013"], "contempt")
CLASSES = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
LICENCE = "non-commercial research by signed agreement, no redistribution (CK+ terms of use)"
SEQUENCES = {"anger": 45, "disgust": 59, "fear": 25, "happy": 69, "sad": 28, "surprise": 83}
FOLDER_COUNTS: SplitCounts = {"all": {word: 3 * n for word, n in SEQUENCES.items()}}
CSV_COUNTS: SplitCounts = {"all": {**SEQUENCES, "neutral": 593}}
_NAME = re.compile(r"(S[0-9]{3})_[0-9]{3}_[0-9]{8}\.[a-z]+")
_EXPECTED = f"class folders {', '.join(CLASSES)} (CK+48), or {CSV_FILE}"


@dataclass(frozen=True, kw_only=True)
class Config(labels.SplitShares):
    """How the subjects of the class folders are divided into splits; the CSV has its own splits."""


def find(path: Path | None, config: Config) -> Collection:
    """The faces of the folder CK+48, the folder above it, or the CSV file."""
    path = require_path(path, "ckplus", _EXPECTED)
    if csv := layouts.file_at(path, CSV_FILE):
        notes = [
            "the CSV names no subjects, and its column Usage does not split by them: the same person is in every split"
        ]
        entries = _of_csv(csv, path)
        return Collection(layout=CSV_FILE, entries=entries, licence=LICENCE, official=CSV_COUNTS, notes=notes)
    for base in (path, path / "CK+48"):
        if sum((base / word).is_dir() for word in CLASSES) > 1:
            notes = ["there are no official splits: subjects are divided by their names"]
            entries = _of_folders(base, path, config, notes)
            return Collection(layout="CK+48", entries=entries, licence=LICENCE, official=FOLDER_COUNTS, notes=notes)
    raise layouts.unknown_layout(path, "ckplus", _EXPECTED)


def _of_csv(csv: Path, path: Path) -> Iterator[Entry]:
    file = relative(csv, layouts.folder_of(path))

    def read(number: int, row: tables.PixelRow) -> Entry:
        fields = {**labels.by_code(CODES, row.emotion), **labels.by_usage(row.usage)}
        return Entry(key=f"{number - 2:07}", image=ImageRef("pixels", file, row.start, row.length), **fields)

    return tables.read_entries(csv.name, tables.pixel_rows(csv), read)


def _of_folders(base: Path, root: Path, config: Config, notes: list[str]) -> Iterator[Entry]:
    for word, file in layouts.class_folders(root, relative(base, root), notes):
        name = Path(file).name
        fields = {**labels.by_word(word)}
        if subject := _NAME.fullmatch(name):
            fields |= {"source_id": f"ckplus:{subject[1]}", "split": config.split(subject[1])}
        else:
            fields["reason"] = f"the name {name!r} names no subject (S010_004_00000017.png does)"
        yield Entry(key=f"{word}/{name}", image=ImageRef("file", file), **fields)
