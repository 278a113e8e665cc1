"""An entry of a collection: where one face image is, and all that the collection says of it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from synthfer.canonical import canonical_json
from synthfer.expressions import EXPRESSIONS

Counts = Mapping[str, Mapping[str, int]]
"""split -> expression (or "all") -> number of faces; one split "all" for a collection without official splits"""

KINDS = ("real", "synthetic")
"""Photographs of people, or faces of nobody."""
NOT_STATED = "not stated: see where the faces come from"
"""The licence of a collection of which nobody said it."""


class SourceError(ValueError):
    """A collection that cannot be read as it is; says which path, what is wrong, and what is expected there."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where the bytes of a picture are; `path` is relative to the collection's folder, with forward slashes.

    `form` is one of `synthfer.sources.reading.FORMS` (file, zip, slice, record, pixels, parquet), or the name of a
    source module with a function `picture(place) -> pixels` of its own. `start` and `length` are bytes of a slice, or
    row group and row of a Parquet file; `name` is the member of an archive, the column of a table, or the places that
    a record leaves out.
    """

    form: str
    path: str = ""
    start: int = 0
    length: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of a dataset to be: `key` is unique in its split, `label` an expression index 0..6 or None.

    `source_id` is the identity or the original image, the same in every copy of the collection; None where each
    picture is its own. `box` (left, top, right, bottom in pixels) is the face's part of the picture. `scores` are
    numbers that the collection gives (valence, votes ...). `reason`, with a picture: why it is rejected; without
    one: why the row fails.
    """

    key: str
    place: ImageRef | None = None
    label: int | None = None
    split: str = "train"
    source_id: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    label_probs: tuple[float, ...] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    box: tuple[float, float, float, float] | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.place is None and self.reason is None:
            raise ValueError(f"entry {self.key!r} has neither a picture nor a reason")
        if self.label_probs is not None and len(self.label_probs) != len(EXPRESSIONS):
            raise ValueError(f"entry {self.key!r} has {len(self.label_probs)} label_probs, not {len(EXPRESSIONS)}")

    def to_json(self) -> str:
        """Canonical JSON; fields at their defaults are left out."""
        given = {name: value for name in _FIELDS if (value := getattr(self, name)) or name in ("key", "label")}
        if self.place is not None:
            given["place"] = {name: value for name in _PLACE if (value := getattr(self.place, name)) or name == "form"}
        return canonical_json(given).decode()

    @classmethod
    def from_json(cls, text: str) -> "Entry":
        """The inverse of `to_json`."""
        value: dict[str, Any] = json.loads(text)
        if "place" in value:
            value["place"] = ImageRef(**value["place"])
        for name in ("label_probs", "box"):
            if name in value:
                value[name] = tuple(value[name])
        return cls(**value)


_PLACE = tuple(field.name for field in fields(ImageRef))
_FIELDS = tuple(field.name for field in fields(Entry))


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a source found at its path.

    `layout`: which of the published layouts it is, in a few words. `entries`: every row, in an order that does not
    depend on the file system (sorted, or as in the collection's own list); may be a generator. `official`: the
    published counts, to compare with. `kind`: one of `KINDS`.
    `licence`: the terms as far as known. `source_type`: IPTC code for pictures that have no file of their own yet.
    `notes`: messages on what is no row; may grow while `entries` are read.
    """

    layout: str
    entries: Iterable[Entry]
    licence: str
    kind: str = "real"
    source_type: str = "digitalCapture"
    official: Counts | None = None
    notes: list[str] = field(default_factory=list)


def existing(path: Path | None, source: str, wants: str) -> Path:
    """The path, if there is one; else `SourceError` says what the source wants there."""
    if path is None:
        raise SourceError(f"source {source} needs path=...: {wants}")
    if not path.exists():
        raise SourceError(f"path: there is nothing at {path}; source {source} wants {wants}")
    return path


def relative(path: Path, root: Path) -> str:
    """A file's path below the collection's folder, with forward slashes."""
    return path.relative_to(root).as_posix()


def safe_path(text: str) -> str:
    """A path written in a collection's own list or archive, if it stays inside the collection; else `SourceError`."""
    path = text.replace("\\", "/")
    parts = path.split("/")
    if not path.strip() or path.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in path:
        raise SourceError(f"the path {text!r} leaves the collection: it is not read")
    return "/".join(part for part in parts if part not in ("", "."))
