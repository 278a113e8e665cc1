"""One unit of an imported collection without Ray: its entries' pictures read, checked, cut to the face, as a table.

A file that is JPEG, PNG or WebP and needs no cut is kept byte for byte; what has no file of its own (grey values in
a CSV, drawings, crops) is written in the dataset's image format.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synthfer import images
from synthfer.engine.unit import Encoded
from synthfer.faces import FaceConfig, FaceCrop, FaceStep
from synthfer.generators import Failure
from synthfer.sample import SCHEMA
from synthfer.sources.collection_reader import CollectionReader
from synthfer.sources.entry import Entry
from synthfer.sources.index import sample_id

NO_FACE = "no face found"


@dataclass(frozen=True, slots=True)
class IngestedImage:
    """An entry's picture as it is stored, with what was seen on the way."""

    image: Encoded | Failure
    reason: str | None = None
    crop: FaceCrop | None = None


@dataclass(frozen=True, kw_only=True)
class SampleDefaults:
    """How a collection's pictures become samples."""

    source: str
    producer: str
    source_type: str
    face: FaceConfig
    image: images.ImageConfig
    real: bool
    """Whether its faces are of real persons."""


class SampleReader:
    """Reads entries below `root`; holds open files and, where faces are aligned, the detector."""

    def __init__(self, root: Path | None, terms: SampleDefaults) -> None:
        self.reader, self.terms = CollectionReader(root), terms
        self.step = FaceStep(terms.face)
        self.cuts_all = terms.face.align or terms.face.size is not None

    def table(self, entries: Sequence[Entry]) -> pa.Table:
        """The unit's samples (schema of `synthfer.sample`), one per entry in order."""
        records = [_record(entry, self.take(entry), self.terms) for entry in entries]
        columns = zip(*records, strict=True)
        arrays = [pa.array(column, schema.type) for column, schema in zip(columns, SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=SCHEMA)

    def take(self, entry: Entry) -> IngestedImage:
        """The entry's picture, or why there is none."""
        if entry.image is None:
            return IngestedImage(Failure(entry.reason or "no picture"))
        try:
            body = self.reader.read(entry.image)
            if isinstance(body, bytes):
                return self._file(body, images.decode(body), entry)
            return self._drawn(body, entry)
        except OSError as error:
            return IngestedImage(Failure(f"{entry.image.path}: {error.strerror or type(error).__name__}"))
        except ValueError as error:
            return IngestedImage(Failure(str(error)))

    def _file(self, body: bytes, pixels: np.ndarray, entry: Entry) -> IngestedImage:
        if entry.box is None and not self.cuts_all and images.form_of(body) in images.FORMATS:
            return IngestedImage(Encoded.of(body, pixels), entry.reason)
        return self._drawn(pixels, entry)

    def _drawn(self, pixels: np.ndarray, entry: Entry) -> IngestedImage:
        """Pixels that need a file: of a cut, of a drawing, or of a format that is not kept."""
        reason, crop = entry.reason, None
        if entry.box is not None or self.cuts_all:
            crop = self.step.apply(pixels, entry.box)
            if crop is None:
                reason = reason or NO_FACE
            else:
                pixels = crop.pixels
        data = images.encode(pixels, self.terms.image, self.terms.source_type)
        lossy = self.terms.image.format == "jpeg"
        return IngestedImage(Encoded.of(data, images.decode(data) if lossy else pixels), reason, crop)


def _record(entry: Entry, taken: IngestedImage, terms: SampleDefaults) -> tuple[Any, ...]:
    """The values of an entry's row, in the order of the schema."""
    own_id, image = sample_id(terms.source, entry), taken.image
    verdict: tuple[Any, ...]
    stored: tuple[Any, ...]
    if isinstance(image, Failure):
        verdict, stored = ("failed", image.reason), (None, None, None, None)
    else:
        verdict = ("rejected" if taken.reason else "accepted", taken.reason)
        file = {"bytes": image.data, "path": entry.key}
        stored = (image.width, image.height, image.pixels_hash, file)
    crop = taken.crop
    seen = {} if crop is None or crop.score is None else {"face": crop.score}
    scores = [{"gate": name, "value": value} for name, value in {**entry.scores, **seen}.items()]
    cut = (None, None) if crop is None else (crop.box, crop.matrix.ravel())
    lineage = (entry.split, terms.source, entry.source_id or own_id, None, None, None, terms.real)
    no_recipe = (None, None, None, None, None)
    return (
        *(own_id, entry.label, entry.label_probs, *lineage, dict(entry.attributes), *no_recipe),
        *(terms.producer, *verdict, scores, *cut, *stored),
    )
