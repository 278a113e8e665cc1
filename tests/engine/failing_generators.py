"""Generators that fail as devices do; tests name them by their dotted module name."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from synthfer.generators import OutOfMemory, Picture, simulated
from synthfer.sample import Row
from synthfer.schema import option


@dataclass(frozen=True, kw_only=True)
class Config:
    """`room`: rows that the device holds; `fatal_row`: the plan index of a row that kills the process."""

    batch_size: int = option(16, "rows per call", low=1)
    room: int = option(10**9, "rows that fit into the device's memory")
    fatal_row: int = option(-1, "index of a row that kills the process")
    broken: bool = option(False, "every call raises")


def build(config: Config) -> "Failing":
    return Failing(config)


class Failing:
    def __init__(self, config: Config) -> None:
        self.config, self.batch_size = config, config.batch_size
        self.inner = simulated.build(simulated.Config(batch_size=config.batch_size, seconds_per_batch=0.01))

    def make(self, rows: Sequence[Row]) -> list[Picture]:
        if self.batch_size > self.config.room:
            raise OutOfMemory(f"{self.batch_size} rows do not fit")
        if any(row.index == self.config.fatal_row for row in rows):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config.broken:
            raise RuntimeError("the device is gone")
        return self.inner.make(rows)

    def producer(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size}
