"""A simulated device: it sleeps for a given time per call and returns pictures of seeded noise.

It serves to measure the engine's own cost, and to try a plan, a store and a cluster without weights.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthfer.generators import Faces, Failure, Picture
from synthfer.limits import MAX_BATCH, MAX_BATCH_BYTES, MAX_SIDE, MAX_WAIT_S, check_memory
from synthfer.sample import Row
from synthfer.schema import option


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of the simulated device."""

    batch_size: int = option(16, "rows per call", low=1, high=MAX_BATCH)
    seconds_per_batch: float = option(0.1, "service time of one call, in seconds", low=0, high=MAX_WAIT_S)
    height: int = option(64, "picture height in pixels", low=1, high=MAX_SIDE)
    width: int = option(64, "picture width in pixels", low=1, high=MAX_SIDE)
    failed_share: float = option(0.0, "share of rows that fail, chosen by their seeds", low=0, high=1)

    def __post_init__(self) -> None:
        size = 3 * self.batch_size * self.height * self.width
        check_memory("a batch of pictures", size, "lower batch_size, height or width", MAX_BATCH_BYTES)


def build(config: Config) -> "Simulated":
    """The simulated device; ready at once."""
    return Simulated(config)


class Simulated:
    """Seeded noise after a fixed time: a picture is a function of the row's seed alone."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.batch_size = config.batch_size

    def make(self, rows: Sequence[Row], faces: Sequence[Faces] = ()) -> list[Picture]:
        """One picture (uint8, height x width x 3) per row, or a failure for the configured share of seeds."""
        time.sleep(self.config.seconds_per_batch)
        return [self._picture(row) for row in rows]

    def _picture(self, row: Row) -> Picture:
        noise = np.random.default_rng(row.seed)
        if noise.random() < self.config.failed_share:
            return Failure("simulated failure")
        coarse = noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        rows, columns = (np.arange(n) * 8 // n for n in (self.config.height, self.config.width))
        return coarse[np.ix_(rows, columns)]

    def producer(self) -> dict[str, Any]:
        """The device's size and failures; its service time changes no picture and is left out."""
        config = self.config
        return {"height": config.height, "width": config.width, "failed_share": config.failed_share}
