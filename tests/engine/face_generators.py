"""A generator of edits for tests: the face with its colours turned by the label, in a frame of the row's seed."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthfer.generators import Faces, Failure, GeneratedImage, Picture
from synthfer.sample import Row
from synthfer.schema import option

PLAN = "edits"


@dataclass(frozen=True, kw_only=True)
class Config:
    """`fatal_row`: the plan index of a row that kills the process."""

    batch_size: int = option(16, "rows per call", low=1)
    most_code: float = option(10.0, "codes beyond it fail")
    fatal_row: int = option(-1, "index of a row that kills the process")


def build(config: Config) -> "Turned":
    return Turned(config)


class Turned:
    source_type = "compositeWithTrainedAlgorithmicMedia"

    def __init__(self, config: Config) -> None:
        self.config, self.batch_size = config, config.batch_size

    def make(self, rows: Sequence[Row], faces: Sequence[Faces] = ()) -> list[Picture]:
        if any(row.index == self.config.fatal_row for row in rows):
            os.kill(os.getpid(), signal.SIGKILL)
        return [self._turned(row, *theirs) for row, theirs in zip(rows, faces, strict=True)]

    def _turned(self, row: Row, face: np.ndarray) -> Picture:
        if row.code is None or max(row.code) > self.config.most_code:
            return Failure(f"code {row.code} is out of range")
        pixels = np.roll(face, row.label or 0, axis=2)
        pixels[0, :] = row.seed % 256
        return GeneratedImage(pixels, {"turned": float(row.label or 0)}, (1.0, 1.0, 20.0, 20.0), np.eye(2, 3))

    def producer(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "trained_on": ["affectnet:train"], "licence": "weights: none needed"}
