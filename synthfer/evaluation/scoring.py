"""Runs classifiers over the pictures of a test set: each picture is decoded once for all of them.

The batches of a part depend on the part alone, so every worker computes the same numbers for it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from synthfer import images
from synthfer.classifiers.network import Classifier
from synthfer.evaluation.inputs import VARIANTS
from synthfer.sample import LINEAGE, SCHEMA
from synthfer.store import Dataset
from synthfer.store.dataset_ref import UnitRange
from synthfer.store.view import View

FACTS = ("sample_id", "label", "source", "split", *LINEAGE, "pixels_hash", "attributes")
"""The columns of a test row besides its picture."""

_OPEN = 8  # datasets, and views, that stay open: the parts of one follow each other

_CHANGES = dict(zip(VARIANTS, (lambda pixels: pixels, images.grey48), strict=True))


@dataclass(frozen=True)
class Scored:
    """A part's labelled rows: `facts` with the columns `FACTS`; `probs` float32 (n, K) by (classifier, variant)."""

    facts: pa.Table
    probs: Mapping[tuple[str, str], np.ndarray]


class Scorer:
    """Classifiers on a device, in eval mode. Datasets that it reads must not change meanwhile."""

    def __init__(
        self, models: Mapping[str, Classifier], variants: Sequence[str], batch: int, device: torch.device
    ) -> None:
        self.models = {name: model.to(device).eval() for name, model in models.items()}
        self.sizes = sorted({model.input.size for model in models.values()})
        self.variants, self.batch, self.device = tuple(variants), batch, device
        self._dataset, self._view = lru_cache(_OPEN)(Dataset), lru_cache(_OPEN)(View)

    def score(self, part: UnitRange, splits: Sequence[str]) -> Scored:
        """Every classifier's predictions for the labelled rows of a part; `ValueError` names an unreadable picture."""
        facts, batches = [], {(name, variant): list[np.ndarray]() for name in self.models for variant in self.variants}
        for table in self._batches(part, splits):
            facts.append(table.select(FACTS))
            rows = table.select(["sample_id", "image"]).to_pylist()
            pictures = [part.decode(row["sample_id"], row["image"]["bytes"]) for row in rows]
            for (name, variant), probs in self.predict(pictures):
                batches[name, variant].append(probs)
        schema = pa.schema([SCHEMA.field(name) for name in FACTS])
        if not facts:
            return Scored(schema.empty_table(), {})
        return Scored(pa.concat_tables(facts), {key: np.concatenate(parts) for key, parts in batches.items()})

    def _batches(self, part: UnitRange, splits: Sequence[str]) -> Iterator[pa.Table]:
        """The labelled rows with their pictures, `batch` at a time; batches of the files may have any length."""
        held: list[pa.Table] = []
        dataset, view = self._dataset(part.dataset), self._view(part.view) if part.view else None
        for record in part.batches_from(dataset, view, [*FACTS, "image"], splits):
            held.append(pa.table(record.filter(pc.is_valid(record["label"]))))
            while sum(table.num_rows for table in held) >= self.batch:
                joined = pa.concat_tables(held)
                yield joined[: self.batch]
                held = [joined[self.batch :]]
        if sum(table.num_rows for table in held):
            yield pa.concat_tables(held)

    @torch.inference_mode()
    def predict(self, pictures: Sequence[np.ndarray]) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
        """(classifier, variant) and probabilities float32 (n, K) of pictures, each uint8 (H, W, 3)."""
        for variant in self.variants:
            changed = [_CHANGES[variant](picture) for picture in pictures]
            tensors = {size: self._tensor(changed, size) for size in self.sizes}
            for name, model in self.models.items():
                logits = model(tensors[model.input.size]).logits
                yield (name, variant), logits.double().softmax(1).float().cpu().numpy()

    def _tensor(self, pictures: Sequence[np.ndarray], size: int) -> Tensor:
        squares = np.stack([images.square(picture, size) for picture in pictures])
        return torch.from_numpy(squares).permute(0, 3, 1, 2).to(self.device)
