"""Tells the layouts of a collection apart: files and folders by name, and notes about files that become no row."""

import os
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from synthfer.sources.entry import SourceError

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
"""Suffixes of image files, in lower case."""
MAX_FOLDERS = 100
"""Folders within one another below a class, a subject or a collection; published ones have a few."""
_SHOWN = 5
_LONGEST = 200


def file_at(path: Path, *names: str) -> Path | None:
    """The first of these files that is in folder `path`; or `path` itself, a file of that kind."""
    if path.is_file():
        return path if path.suffix in {Path(name).suffix for name in names} else None
    return next((path / name for name in names if (path / name).is_file()), None)


def folder_of(path: Path) -> Path:
    """The folder that image paths are relative to: `path`, or the folder of the file `path`."""
    return path.parent if path.is_file() else path


def unknown_layout(path: Path, source: str, expected: str) -> SourceError:
    """The error that says what is expected at the path and what is there."""
    there = sorted(p.name for p in path.iterdir()) if path.is_dir() else [f"a file {path.name}"]
    return SourceError(
        f"path: {path} is no layout of source {source}, which expects {expected}. There is: {abbreviated(there)}"
    )


def walk(top: Path) -> Iterator[str]:
    """Paths (relative to `top`, forward slashes) of all files below a folder, folder by folder, by name.

    A link to a folder is not followed, but is one of the paths. If there is no folder, there are no paths.
    `SourceError`: a folder cannot be listed, or lies more than `MAX_FOLDERS` deep.
    """
    for parent, folders, files in os.walk(top, onerror=_refuse) if top.is_dir() else ():
        folders.sort()
        below = Path(parent).relative_to(top).as_posix()
        if below.count("/") >= MAX_FOLDERS:
            raise SourceError(f"{top} has folders more than {MAX_FOLDERS} deep ({readable(below)}): move them away")
        start = "" if below == "." else f"{below}/"
        links = [name for name in folders if os.path.islink(f"{parent}/{name}")]  # noqa: PTH114 - as the walk itself
        yield from (start + name for name in sorted([*files, *links]))


def _refuse(error: OSError) -> None:
    raise SourceError(f"{error.filename} cannot be listed ({error.strerror}): make it readable, or move it away")


def is_text(name: str) -> bool:
    """Whether a file's name can be written as UTF-8, as everything in a dataset is."""
    return name.encode(errors="ignore").decode() == name


def is_picture(path: str) -> bool:
    """Whether a path is named as an image; hidden files and files in hidden folders are not."""
    return path.lower().endswith(PICTURES) and "/." not in f"/{path}"


def class_folders(root: Path, folder: str, notes: list[str]) -> Iterator[tuple[str, str]]:
    """Class word and path below `root` of every image in `folder`/<class>/, sorted; notes name the other files.

    A file whose name is not UTF-8 cannot be named in a dataset and is one of the others.
    """
    others = []
    for entry in sorted((root / folder).iterdir()):
        if not entry.is_dir():
            others.append(entry.name)
        for name in walk(entry):
            relative = f"{folder}/{entry.name}/{name}".removeprefix("./")
            if is_picture(f"{entry.name}/{name}") and is_text(relative) and "/" not in name:
                yield entry.name, relative
            else:
                others.append(relative)
    notes += left_out(
        others, f"{(root / folder).name}: files that are not named as images or whose name cannot be read"
    )


def unlisted(folder: Path, listed: Container[str], name: str) -> list[str]:
    """One note about the images below a folder (paths relative to it) that list `name` does not name, or none."""
    extra = sorted(path for path in walk(folder) if is_picture(path) and path not in listed)
    return left_out(extra, f"{folder.name}: images that are not in {name}")


def left_out(names: Sequence[str], what: str) -> list[str]:
    """One note about files that become no row (what they are, how many, the first names); none if there are none."""
    return [f"{what}, left out: {len(names):,} ({abbreviated(names)})"] if names else []


def readable(name: str) -> str:
    """A foreign name as one line of text: quoted and escaped if it has to be, cut if it is long."""
    shown = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    return shown if shown.isprintable() else repr(shown)


def abbreviated(names: Sequence[str]) -> str:
    """The first few names in one line, or "nothing"."""
    return ", ".join(map(readable, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "") or "nothing"
