"""ExpW, Expression in the Wild: 91,793 faces in photos of a web search (Zhang et al. 2018, arXiv:1609.06426).

Layout: `label.lst` with one face a line, image_name face_id top left right bottom confidence label (in this order),
labels as FER2013, and the photos in image/origin/, image/ or origin/. The list may lie in a folder label/ beside
image/, and both in data/. Quirks: a photo may have several faces, and there are no official splits: photos are
divided here, so that no photo is in two splits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from synthfer.expressions import ORDERS
from synthfer.sources import labels, layouts, tables
from synthfer.sources.entry import Collection, Entry, ImageRef, SplitCounts, relative, require_path, safe_path

LICENCE = "non-commercial research only (ExpW terms of use)"
FIELDS = ("image_name", "face_id", "top", "left", "right", "bottom", "confidence", "label")
OFFICIAL: SplitCounts = {
    "all": labels.counted(ORDERS["fer2013"], 3671, 3995, 1088, 30537, 10559, 7060, 34883),
}
_LISTS = ("label.lst", "label/label.lst", "data/label/label.lst", "data/label.lst")
_PHOTOS = ("image/origin", "origin", "image")
_EXPECTED = "label.lst (or label/label.lst) and the photos in image/origin/, image/ or origin/"


@dataclass(frozen=True, kw_only=True)
class Config(labels.SplitShares):
    """How the photos are divided into splits."""


def find(path: Path | None, config: Config) -> Collection:
    """The faces of a folder with list and photos."""
    path = require_path(path, "expw", _EXPECTED)
    table = next((path / at for at in _LISTS if (path / at).is_file()), None)
    if table is None:
        raise layouts.unknown_layout(path, "expw", _EXPECTED)
    bases = (table.parent, table.parent.parent) if table.parent != path else (path,)
    photos = next((base / at for at in _PHOTOS for base in bases if (base / at).is_dir()), None)
    if photos is None:
        raise layouts.unknown_layout(path, "expw", _EXPECTED)
    notes = ["there are no official splits: photos are divided by their names"]
    return Collection(
        layout=f"label.lst with {relative(photos, path)}",
        entries=_entries(table, photos, path, config, notes),
        licence=LICENCE,
        official=OFFICIAL,
        notes=notes,
    )


def _entries(table: Path, photos: Path, root: Path, config: Config, notes: list[str]) -> Iterator[Entry]:
    listed: set[str] = set()
    read = partial(_of_line, relative(photos, root), config, listed)
    yield from tables.read_entries(table.name, tables.split_lines(table), read)
    notes += layouts.unlisted(photos, listed, table.name)


def _of_line(folder: str, config: Config, listed: set[str], _: int, words: list[str]) -> Entry:
    if len(words) != len(FIELDS):
        raise ValueError(f"has {len(words)} words, not {len(FIELDS)}: {' '.join(FIELDS)}")
    name, face, *box, confidence, label = words
    name = safe_path(name)
    listed.add(name)
    top, left, right, bottom = (float(tables.parse_int(n, what)) for n, what in zip(box, FIELDS[2:6], strict=True))
    if left >= right or top >= bottom:
        raise ValueError(f"the box of {name} from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) is empty")
    return Entry(
        key=f"{name}#{tables.parse_int(face, 'face_id')}",
        image=ImageRef("file", f"{folder}/{name}"),
        split=config.split(name),
        source_id=f"expw:{name}",
        scores={"box_confidence": tables.parse_float(confidence, "confidence")},
        box=(left, top, right, bottom),
        **labels.by_code(ORDERS["fer2013"], label),
    )
