"""The simulated generator, which records in a file when and on which node each of its batches starts."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from synthfer.engine import preemption
from synthfer.generators import Picture, simulated
from synthfer.sample import Row
from synthfer.schema import REQUIRED, option


@dataclass(frozen=True, kw_only=True)
class Config(simulated.Config):
    """Beside the options of the simulated device: the file of records, and whether drains are ignored."""

    records: str = option(REQUIRED, "the file")
    ignore_drain: bool = option(False, "the worker does not notice that its node is about to be taken away")


class Recording(simulated.Simulated):
    def make(self, rows: Sequence[Row]) -> list[Picture]:
        node = ray.get_runtime_context().get_node_id()
        with Path(self.config.records).open("a") as records:
            records.write(json.dumps({"time": time.time(), "node": node, "first": rows[0].index}) + "\n")
        return super().make(rows)


def build(config: Config) -> Recording:
    if config.ignore_drain:
        preemption.POLL_SECONDS = 10**6
    return Recording(config)
