"""The sample: one face image with its label and its whole provenance, and the plan row that it is made from.

One schema serves real, generated, edited and pseudo-labelled faces. The image column is last, so that a scan of the
other columns does not read images; with the `huggingface` metadata `datasets.load_dataset("parquet")` shows images and
class names.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from synthfer.canonical import canonical_json
from synthfer.expressions import EXPRESSIONS

SCHEMA_VERSION = 3
ATTRIBUTES = ("gender", "age", "race", "pose", "cue", "trait", "intensity", "emotion")
"""`emotion` is a collection's own word for what a face shows, where it is not one of the seven expressions."""
SPLITS = ("train", "val", "test")
DECISIONS = ("accepted", "rejected", "failed")
LINEAGE = ("source_id", "parent_id", "partner_source_id", "partner_id")
"""What a sample descends from: its original and the sample that it was made from, and both of a second parent."""

# Fields of `Row` that were added with edits and variations of faces.
_FACE_FIELDS = ("operation", "partner_id", "partner_source_id", "real")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a plan: a cell (label and attributes), how the image is made, and a seed.

    `label` is an expression index 0..6, or None if the row has none, and `seed` an integer in [0, 2**63). `source_id`
    names the original that the row descends from; if it is None, the sample is an original. What is made from faces has
    an `operation` with its numbers in `code`; `parent_id` is the face, `partner_id` and `partner_source_id` are sample
    and original of a second face. `real` says that a real person's face is used. `faces` are the indices of these faces
    in the plan's table of faces; the ids identify the same faces.
    """

    index: int
    label: int | None
    seed: int
    attributes: Mapping[str, str] = field(default_factory=dict)
    prompt: str | None = None
    negative_prompt: str | None = None
    code: tuple[float, ...] | None = None
    parent_id: str | None = None
    source_id: str | None = None
    split: str = "train"
    operation: str | None = None
    partner_id: str | None = None
    partner_source_id: str | None = None
    real: bool = False
    faces: tuple[int, ...] = ()

    @property
    def sample_id(self) -> str:
        """blake2b-128 hex of the canonical row: 32 characters.

        Left out are `faces`, which say nothing that the ids do not, and the fields for faces in rows that use none:
        such rows keep the ids that they had before these fields existed.
        """
        fields = asdict(self)
        for name in ("faces", *(name for name in _FACE_FIELDS if not fields[name])):
            del fields[name]
        return hashlib.blake2b(canonical_json(fields), digest_size=16).hexdigest()


def seed_of(plan_seed: int, *parts: int | str) -> int:
    """A seed in [0, 2**63) from a keyed hash: the same for the same parts on any machine, in any order of work."""
    key = plan_seed.to_bytes(16, "little", signed=True)
    digest = hashlib.blake2b(canonical_json(parts), key=key, digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def imported_sample_id(source: str, split: str, key: str) -> str:
    """The id of a sample that is imported, not generated: blake2b-128 hex of collection, split and key within it."""
    return hashlib.blake2b(canonical_json([source, split, key]), digest_size=16).hexdigest()


def pixels_hash(pixels: np.ndarray) -> str:
    """blake2b-128 hex of a decoded image (uint8, H x W x 3) and its shape: equal only for equal pixels."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}


# Column name -> (Arrow type, Hugging Face feature). Scalars first, image last.
_COLUMNS: dict[str, tuple[pa.DataType, Any]] = {
    "sample_id": (pa.string(), _value("string")),
    "label": (pa.int64(), {"names": list(EXPRESSIONS), "_type": "ClassLabel"}),
    "label_probs": (pa.list_(pa.float32()), {"feature": _value("float32"), "_type": "List"}),
    "split": (pa.string(), _value("string")),
    "source": (pa.string(), _value("string")),
    "source_id": (pa.string(), _value("string")),
    "parent_id": (pa.string(), _value("string")),
    "partner_id": (pa.string(), _value("string")),
    "partner_source_id": (pa.string(), _value("string")),
    "derived_from_real_identity": (pa.bool_(), _value("bool")),
    "attributes": (
        pa.struct([(name, pa.string()) for name in ATTRIBUTES]),
        {name: _value("string") for name in ATTRIBUTES},
    ),
    "prompt": (pa.string(), _value("string")),
    "negative_prompt": (pa.string(), _value("string")),
    "operation": (pa.string(), _value("string")),
    "code": (pa.list_(pa.float32()), {"feature": _value("float32"), "_type": "List"}),
    "seed": (pa.int64(), _value("int64")),
    "producer": (pa.string(), _value("string")),
    "decision": (pa.string(), _value("string")),
    "reason": (pa.string(), _value("string")),
    "scores": (
        pa.list_(pa.struct([("gate", pa.string()), ("value", pa.float64())])),
        {"feature": {"gate": _value("string"), "value": _value("float64")}, "_type": "List"},
    ),
    "box": (pa.list_(pa.float32()), {"feature": _value("float32"), "_type": "List"}),
    "matrix": (pa.list_(pa.float64()), {"feature": _value("float64"), "_type": "List"}),
    "width": (pa.int32(), _value("int32")),
    "height": (pa.int32(), _value("int32")),
    "pixels_hash": (pa.string(), _value("string")),
    "image": (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"}),
}

SCHEMA = pa.schema(
    [(name, arrow) for name, (arrow, _) in _COLUMNS.items()],
    metadata={
        "huggingface": json.dumps({"info": {"features": {name: hf for name, (_, hf) in _COLUMNS.items()}}}),
        "synthfer.schema": str(SCHEMA_VERSION),
    },
)
METADATA_COLUMNS = tuple(name for name in _COLUMNS if name != "image")
