"""EmoNet-Face HQ, Binary and Big (LAION, arXiv 2505.20033): synthetic faces with 40 emotions, as Parquet.

The image column is `path` (an Image, in HQ and Binary), `image` or `jpg`; the schema metadata says which. There is no
agreed mapping of the 40 emotions to seven expressions, so no face gets a label; annotations in plain words are kept as
attributes. Binary has a row for every annotation: rows of one image share its source_id, if the image has a path in
the file. The expert ratings of HQ (column `label`) are not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from synthfer.sources.entry import Collection, Entry, ImageRef, require_path
from synthfer.sources.parquet import Tables, image_column, kind_of, open_tables, outer_of, rows, words_of

OFFICIAL = {"hq": 2_500, "big": 203_201}
"""Published rows by a word in the folder's name; of Binary only images (19,999) and annotations (65,686) are stated."""
_ATTRIBUTES = {"emotion": "emotion", "gender": "gender", "age": "age", "ethnicity": "race", "race": "race"}
_EXPECTED = "the Parquet files of EmoNet-Face, e.g. data/train-00000-of-00002.parquet"


@dataclass(frozen=True, kw_only=True)
class Config:
    """EmoNet-Face has no options."""


def find(path: Path | None, config: Config) -> Collection:
    """One entry for every row, without a label."""
    tables = open_tables(require_path(path, "emonet", _EXPECTED), "emonet")
    image, attributes = image_column(tables), _attributes(tables)
    named = pa.types.is_struct(tables.schema.field(image).type) and _has(tables, image, "path")

    def entry(key: str, ref: ImageRef, split: str, row: Mapping[str, Any]) -> Entry:
        values = {name: _value(row, column, words) for column, (name, words) in attributes.items()}
        file = (row[image] or {}).get("path") if named else None
        return Entry(
            key=key,
            image=ref,
            split=split,
            source_id=f"emonet:{file}" if file else None,
            attributes={name: value for name, value in values.items() if value is not None},
        )

    columns = [*attributes, f"{image}.path"] if named else list(attributes)
    named_after = [part.lower() for part in tables.root.resolve().parts if "emonet" in part.lower()]
    count = next((n for word, n in OFFICIAL.items() for part in named_after if word in part), None)
    return Collection(
        layout=f"Parquet, {len(tables.files):,} files, pictures in column {image!r}",
        entries=rows(tables, image, columns, entry),
        licence="CC BY 4.0",
        kind="synthetic",
        source_type="trainedAlgorithmicMedia",
        official={"train": {"all": count}} if count else None,
        notes=tables.notes,
    )


def _attributes(tables: Tables) -> dict[str, tuple[str, list[str] | None]]:
    """Column (or "struct.field", as "demographics.age") -> attribute and the names of its numbers."""
    attributes: dict[str, tuple[str, list[str] | None]] = {}
    for field in tables.schema:
        inner = [f"{field.name}.{f.name}" for f in field.type] if pa.types.is_struct(field.type) else []
        for column in inner or [field.name]:
            name = _ATTRIBUTES.get(column.rpartition(".")[2].lower())
            kind = field.type if not inner else field.type.field(column.removeprefix(f"{field.name}.")).type
            if name and kind_of(kind) == "text":
                attributes[column] = (name, None)
            elif name and pa.types.is_integer(kind):
                words = words_of(tables, column)
                if words is not None or name == "age":
                    attributes[column] = (name, words)
    return attributes


def _value(row: Mapping[str, Any], column: str, words: list[str] | None) -> str | None:
    outer = outer_of(column, row)
    inner = column[len(outer) + 1 :]
    value = (row[outer] or {}).get(inner) if inner else row[outer]
    if words is None or value is None:
        return str(value) if value not in (None, "") else None
    return words[value] if 0 <= value < len(words) else None


def _has(tables: Tables, column: str, inner: str) -> bool:
    return any(field.name == inner for field in tables.schema.field(column).type)
