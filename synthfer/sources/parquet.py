"""Any Parquet file, folder of Parquet files or Hugging Face dataset folder with a column of images.

What the columns mean is read from the `huggingface` schema metadata (features Image and ClassLabel) that the library
`datasets` writes, else from their names and types. Labels are words or named classes; bare numbers are refused until
`order` names the published class order that they index, since a wrong order would mislabel every face.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from synthfer.documents import DocumentError, read_json
from synthfer.expressions import EXPRESSIONS, ORDERS
from synthfer.files import problem_of
from synthfer.schema import option
from synthfer.sources.entry import KINDS, NOT_STATED, Collection, Entry, ImageRef, SourceError, relative, require_path
from synthfer.sources.labels import SPLITS, by_code, by_word
from synthfer.sources.layouts import abbreviated, folder_of, is_text, left_out, walk
from synthfer.sources.parquet_files import ERRORS, LIST_ROWS, open_parquet, read_schema
from synthfer.sources.tables import parquet_rows
from synthfer.suggest import nearest

IMAGE_NAMES = ("image", "img", "jpg", "png", "path")
_KINDS_OF_TYPES: Mapping[str, Sequence[Callable[[pa.DataType], bool]]] = {
    "text": (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
    "bytes": (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
    "whole number": (pa.types.is_integer,),
}
_NUMBER = re.compile(r"-?[0-9]{1,9}")
LABEL_NAMES = ("label", "labels", "expression", "emotion")
_OURS = "{} is a dataset of synthfer already and needs no import: use its path where a dataset is expected"
_EXPECTED = "a Parquet file, or a folder with such files, with a column of images (bytes, or a struct with bytes)"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which columns are read, and how numbers become labels."""

    image: str | None = option(None, "column of the images; null: found by its type and name")
    label: str | None = option(None, "column of the labels; null: found by its name, or none; '' for none")
    split: str | None = option(None, "column of the split; null: 'split' if it is there, else from the file names")
    source_id: str | None = option(None, "column of the original or identity; null: 'source_id' if it is there")
    order: str | None = option(None, "the published order that numbers count in", choices=tuple(ORDERS))
    first: int = option(0, "the number of the order's first expression: 1 for RAF-DB", low=0, high=1)
    kind: str = option("real", "photographs of people, or synthetic faces", choices=KINDS)
    licence: str = option(NOT_STATED, "the terms of use")


@dataclass(frozen=True, slots=True)
class Tables:
    """The Parquet files of a collection; `schema` and `features` (metadata) are those of the first readable file."""

    root: Path
    files: list[Path]
    schema: pa.Schema
    features: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)


def find(path: Path | None, config: Config) -> Collection:
    """One entry for every row of every file, by file name and row."""
    tables = open_tables(require_path(path, "parquet", _EXPECTED), "parquet")
    image = image_column(tables, config.image)
    label = _column(tables, "label", config.label, LABEL_NAMES)
    split = _column(tables, "split", config.split, ("split",))
    source = _column(tables, "source_id", config.source_id, ("source_id",))
    read_label = _labels(tables, label, config) if label else None

    def entry(key: str, ref: ImageRef, file_split: str, row: Mapping[str, Any]) -> Entry:
        fields = dict(read_label(row[label])) if read_label and label else {}
        word = row[split] if split else file_split
        if str(word).lower() not in SPLITS:
            fields["reason"] = f"its split is {word!r}, none of {', '.join(SPLITS)}"
        source_id = None if source is None or row[source] is None else str(row[source])
        return Entry(key=key, image=ref, split=SPLITS.get(str(word).lower(), "train"), source_id=source_id, **fields)

    columns = [column for column in (label, split, source) if column]
    return Collection(
        layout=f"Parquet, {len(tables.files):,} files, pictures in column {image!r}, labels in {label or 'none'!r}",
        entries=rows(tables, image, columns, entry),
        licence=config.licence,
        kind=config.kind,
        notes=tables.notes,
    )


