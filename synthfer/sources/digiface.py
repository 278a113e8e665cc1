"""DigiFace-1M: rendered faces of 110,000 people who do not exist (Bae et al., WACV 2023), without labels.

Reads what github.com/microsoft/DigiFace1M publishes: eight archives subjects_0-1999_72_imgs.zip ... with
<subject>/<k>.png inside, without unpacking them, or the same folders unpacked, with or without a folder for each
archive. The publishers state 720,000 and 500,000 images; but the names of the last three archives cover 99,999
subjects, which makes 499,995.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from synthfer.files import problem_of
from synthfer.sources.archives import open_zip, refusals
from synthfer.sources.collection_reader import MAX_BYTES
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
from synthfer.sources.layouts import folder_of, left_out, readable, unknown_layout, walk

PARTS = {
    720_000: ("0-1999_72", "2000-3999_72", "4000-5999_72", "6000-7999_72", "8000-9999_72"),
    500_000: ("100000-133332_5", "133333-166665_5", "166666-199998_5"),
}
"""Published number of pictures -> the archives that hold them."""
LICENCE = "Research Use of Data Agreement (R-UDA): non-commercial research"
_PART = re.compile(r"subjects_((\d+)-(\d+)_\d+)_imgs(?:\.zip)?", re.ASCII)
_PICTURE = re.compile(r"(?:.*/)?(\d{1,9})/(\d{1,9})\.png", re.ASCII)
_FILE = re.compile(r"(\d{1,9})\.png", re.ASCII)
_EXPECTED = "subjects_0-1999_72_imgs.zip ... as published, or folders <subject>/<k>.png"


@dataclass(frozen=True, kw_only=True)
class Config:
    """DigiFace-1M has no options."""


def find(path: Path | None, config: Config) -> Collection:
    """One entry for every picture, by archive, subject and number. `SourceError`: a path leaves an archive."""
    root = require_path(path, "digiface", _EXPECTED)
    archives = [root] if root.is_file() else [p for p in root.iterdir() if p.suffix == ".zip" and _part(p)]
    notes: list[str] = []
    if archives:
        notes += left_out(_beside(root, archives), "not among the published archives")
        archives.sort(key=_first_subject)
        root = folder_of(root)
        for archive in archives:
            _refuse_escapes(archive)
        parts, layout = [_part(archive) for archive in archives], f"{len(archives)} archives"
        entries = _archived(archives, root, notes)
    else:
        folders, parts = _subjects(root)
        layout, entries = f"folders of {len(folders):,} subjects", _unpacked(folders, root, notes)
    official, missing = _official(parts)
    if missing:
        notes.append(f"not here: {', '.join(f'subjects_{part}_imgs' for part in missing)}")
    return Collection(
        layout=layout,
        entries=entries,
        licence=LICENCE,
        kind="synthetic",
        source_type="algorithmicMedia",
        official=official,
        notes=notes,
    )


def _beside(root: Path, archives: Sequence[Path]) -> list[str]:
    return sorted(p.name for p in set(root.iterdir()) - set(archives)) if root.is_dir() else []


def _part(path: Path) -> str:
    """Which published archive has this name; empty if none."""
    match = _PART.fullmatch(path.name)
    return match.group(1) if match and any(match.group(1) in names for names in PARTS.values()) else ""


def _first_subject(path: Path) -> tuple[int, str]:
    return int(_part(path).partition("-")[0] or -1), path.name


def _official(parts: Sequence[str]) -> tuple[SplitCounts | None, list[str]]:
    """The published count of the complete sets of parts, and the parts that are missing from incomplete sets."""
    complete = sum(count for count, names in PARTS.items() if set(names) <= set(parts))
    missing = [name for names in PARTS.values() if set(names) & set(parts) for name in names if name not in parts]
    return ({"train": {"all": complete}} if complete and not missing else None), missing


def _refuse_escapes(path: Path) -> None:
    """`SourceError` if any path leaves the archive: somebody made it to do harm, so none of it is read."""
    try:
        with open_zip(path) as archive:
            names = archive.namelist()
    except (ValueError, FileNotFoundError):  # it becomes one failed row in place of its images, see `_archived`
        return
    for name in names:
        try:
            safe_path(name)
        except SourceError as error:
            raise SourceError(f"{path} is refused: {error}") from error


def _archived(archives: Sequence[Path], root: Path, notes: list[str]) -> Iterator[Entry]:
    for path in archives:
        name = relative(path, root)
        try:
            with open_zip(path) as archive:
                members = archive.infolist()
        except (ValueError, FileNotFoundError) as error:
            yield Entry(key=name, reason=f"{name} cannot be read ({problem_of(error)}): download it again")
            continue
        reasons = dict(zip(map(id, members), refusals(members, MAX_BYTES), strict=True))
        pictures = [(m, match) for m in members if not m.is_dir() and (match := _PICTURE.fullmatch(m.filename))]
        pictures.sort(key=lambda pair: (int(pair[1].group(1)), int(pair[1].group(2)), pair[0].filename))
        known, part = set[str](), _PART.fullmatch(path.name)
        for member, match in pictures:
            subject, key = int(match.group(1)), f"{match.group(1)}/{match.group(2)}.png"
            reason = reasons[id(member)] or _out_of_place(member.filename, key in known, part, subject)
            if reason:
                yield Entry(key=f"{name}/{readable(member.filename)}@{member.header_offset}", reason=reason)
            else:
                known.add(key)
                yield _entry(key, match.group(1), ImageRef("zip", name, name=member.filename))
        others = [m.filename for m in members if not m.is_dir() and not _PICTURE.fullmatch(m.filename)]
        notes += left_out(others, f"members of {name} that are not named as images")


def _out_of_place(name: str, known: bool, part: re.Match[str] | None, subject: int) -> str | None:
    """Why a member is not the image that its name says; None if it is."""
    if known:
        return f"{readable(name)} is in the archive twice"
    if part and not int(part.group(2)) <= subject <= int(part.group(3)):
        return f"{readable(name)}: subject {subject} does not belong to {part.group(0)}"
    return None


def _subjects(root: Path) -> tuple[list[Path], list[str]]:
    """The folders of the subjects by number, and the published parts that they cover."""
    tops = sorted((p for p in root.iterdir() if p.is_dir() and _part(p)), key=_first_subject) or [root]
    folders = [p for top in tops for p in top.iterdir() if p.is_dir() and re.fullmatch(r"[0-9]{1,9}", p.name)]
    if not folders:
        raise unknown_layout(root, "digiface", _EXPECTED)
    subjects = {int(folder.name) for folder in folders}
    if len(subjects) < len(folders):
        raise SourceError(f"{root} has several folders of one subject: keep one copy, or give the path of one part")
    parts = [part for names in PARTS.values() for part in names if _covers(subjects, part)]
    return sorted(folders, key=lambda p: (int(p.name), p.as_posix())), parts


def _covers(subjects: set[int], part: str) -> bool:
    first, last = (int(text) for text in part.partition("_")[0].split("-"))
    return subjects.issuperset(range(first, last + 1))


def _unpacked(folders: Sequence[Path], root: Path, notes: list[str]) -> Iterator[Entry]:
    others: list[str] = []
    for folder in folders:
        names, top = list(walk(folder)), relative(folder, root)
        pictures = {name: int(match.group(1)) for name in names if (match := _FILE.fullmatch(name))}
        others += [f"{top}/{name}" for name in names if name not in pictures]
        for name in sorted(pictures, key=lambda name: (pictures[name], name)):
            yield _entry(f"{folder.name}/{name}", folder.name, ImageRef("file", f"{top}/{name}"))
    notes += left_out(sorted(others), "not named as images of DigiFace-1M")


def _entry(key: str, subject: str, ref: ImageRef) -> Entry:
    return Entry(key=key, image=ref, source_id=f"digiface:{int(subject)}")
