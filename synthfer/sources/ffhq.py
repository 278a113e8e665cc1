"""FFHQ: 70,000 photographs of faces from Flickr (Karras et al., CVPR 2019), without labels.

Reads the layout of github.com/NVlabs/ffhq-dataset: images1024x1024/00000/00000.png, thumbnails128x128/..., a folder
of such folders or of the images alone (also resized copies). If ffhq-dataset-v2.json is beside them, that list decides:
its category is the split (the first 60,000 are training, the others validation), a file of another size than listed
is rejected, and the licences of the photographs are counted. The 255 MB of that file are read record by record; no
checksum is computed.

People may ask for the removal of their pictures: download the list again before each use.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthfer.documents import json_items
from synthfer.files import open_regular
from synthfer.schema import option
from synthfer.sources.entry import Collection, Entry, ImageRef, SourceError, relative, require_path, safe_path
from synthfer.sources.layouts import is_text, left_out, readable, unknown_layout, walk

LIST = "ffhq-dataset-v2.json"
SIZES = {"images1024x1024": "image", "thumbnails128x128": "thumbnail"}
"""Folder of a size -> its section in the list."""
OFFICIAL = {"train": {"all": 60_000}, "val": {"all": 10_000}}
OFFICIAL_UNLISTED = {"train": {"all": 70_000}}
LICENCE = (
    "CC BY-NC-SA 4.0 for the collection; each photograph under its own (CC BY 2.0, CC BY-NC 2.0, CC0 1.0, Public "
    "Domain Mark 1.0, U.S. Government Works); not for the development of facial recognition"
)
MAX_RECORDS = 2_000_000
_SPLITS = {"training": "train", "validation": "val"}
_USED = ("license", "author", "file_size")
_LONGEST = 200
_EXPECTED = f"images1024x1024/ or thumbnails128x128/ with 00000/00000.png ..., and {LIST} if at hand"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which size is read, if both are there."""

    pictures: str | None = option(None, "folder to read; null: the larger one that is there", choices=tuple(SIZES))


def find(path: Path | None, config: Config) -> Collection:
    """One entry for every image of the list, in its order; without the list, for every image by its number."""
    root = require_path(path, "ffhq", _EXPECTED)
    top = _top(root, config)
    files, others = _pictures(top, root)
    section = SIZES.get(top.resolve().name)
    listed = _list(root)
    if not files:
        raise unknown_layout(top, "ffhq", _EXPECTED)
    notes = left_out(others, "not named as images of FFHQ")
    if listed is None:
        entries = (_entry(index, ImageRef("file", name)) for index, name in sorted(files.items()))
        return Collection(layout=f"{top.name} without {LIST}", entries=entries, licence=LICENCE,
                          official=OFFICIAL_UNLISTED, notes=notes)  # fmt: skip
    unlisted = [files[i] for i in sorted(files.keys() - set(_numbers(listed)))]
    notes += left_out(unlisted, f"images that are not in {LIST}")
    return Collection(
        layout=f"{top.name} with {LIST}",
        entries=_listed(listed, files, root, relative(top, root), section),
        licence=LICENCE,
        official=OFFICIAL,
        notes=notes + _licences(listed),
    )


def _top(root: Path, config: Config) -> Path:
    present = [root / name for name in SIZES if (root / name).is_dir()]
    if config.pictures is None:
        return present[0] if present else root
    chosen = root / config.pictures
    if chosen not in present and root.resolve().name != config.pictures:
        raise SourceError(f"pictures: {chosen} does not exist; source ffhq expects {_EXPECTED}")
    return chosen if chosen in present else root


def _pictures(top: Path, root: Path) -> tuple[dict[int, str], list[str]]:
    """Number -> path below the root, and the paths of all other files."""
    files: dict[int, str] = {}
    others = []
    for path in walk(top):
        file = top / path
        index, name = _number(file.stem), relative(file, root)
        if index is None or file.suffix.lower() != ".png" or index in files or not is_text(name):
            others.append(name)
        else:
            files[index] = name
    return files, [name for name in others if name != LIST]


def _number(text: str) -> int | None:
    return int(text) if len(text) == 5 and text.isascii() and text.isdigit() else None


def _list(root: Path) -> dict[str, Any] | None:
    """The list beside the images or one folder above, if there is one."""
    file = next((folder / LIST for folder in (root, root.resolve().parent) if (folder / LIST).is_file()), None)
    if file is None:
        return None
    listed: dict[str, Any] = {}
    try:
        with open_regular(file) as body:
            for key, record in json_items(body, str(file)):
                if key in listed or len(listed) == MAX_RECORDS:
                    problem = "is there twice" if key in listed else f"is one of more than {MAX_RECORDS:,}"
                    raise SourceError(f"{file}: the record {readable(key)} {problem}")
                listed[key] = _needed(record)
    except ValueError as error:
        raise SourceError(f"{error}; download {LIST} again, or move it away") from error
    return listed


def _needed(record: Any) -> Any:
    """The parts of a record that are used; anything else as it is, if it is short."""
    if not isinstance(record, dict):
        return _short(record)
    parts = {name: record[name] for name in ("category", "metadata", *SIZES.values()) if name in record}
    return {
        name: {key: _short(part[key]) for key in _USED if key in part} if isinstance(part, dict) else _short(part)
        for name, part in parts.items()
    }


def _short(value: Any) -> Any:
    return value if isinstance(value, (int, float)) or value is None else str(value)[:_LONGEST]


def _numbers(listed: Mapping[str, Any]) -> Iterator[int]:
    return (int(key) for key in listed if key.isascii() and key.isdigit() and len(key) < 19)


def _as_listed(key: str) -> int:
    if len(key) > _LONGEST or str(int(key)) != key:
        raise ValueError("its number is written in another way")
    return int(key)


def _listed(
    listed: Mapping[str, Any], files: Mapping[int, str], root: Path, top: str, section: str | None
) -> Iterator[Entry]:
    for key, record in listed.items():
        try:
            index, split = _as_listed(key), _SPLITS[record["category"]]
            listed_size = record[section]["file_size"] if section else None
            if not isinstance(listed_size, (int, type(None))):
                raise TypeError(f"its file_size is {listed_size!r}")
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{LIST}: record {key[:_LONGEST]!r} is not as published: {type(error).__name__} {error}"
            yield Entry(key=f"{LIST}:{readable(key)}", reason=reason)
            continue
        # A listed file that is missing becomes a failed row when it is read: its path is where it should be.
        name = files.get(index) or safe_path(f"{top}/{index // 1000 * 1000:05d}/{index:05d}.png")
        yield _entry(index, ImageRef("file", name), split, _wrong_size(root / name, listed_size))


def _wrong_size(file: Path, listed: Any) -> str | None:
    has = file.stat().st_size if listed is not None and file.is_file() else listed
    return None if has == listed else f"the file has {has} bytes and not the {listed} of {LIST}"


def _entry(index: int, ref: ImageRef, split: str = "train", reason: str | None = None) -> Entry:
    name = f"{index:05d}"
    return Entry(key=name, image=ref, split=split, source_id=f"ffhq:{name}", reason=reason)


def _licences(listed: Mapping[str, Any]) -> list[str]:
    texts = [r.get("metadata") for r in listed.values() if isinstance(r, dict)]
    known = [text for text in texts if isinstance(text, dict)]
    counts = Counter(str(text.get("license", "not stated")) for text in known)
    authors = len({str(text.get("author")) for text in known})
    shown = ", ".join(f"{readable(name)} {count:,}" for name, count in sorted(counts.items()))
    return [f"licences of the listed photographs: {shown}; {authors:,} authors to be credited"] if known else []