def open_tables(path: Path, source: str) -> Tables:
    """The Parquet files at a path. `SourceError`: there is none, none can be read, or it is a dataset of synthfer."""
    root = folder_of(path)
    if (root / "_dataset.json").exists():
        raise SourceError(_OURS.format(path))
    paths = [path / name for name in walk(path)] if path.is_dir() else [path]
    files = [f for f in paths if f == path or _is_table(f)]
    others = [relative(f, root) for f in sorted(set(paths) - set(files))]
    for file in files:
        try:
            schema = read_schema(file)
        except ERRORS:
            continue
        if b"synthfer.schema" in (schema.metadata or {}):
            raise SourceError(_OURS.format(path))
        if repeated := [name for name in schema.names if schema.names.count(name) > 1]:
            raise SourceError(f"{file} has several columns {repeated[0]!r}: rename all but one")
        return Tables(root, files, schema, _features(schema), left_out(others, "not Parquet files of faces"))
    raise SourceError(
        f"{path}: source {source} expects {_EXPECTED}. {len(files)} are there, and none can be read as Parquet"
    )


def _is_table(file: Path) -> bool:
    return file.suffix == ".parquet" and not file.name.startswith((".", "_")) and is_text(str(file))


def image_column(tables: Tables, name: str | None = None) -> str:
    """The column of images: `name`, or the only Image of the metadata, or a column with one of `IMAGE_NAMES`."""
    holds_bytes = [f.name for f in tables.schema if _holds_bytes(f.type)]
    declared = [n for n in holds_bytes if _feature(tables, n).get("_type") == "Image"]
    if name is not None:
        if name not in holds_bytes:
            raise SourceError(f"image: column {name!r} holds no images{nearest(name, holds_bytes)}{_there(tables)}")
        return name
    if len(declared) == 1:
        return declared[0]
    for known in IMAGE_NAMES:
        if known in (declared or holds_bytes):
            return known
    raise SourceError(f"it is not clear which column holds the images: set image=NAME{_there(tables)}")


def rows(
    tables: Tables, image: str, columns: Sequence[str], entry: Callable[[str, ImageRef, str, Mapping[str, Any]], Entry]
) -> Iterator[Entry]:
    """`entry(key, ref, split, values)` of each row, with the split of the file's name and the values of `columns`.

    `columns` may hold "image.path", the path inside the images' struct, whose value is {"path": ...}. A file that
    cannot be read is one failed entry; a row group that cannot be read is one failed entry for each of its rows.
    """
    outer = [outer_of(column, tables.schema.names) for column in (*columns, image)]
    expected = {name: tables.schema.field(name).type for name in outer}
    for file in tables.files:
        name, split = relative(file, tables.root), split_of(file, tables.root)
        try:
            _check_columns(read_schema(file), expected)
        except ERRORS as error:
            yield Entry(key=name, split=split, reason=f"{name} cannot be read: {problem_of(error)}")
            continue
        for number, row in parquet_rows(file, columns):
            key = f"{name}#{number - 1}"
            try:
                if isinstance(row, ValueError):
                    raise row
                yield entry(key, ImageRef("parquet", name, row.group, row.row, image), split, row.values)
            except ValueError as error:
                yield Entry(key=key, split=split, reason=f"{name}: {error}")


def outer_of(column: str, names: Iterable[str]) -> str:
    """The one of `names` that a column, or a path inside it, belongs to; names may have dots themselves."""
    return max((name for name in names if f"{column}.".startswith(f"{name}.")), key=len)


def split_of(file: Path, root: Path) -> str:
    """The split in a file's name (train-00000-of-00002.parquet) or its nearest folder's (train/0000.parquet)."""
    inner = [*file.relative_to(root).parts[:-1], file.stem.partition("-")[0]]
    return next((SPLITS[part.lower()] for part in reversed(inner) if part.lower() in SPLITS), "train")


def words_of(tables: Tables, column: str) -> list[str] | None:
    """The names of a ClassLabel's numbers, from the metadata; None if the column is not a ClassLabel."""
    feature = _feature(tables, column)
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return [str(name) for name in names] if isinstance(names, list) else None


def _feature(tables: Tables, column: str) -> dict[str, Any]:
    feature = tables.features.get(column)
    return feature if isinstance(feature, dict) else {}


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """The features that the metadata declares; none where it is anything else, since names and types tell as much."""
    try:
        features = read_json((schema.metadata or {})[b"huggingface"], "huggingface")["info"]["features"]
    except (KeyError, TypeError, DocumentError):
        return {}
    return features if isinstance(features, dict) else {}


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(inner.name == "bytes" and _holds_bytes(inner.type) for inner in kind)
    return kind_of(kind) == "bytes"


