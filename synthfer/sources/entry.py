"""An entry of a collection: where one face image is stored, and everything the collection says about it."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from synthfer.canonical import canonical_json
from synthfer.expressions import EXPRESSIONS
from synthfer.files import NotAFileError, check_regular

MAX_TEXT = 4096
"""Characters of a key, a path, a label, a reason: as long as paths may be."""
MAX_EDGE = 1e6
"""Pixels, of the edges of a box."""

SplitCounts = Mapping[str, Mapping[str, int]]
"""split -> expression (or "all") -> number of faces; one split "all" for a collection without official splits"""

KINDS = ("real", "synthetic")
"""Photographs of people, or faces of people who do not exist."""
NOT_STATED = "not stated: see where the faces come from"
"""The licence of a collection whose publisher states none."""


class SourceError(ValueError):
    """A collection that cannot be read as it is; the message names the path, the problem, and what is expected."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where the bytes of an image are; `path` is relative to the collection's folder, with forward slashes.

    `form` is one of `synthfer.sources.collection_reader.FORMS` (file, zip, slice, record, pixels, parquet), or the name
    of a source module that has a function `picture(ref) -> pixels`. `start` and `length` are the bytes of a slice, or
    row group and row of a Parquet file; `name` is the member of an archive, the column of a table, or the offsets of
    the words that a RecordIO record has to drop.
    """

    form: str
    path: str = ""
    start: int = 0
    length: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One future row of a dataset: `key` is unique in its split, `label` an expression index 0..6 or None.

    `source_id` is the identity or the original image, the same in every copy of the collection; None where each
    image is its own original. `box` (left, top, right, bottom in pixels) is the face's part of the image. `scores` are
    numbers that the collection gives (valence, votes ...). `reason`: with an image, why it is rejected; without one,
    why the row fails. All of it is hashed into the spec of the dataset, the wording of reasons included: a source that
    words them differently makes a different dataset, and an import that was interrupted before is not resumed.
    """

    key: str
    image: ImageRef | None = None
    label: int | None = None
    split: str = "train"
    source_id: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    label_probs: tuple[float, ...] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    box: tuple[float, float, float, float] | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        texts = (self.key, self.split, self.source_id, self.reason, *self.attributes, *self.attributes.values())
        if any(len(text) > MAX_TEXT for text in texts if text):
            raise ValueError(f"entry {self.key[:40]!r} has a text of more than {MAX_TEXT:,} characters")
        if self.box is not None and not all(abs(edge) <= MAX_EDGE for edge in self.box):
            raise ValueError(f"entry {self.key!r} has a box that no picture has: {self.box}")
        if self.image is None and self.reason is None:
            raise ValueError(f"entry {self.key!r} has neither an image nor a reason why there is none")
        if self.label_probs is not None and len(self.label_probs) != len(EXPRESSIONS):
            raise ValueError(f"entry {self.key!r} has {len(self.label_probs)} label_probs, not {len(EXPRESSIONS)}")

    def to_json(self) -> str:
        """Canonical JSON; fields at their defaults are left out.

        The image is stored under the key "place", as since the first version: the lines of an index are hashed into
        the spec of imported datasets, so another key would make every one of them a different dataset.
        """
        value = {name: part for name in _FIELDS if (part := getattr(self, name)) or name in ("key", "label")}
        ref = value.pop("image", None)
        if ref is not None:
            value["place"] = {name: part for name in _REF_FIELDS if (part := getattr(ref, name)) or name == "form"}
        return canonical_json(value).decode()

    @classmethod
    def from_json(cls, text: str) -> "Entry":
        """The inverse of `to_json`."""
        value: dict[str, Any] = json.loads(text)
        if "place" in value:
            value["image"] = ImageRef(**value.pop("place"))
        for name in ("label_probs", "box"):
            if name in value:
                value[name] = tuple(value[name])
        return cls(**value)


_REF_FIELDS = tuple(field.name for field in fields(ImageRef))
_FIELDS = tuple(field.name for field in fields(Entry))


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a source read from its path.

    `layout`: which of the published layouts it is, in a few words. `entries`: every row, in an order that does not
    depend on the file system (sorted, or as in the collection's own list); may be a generator. `official`: the
    published counts, to compare with. `kind`: one of `KINDS`.
    `licence`: the terms as far as known. `source_type`: IPTC code for images that are not stored as image files.
    `notes`: messages about files that became no row; may grow while `entries` are read.
    """

    layout: str
    entries: Iterable[Entry]
    licence: str
    kind: str = "real"
    source_type: str = "digitalCapture"
    official: SplitCounts | None = None
    notes: list[str] = field(default_factory=list)


def require_path(path: Path | None, source: str, expected: str) -> Path:
    """The path if it exists; else `SourceError` says what the source expects there."""
    if path is None:
        raise SourceError(f"source {source} needs path=..., which is {expected}")
    try:
        if not os.path.isdir(path):  # noqa: PTH112 - `Path.is_dir` fails for a path that is too long
            check_regular(path)
    except FileNotFoundError:
        raise SourceError(f"path: {path} does not exist; source {source} expects {expected}") from None
    except NotAFileError as error:
        raise SourceError(f"path: {error}; source {source} expects {expected}") from error
    return path


def relative(path: Path, root: Path) -> str:
    """A file's path below the collection's folder, with forward slashes."""
    return path.relative_to(root).as_posix()


def safe_path(text: str) -> str:
    """A path written in a collection's own list or archive, if it stays inside the collection; else `SourceError`."""
    path = text.replace("\\", "/")
    parts = path.split("/")
    if not path.strip() or path.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in path:
        raise SourceError(f"the path {text[:200]!r} leaves the collection: it is not read")
    return "/".join(part for part in parts if part not in ("", "."))
