"""The spec of a dataset: what it is to hold and what makes it. Seeds, ids, shard names and counts follow from it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from synthfer.canonical import canonical_json, sha256
from synthfer.documents import parse
from synthfer.expressions import EXPRESSIONS
from synthfer.limits import MAX_ROWS
from synthfer.sample import SCHEMA_VERSION
from synthfer.schema import REQUIRED, option

DATA = "data/"
FORMATS = ("synthfer/1", "synthfer/2")
"""The versions of a dataset's files; they differ in what the hashes of rows cover (`shard.rows_hash`)."""
MAX_UNITS = 10**6
"""Units are listed and counted in the driver's memory, and each is an object in one folder."""
MAX_UNIT_ROWS = 10**6
"""The rows of a unit are held in memory, pictures included. Ten times what jobs take now: earlier ones had no bound."""
_SHOWN = 12
_LABEL_SPACE = {"schema": SCHEMA_VERSION, "expressions": list(EXPRESSIONS)}


class SpecMismatch(ValueError):
    """The dataset at a URI has another spec; the message shows the difference, key by key."""

    def __init__(self, uri: str, stored: "Spec", requested: "Spec") -> None:
        lines = list(difference(stored.to_json(), requested.to_json()))
        more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        super().__init__(
            f"the dataset at {uri} has another spec. Choose another URI, or the settings that it was made with:\n  "
            + "\n  ".join(lines[:_SHOWN])
            + more
        )


@dataclass(frozen=True, kw_only=True)
class _SpecDocument:
    """The spec as it stands in `_dataset.json`."""

    schema: int = option(REQUIRED, "the version of the rows' columns")
    expressions: list[str] = option(REQUIRED, "the label space")
    plan: dict[str, Any] = option(REQUIRED, "what to make")
    producer: dict[str, Any] = option(REQUIRED, "what makes it")
    image: dict[str, Any] = option(REQUIRED, "how images are encoded")
    rows: int = option(REQUIRED, "rows of the plan", low=1)
    unit_size: int = option(REQUIRED, "rows of a unit", low=1)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a dataset is made from; all of it is JSON, and all of it is hashed.

    `plan`: what to make, fully resolved. `producer`: what makes it, the weights' sha256 included. `image`: how images
    are encoded. `rows`: the length of the plan, which is cut into units of `unit_size` rows (the last may be shorter).
    `format` is the version of the dataset's files, one of `FORMATS`. It is not part of the spec, so that a dataset of
    an earlier version is resumed with its own.
    """

    plan: dict[str, Any]
    producer: dict[str, Any]
    image: dict[str, Any]
    rows: int
    unit_size: int
    format: str = field(default=FORMATS[-1], compare=False)

    def __post_init__(self) -> None:
        if self.rows < 1 or self.unit_size < 1:
            raise ValueError(
                f"a dataset needs rows and a unit size of at least 1, not {self.rows} and {self.unit_size}"
            )
        if self.rows > MAX_ROWS or self.unit_size > MAX_UNIT_ROWS:
            raise ValueError(
                f"{self.rows:,} rows in units of {self.unit_size:,} are more than a dataset may have: at most "
                f"{MAX_ROWS:,} rows in units of at most {MAX_UNIT_ROWS:,}. Make several datasets, or give unit_size"
            )
        if self.units > MAX_UNITS:
            least = -(-self.rows // MAX_UNITS)
            raise ValueError(
                f"{self.rows:,} rows in units of {self.unit_size:,} are {self.units:,} units, more than the "
                f"{MAX_UNITS:,} of a dataset: give unit_size, {least:,} or more"
            )
        canonical_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The spec as it stands in `_dataset.json` and is hashed; the label space is part of it."""
        own = {name: getattr(self, name) for name in ("plan", "producer", "image", "rows", "unit_size")}
        return {**_LABEL_SPACE, **own}

    @classmethod
    def from_json(cls, value: dict[str, Any], form: str = FORMATS[-1]) -> "Spec":
        """The inverse of `to_json`; `ValueError` if it is no spec, or the label space or the schema is another."""
        for name, ours in _LABEL_SPACE.items():
            if name in value and value[name] != ours:
                raise ValueError(
                    f"the dataset has {name} {_short(value[name])}, this version of synthfer needs {ours!r}: read it "
                    "with the version that made it (`created_by` in _dataset.json), or make it again"
                )
        own = parse(value, "spec", _SpecDocument)
        return cls(**{name: getattr(own, name) for name in value if name not in _LABEL_SPACE}, format=form)

    @cached_property
    def sha256(self) -> str:
        """Hex sha256 of the canonical JSON."""
        return sha256(self.to_json())

    @cached_property
    def producer_id(self) -> str:
        """16 hex digits that identify the producer in every row."""
        return sha256(self.producer)[:16]

    @property
    def units(self) -> int:
        """Number of units, which is also that of shards and of commits."""
        return -(-self.rows // self.unit_size)

    def unit_rows(self, unit: int) -> range:
        """The plan rows of a unit; `ValueError` if there is no such unit."""
        if not 0 <= unit < self.units:
            raise ValueError(f"there is no unit {unit}: the dataset has units 0 to {self.units - 1}")
        return range(unit * self.unit_size, min((unit + 1) * self.unit_size, self.rows))

    def key(self, unit: int) -> str:
        """The key of a unit's shard, in the form that Hugging Face `load_dataset` recognises as a split."""
        width = max(5, len(str(self.units)))
        return f"{DATA}train-{unit:0{width}d}-of-{self.units:0{width}d}.parquet"

    def unit_of(self, key: str) -> int | None:
        """The unit whose shard has this key, None for any other key."""
        match = self._key_pattern.fullmatch(key)
        return int(match[1]) if match and int(match[1]) < self.units else None

    @cached_property
    def _key_pattern(self) -> re.Pattern[str]:
        head, tail = self.key(0).split("-of-")
        digits = len(head) - len(f"{DATA}train-")
        return re.compile(rf"{DATA}train-(\d{{{digits}}})-of-{re.escape(tail)}")


def difference(stored: Any, requested: Any, path: str = "") -> Iterator[str]:
    """One line per key whose value differs between two JSON values."""
    if isinstance(stored, dict) and isinstance(requested, dict):
        for key in sorted(stored.keys() | requested.keys()):
            yield from difference(stored.get(key), requested.get(key), f"{path}.{key}" if path else key)
    elif stored != requested:
        yield f"{path}: {_short(stored)} in the dataset, {_short(requested)} requested"


def _short(value: Any) -> str:
    text = "nothing" if value is None else canonical_json(value).decode()
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