def kind_of(type_: pa.DataType) -> str:
    """What a column holds, however wide its numbers and offsets are stored: files of one collection differ in that."""
    if pa.types.is_dictionary(type_):
        return kind_of(type_.value_type)
    if pa.types.is_struct(type_):
        return f"struct<{', '.join(sorted(f'{inner.name}: {kind_of(inner.type)}' for inner in type_))}>"
    return next((kind for kind, checks in _KINDS_OF_TYPES.items() if any(check(type_) for check in checks)), str(type_))


def _there(tables: Tables) -> str:
    return f"; the columns are {', '.join(f'{f.name} ({f.type})' for f in tables.schema)}"


def _column(tables: Tables, key: str, name: str | None, known: Sequence[str]) -> str | None:
    names = tables.schema.names
    if name and name not in names:
        raise SourceError(f"{key}: there is no column {name!r}{nearest(name, names)}{_there(tables)}")
    return next((default for default in known if default in names), None) if name is None else name or None


def _check_columns(schema: pa.Schema, expected: Mapping[str, pa.DataType]) -> None:
    for name, kind in expected.items():
        types = [field.type for field in schema if field.name == name]
        if [kind_of(type_) for type_ in types] != [kind_of(kind)]:
            has = ", ".join(map(str, types)) or "no such column"
            raise SourceError(f"column {name} is {kind} in the first file, and here: {has}")


def _labels(tables: Tables, column: str, config: Config) -> Callable[[Any], Mapping[str, Any]]:
    """The function from a value of the label column to the fields of an entry."""
    kind, names = tables.schema.field(column).type, words_of(tables, column)
    order = ORDERS.get(config.order or "", ())
    if order:
        _check_range(tables, column, config)
    if kind_of(kind) == "text" or pa.types.is_null(kind):
        return lambda word: _of_text(word, order, config.first)
    if kind_of(kind) != "whole number":
        raise SourceError(f"label: column {column!r} is {kind}, neither words nor whole numbers{_there(tables)}")
    names, first = (list(order), config.first) if order else (names, 0)
    if names is None:
        orders = "; ".join(f"{order}: {', '.join(words)}" for order, words in ORDERS.items())
        raise SourceError(
            f"column {column!r} holds bare numbers: name their class order with order=NAME ({orders}), or leave them "
            "out with label=\"''\""
        )
    if not any("label" in by_word(name) for name in names):
        known = ", ".join(EXPRESSIONS)
        raise SourceError(
            f"no class of column {column!r} is an expression: {', '.join(names)}. Known: {known}. If they are numbers, "
            "name their class order with order=NAME"
        )
    # -1 is how `datasets` writes that there is no label.
    return lambda number: {} if number is None or number == -1 else by_code(names, str(number), first)


def _of_text(word: str | None, order: Sequence[str], first: int) -> Mapping[str, Any]:
    """The fields of an entry labelled by a text: a word, or a number that counts in `order` where one is named."""
    if not word or (order and word.strip() == "-1"):
        return {}
    return by_code(order, word, first) if order and _NUMBER.fullmatch(word.strip()) else by_word(word)


def _whole_numbers(values: Sequence[int | str | None]) -> set[int]:
    return {int(value) for value in values if isinstance(value, int) or (value and _NUMBER.fullmatch(value.strip()))}


def _check_range(tables: Tables, column: str, config: Config) -> None:
    """`SourceError` if labels count from 1 and `first` is 0, or the reverse: every face would be mislabelled."""
    numbers: set[int] = set()
    for file in tables.files:
        try:
            with open_parquet(file) as parquet:
                _check_columns(parquet.schema, {column: tables.schema.field(column).type})
                for group in range(len(parquet.groups)):
                    for batch in parquet.batches(group, [column], LIST_ROWS):
                        numbers |= _whole_numbers(batch.column(column).unique().to_pylist())
        except ERRORS:  # becomes a failed row when the rows are read
            continue
    last = config.first + len(EXPRESSIONS) - 1
    if (config.first == 0 and 0 not in numbers and last + 1 in numbers) or (config.first == 1 and 0 in numbers):
        shown = abbreviated([str(n) for n in sorted(numbers)])
        raise SourceError(
            f"column {column!r} holds {shown}, which do not start at {config.first}: set first={1 - config.first} if "
            f"order {config.order} is right"
        )
