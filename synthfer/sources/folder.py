"""Any folder of class folders: <class>/<picture>, or <split>/<class>/<picture>, as torchvision's ImageFolder reads it.

A class folder is named after an expression, in any of the usual words. Images in folders named after another published
label (contempt, unknown ...) are kept as rejected rows; any other name is refused until `classes` says what it means
or `ignore` leaves it out, since a folder that is guessed wrong would silently spoil a class.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthfer.expressions import EXPRESSIONS, index_of, other
from synthfer.schema import option
from synthfer.sources.entry import KINDS, NOT_STATED, Collection, Entry, ImageRef, SourceError, relative, require_path
from synthfer.sources.labels import SPLITS, by_word
from synthfer.sources.layouts import is_picture, is_text, left_out, readable, unknown_layout, walk
from synthfer.suggest import nearest

_EXPECTED = "a folder with one folder for each expression, or with train, val, test folders of such"


@dataclass(frozen=True, kw_only=True)
class Config:
    """What folders mean that are not named after an expression, and what the images are."""

    classes: Mapping[str | int, str] = option({}, "further class folders and the expression in each: {1: surprise}")
    ignore: Sequence[str] = option([], "class folders to leave out")
    kind: str = option("real", "photographs of people, or synthetic faces", choices=KINDS)
    licence: str = option(NOT_STATED, "the terms of use")

    def __post_init__(self) -> None:
        for word in self.classes.values():
            if other(word) is None:
                index_of(word)


def find(path: Path | None, config: Config) -> Collection:
    """One entry for every image below a class folder, by split, class and name."""
    root = require_path(path, "folder", _EXPECTED)
    folders, beside = _inside(root)
    if splits := [folder for folder in folders if folder.name.lower() in SPLITS]:
        _only_splits(root, folders, splits)
    class_folders: list[tuple[str, Path]] = []
    for top in splits or [root]:
        classes, files = _inside(top) if splits else (folders, [])
        class_folders += [(SPLITS[top.name.lower()] if splits else "train", folder) for folder in classes]
        beside += files
    words = _words(root, sorted({folder.name for _, folder in class_folders}), config)
    skipped = sorted({folder.name for _, folder in class_folders} & set(config.ignore))
    notes = [f"left out by ignore: the class folders {', '.join(map(readable, skipped))}"] if skipped else []
    return Collection(
        layout="split and class folders" if splits else "class folders",
        entries=_entries(root, [(s, c, words[c.name]) for s, c in class_folders if c.name in words], beside, notes),
        licence=config.licence,
        kind=config.kind,
        notes=notes,
    )


def _inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders in a folder, and everything else in it, by name. Hidden folders count as something else."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    folders = [path for path in paths if path.is_dir() and not path.name.startswith(".")]
    return folders, sorted(set(paths) - set(folders))


def _only_splits(root: Path, folders: Sequence[Path], splits: Sequence[Path]) -> None:
    if others := [folder.name for folder in folders if folder not in splits]:
        raise SourceError(
            f"{root} has the splits {', '.join(s.name for s in splits)} and beside them {', '.join(others)}: "
            "move those elsewhere, or give the path of one split"
        )


def _words(root: Path, names: Sequence[str], config: Config) -> dict[str, str]:
    """The word of every class folder that is read. `SourceError` names all folders whose name means nothing."""
    if not names:
        raise unknown_layout(root, "folder", _EXPECTED)
    given = {str(name): word for name, word in config.classes.items()}
    for key, configured in (("classes", given), ("ignore", config.ignore)):
        if absent := [name for name in configured if name not in names]:
            raise SourceError(f"{key}: {root} has no class folder {absent[0]!r}{nearest(absent[0], names)}")
    words = {name: given.get(name, name) for name in names if name not in config.ignore}
    if unknown := [name for name, word in words.items() if "label" not in by_word(word) and other(word) is None]:
        hints = (f"{name!r}{nearest(name.lower(), EXPRESSIONS)}" for name in unknown)
        raise SourceError(
            f"{root}: class folders that name no expression: {', '.join(hints)}. Known: {', '.join(EXPRESSIONS)} and "
            "their usual words. Say what they hold with classes={folder: expression}, or leave them out with "
            "ignore=[folder]"
        )
    return words


def _entries(
    root: Path, classes: Iterable[tuple[str, Path, str]], beside: Iterable[Path], notes: list[str]
) -> Iterator[Entry]:
    others = [relative(path, root) for path in beside]
    for split, folder, word in classes:
        fields: Mapping[str, Any] = by_word(word)
        top = relative(folder, root)
        for file in walk(folder):
            name = f"{top}/{file}"
            if not is_picture(name):
                others.append(name)
            elif is_text(name):
                yield Entry(key=name, image=ImageRef("file", name), split=split, **fields)
            else:
                yield Entry(key=repr(name), split=split, reason=f"rename {name!r}: its name cannot be written as text")
    notes += left_out(others, "not named as images")
