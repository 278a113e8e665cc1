"""AffectNet: faces of the web with expression, valence and arousal, labelled by hand (Mollahosseini et al. 2017,
arXiv:1708.03985).

Layouts: the original `training.csv` and `validation.csv` (the latter, in some copies, without its header) beside the
pictures of Manually_Annotated_Images; the release of 2021, train_set and val_set with images/<id>.jpg (224 x 224) and
annotations/<id>_exp.npy, _val.npy, _aro.npy, each one value that may be stored as text. Quirks: there is no public
test set, so that papers report on the validation set, which is the split `test` here; a valence or arousal of -2
means that there is none; contempt, none, uncertain and no-face are none of the seven expressions.
"""

import io
import math
import os
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from synthfer.expressions import ORDERS
from synthfer.files import read_file
from synthfer.schema import option
from synthfer.sources import labels, layouts, tables
from synthfer.sources.entry import Collection, Entry, ImageRef, SplitCounts, relative, require_path, safe_path

CODES = (*ORDERS["affectnet"], "contempt", "none", "uncertain", "no-face")
COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height",
    "facial_landmarks", "expression", "valence", "arousal",
)  # fmt: skip
CSV_SPLITS = {"training.csv": "train", "validation.csv": "test"}
SET_SPLITS = {"train_set": "train", "val_set": "test"}
CONTEMPT = {"train": 3750, "test": 500}
LICENCE = "non-commercial research by signed agreement, no redistribution"
_LISTS = (".", "Manually_Annotated_file_lists", "Manually_Annotated/Manually_Annotated_file_lists")
_IMAGES = (
    "Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated_compressed/Manually_Annotated_Images",
)  # fmt: skip
_EXPECTED = "training.csv and validation.csv (or Manually_Annotated_file_lists/ with them), or train_set/ and val_set/"
_ABSENT = -2
_MAX_BYTES = 4096
# What numpy raises for a damaged file: it parses the header as Python source.
_NUMPY_ERRORS = (
    OSError, ValueError, EOFError, MemoryError, OverflowError, TypeError, SyntaxError, RecursionError, SystemError,
    tokenize.TokenError,
)  # fmt: skip


