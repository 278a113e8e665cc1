"""The validation pictures of a run as a task reads them: as they are, in batches, shared between the ranks or not."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from synthfer.sample import seed_of
from synthfer.tensors import to_floats
from synthfer.training.batch_rng import BatchRng
from synthfer.training.tasks import Batch, MeasureBatch
from synthfer.training.training_batches import TrainingBatches
from synthfer.training.world import World

_AT_ONCE = 64
_MOST = 512  # pictures that means are taken over
_SHOWN = 8  # pictures of a grid


@dataclass(frozen=True)
class ValidationBatches:
    """Pictures without augmentation. `signed`: as float32 in [-1, 1] rather than uint8. `seed` is that of the run."""

    data: TrainingBatches
    world: World
    seed: int
    signed: bool

    def shared(self, size: int) -> Iterator[Batch]:
        """This rank's validation rows, at most `size` at once: the ranks together see every row once."""
        return self.of(self.data.validation[self.world.rank :: self.world.size], size)

    def means(self, measure: MeasureBatch) -> dict[str, float]:
        """The means of `measure`'s numbers over at most 512 rows, spread evenly: the first rank's, on all ranks."""
        return self.world.broadcast(self._means(measure) if self.world.rank == 0 else {})

    def grid(self) -> tuple[Batch, BatchRng]:
        """A few pictures to look at, the same ones at every validation, with their random numbers."""
        (batch,) = self.of(_spread(self.data.validation, _SHOWN))
        return batch, self._rng("grid", 0, batch)

    def of(self, rows: np.ndarray, size: int = _AT_ONCE) -> Iterator[Batch]:
        """The pictures of some rows in order, at most `size` at once."""
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            pixels = self.data.images(some, self.world.device)
            labels = torch.from_numpy(self.data.labels[some]).to(self.world.device)
            yield Batch(signed(pixels) if self.signed else pixels, labels)

    def _means(self, measure: MeasureBatch) -> dict[str, float]:
        rows, sums = _spread(self.data.validation, _MOST), defaultdict[str, float](float)
        for number, batch in enumerate(self.of(rows)):
            for name, value in measure(batch, self._rng("validation", number, batch)).items():
                sums[name] += value * len(batch.labels)
        return {name: value / len(rows) for name, value in sums.items()}

    def _rng(self, purpose: str, number: int, batch: Batch) -> BatchRng:
        """Random numbers of one rank alone, the same ones at every validation."""
        return BatchRng(seed_of(self.seed, purpose, number), len(batch.labels), World(device=self.world.device))


def signed(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels, uint8 0..255 or float32 0..1, as float32 in [-1, 1]."""
    return to_floats(pixels) if pixels.dtype == torch.uint8 else pixels * 2 - 1


def _spread(rows: np.ndarray, most: int) -> np.ndarray:
    """All of `rows`, or `most` of them, evenly."""
    places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)
    chosen: np.ndarray = rows[places]
    return chosen
