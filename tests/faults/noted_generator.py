"""The simulated generator, which notes in a file when and on which node each of its batches begins."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from synthfer.config import REQUIRED, option
from synthfer.engine import preemption
from synthfer.generators import Picture, simulated
from synthfer.sample import Row


@dataclass(frozen=True, kw_only=True)
class Config(simulated.Config):
    """`deaf`: the worker does not hear that its node is about to leave."""

    notes: str = option(REQUIRED, "the file")
    deaf: bool = option(False, "hears of no drain")


class Noted(simulated.Simulated):
    def make(self, rows: Sequence[Row]) -> list[Picture]:
        node = ray.get_runtime_context().get_node_id()
        with Path(self.config.notes).open("a") as notes:
            notes.write(json.dumps({"time": time.time(), "node": node, "first": rows[0].index}) + "\n")
        return super().make(rows)


def build(config: Config) -> Noted:
    if config.deaf:
        preemption.POLL_SECONDS = 10**6
    return Noted(config)