OFFICIAL: SplitCounts = {
    "train": labels.counted(ORDERS["affectnet"], 74874, 134415, 25459, 14090, 6378, 3803, 24882),
    "test": labels.counted(ORDERS["affectnet"], 500, 500, 500, 500, 500, 500, 500),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which of the two usual tasks the counts are compared with."""

    classes: int = option(7, "8: the notes also count contempt, whose faces have no label here", low=7, high=8)


def find(path: Path | None, config: Config) -> Collection:
    """The faces of a folder in either layout."""
    path = require_path(path, "affectnet", _EXPECTED)
    notes = ["there is no public test set: the validation set is the split test here, as papers use it"]
    lists = next((path / at for at in _LISTS if any((path / at / name).is_file() for name in CSV_SPLITS)), None)
    if lists:
        layout, entries = "training.csv and validation.csv", _of_csv(lists, path, notes)
    elif any((path / name / "annotations").is_dir() for name in SET_SPLITS):
        layout, entries = "train_set and val_set of 2021", _of_sets(path, notes)
    else:
        raise layouts.unknown_layout(path, "affectnet", _EXPECTED)
    if config.classes == 8:
        entries = _counting_contempt(entries, notes)
    return Collection(layout=layout, entries=entries, licence=LICENCE, official=OFFICIAL, notes=notes)


def _counting_contempt(entries: Iterator[Entry], notes: list[str]) -> Iterator[Entry]:
    counts: Counter[str] = Counter()
    for entry in entries:
        counts[entry.split] += entry.attributes.get("emotion") == "contempt"
        yield entry
    notes += [f"{split} contempt: {counts[split]:,} here, {n:,} published" for split, n in CONTEMPT.items()]


def _of_csv(lists: Path, root: Path, notes: list[str]) -> Iterator[Entry]:
    images = next((root / at for at in _IMAGES if (root / at).is_dir()), root)
    present = [name for name in CSV_SPLITS if (lists / name).is_file()]
    needed = [name for name in COLUMNS if name != "facial_landmarks"]
    lines = {name: tables.csv_table(lists / name, needed, order=COLUMNS) for name in present}
    notes += [f"there is no {name}" for name in CSV_SPLITS if name not in present]
    return _of_lines(lines, images, root, notes)


def _of_lines(
    lines: dict[str, tables.Lines[dict[str, str]]], images: Path, root: Path, notes: list[str]
) -> Iterator[Entry]:
    listed: set[str] = set()
    for name, rows in lines.items():
        below = f"{relative(images, root)}/".removeprefix("./")
        yield from tables.read_entries(name, rows, partial(_of_line, below, CSV_SPLITS[name], listed))
    notes += layouts.unlisted(images, listed, " and ".join(lines))


def _of_line(below: str, split: str, listed: set[str], _: int, cells: dict[str, str]) -> Entry:
    name = safe_path(cells["subDirectory_filePath"].strip())
    listed.add(name)
    left, top, width, height = (tables.parse_float(cells[column], column) for column in COLUMNS[1:5])
    fields = labels.by_code(CODES, cells["expression"])
    if width > 0 and height > 0:
        fields["box"] = (left, top, left + width, top + height)
    else:
        fields.setdefault("reason", f"the face is {width:g} x {height:g} pixels: there is no box")
    scores = {what: tables.parse_float(cells[what], what) for what in ("valence", "arousal")}
    return Entry(
        key=name,
        image=ImageRef("file", below + name),
        split=split,
        scores={what: value for what, value in scores.items() if value != _ABSENT},
        **fields,
    )


def _of_sets(root: Path, notes: list[str]) -> Iterator[Entry]:
    for name, split in SET_SPLITS.items():
        folder = root / name / "annotations"
        if not folder.is_dir():
            notes.append(f"there is no {name}/annotations")
            continue
        files = os.listdir(folder)  # noqa: PTH208 - a path per name would fill the memory
        faces = sorted(file.removesuffix("_exp.npy") for file in files if file.endswith("_exp.npy"))
        ids = [face for face in faces if layouts.is_text(face)]
        unreadable = [face for face in faces if not layouts.is_text(face)]
        notes += layouts.left_out(unreadable, f"{name}/annotations: names that cannot be written as text")
        for face in ids:
            yield _of_face(root, name, split, face)
        notes += layouts.unlisted(root / name / "images", {f"{face}.jpg" for face in ids}, f"{name}/annotations")


def _of_face(root: Path, name: str, split: str, face: str) -> Entry:
    try:
        code = tables.parse_float(_value(root, f"{name}/annotations/{face}_exp.npy"), "expression")
        scores = {}
        for what, short in (("valence", "val"), ("arousal", "aro")):
            file = f"{name}/annotations/{face}_{short}.npy"
            if (root / file).is_file() and (value := tables.parse_float(_value(root, file), what)) != _ABSENT:
                scores[what] = value
    except ValueError as error:
        return Entry(key=face, split=split, reason=str(error))
    ref = ImageRef("file", f"{name}/images/{face}.jpg")
    return Entry(key=face, image=ref, split=split, scores=scores, **labels.by_code(CODES, f"{code:g}"))


def _value(root: Path, file: str) -> str:
    """The one value of a .npy file, as text; `ValueError` says which file is broken or holds something else."""
    try:
        body = io.BytesIO(read_file(root / file, _MAX_BYTES))
        version = np.lib.format.read_magic(body)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read_header(body)
        if math.prod(shape) != 1 or kind.itemsize > _MAX_BYTES:  # checked before memory is taken for it
            raise ValueError(f"it holds {math.prod(shape)} values of {kind.itemsize} bytes, not one")
        body.seek(0)
        values = np.lib.format.read_array(body, allow_pickle=False)
        return str(values.reshape(-1)[0])
    except FileNotFoundError:
        raise ValueError(f"{file} does not exist") from None
    except _NUMPY_ERRORS as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
