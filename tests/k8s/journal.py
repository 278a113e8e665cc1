"""A simulated generator that keeps a journal: in which pod and when each unit was started.

It proves that no work is repeated: no unit is started after it was committed.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthfer.generators import Picture, simulated
from synthfer.sample import Row
from synthfer.schema import REQUIRED, option
from synthfer.store import Dataset


@dataclass(frozen=True, kw_only=True)
class Config(simulated.Config):
    """Beside the options of the simulated device: the journal's file."""

    journal: str = option(REQUIRED, "the file")


class Journaled(simulated.Simulated):
    def make(self, rows: Sequence[Row], faces: Sequence[Any] = ()) -> list[Picture]:
        entry = {"time": time.time(), "pod": os.environ.get("RAY_CLOUD_INSTANCE_ID"), "row": rows[0].index}
        with Path(self.config.journal).open("a") as journal:  # one write, to the end: no two are mixed
            journal.write(json.dumps(entry) + "\n")
        return super().make(rows, faces)


def build(config: Config) -> Journaled:
    return Journaled(config)


@dataclass(frozen=True)
class UnitStart:
    """A unit that was started: seconds since the epoch, and the pod's name."""

    unit: int
    time: float
    pod: str


def unit_starts(journal: Path, unit_size: int) -> list[UnitStart]:
    """All starts that a journal holds."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    entries = [json.loads(line) for line in lines]
    return [
        UnitStart(entry["row"] // unit_size, entry["time"], entry["pod"])
        for entry in entries
        if entry["row"] % unit_size == 0
    ]


def committed(dataset: Dataset, client: Any = None) -> dict[int, float]:
    """When each unit's shard was there at the latest. S3 tells whole seconds only; `client` is S3's."""
    return {unit: _written(dataset, unit, client) for unit in range(dataset.spec.units) if dataset.is_committed(unit)}


def _written(dataset: Dataset, unit: int, client: Any) -> float:
    key = dataset.spec.key(unit)
    if client is None:
        return (Path(dataset.uri) / key).stat().st_ctime
    bucket, _, prefix = dataset.uri.removeprefix("s3://").partition("/")
    head = client.head_object(Bucket=bucket, Key=f"{prefix}/{key}")
    return float(head["LastModified"].timestamp()) + 1


def repeated(starts: Sequence[UnitStart], there: Mapping[int, float]) -> Iterator[UnitStart]:
    """The starts of units whose shard was already there."""
    return (one for one in starts if one.time > there.get(one.unit, float("inf")))
