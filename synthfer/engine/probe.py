"""A look at the generator before the job: what it is, how fast, how large its pictures; and units cut to fit."""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from synthfer.engine import generation_worker
from synthfer.engine.generation_worker import WorkerSpec
from synthfer.engine.unit import Encoded, Files, make_unit
from synthfer.gates.edits import EditGate
from synthfer.generators import Failure, OutOfMemory
from synthfer.sample import Row

# Below the notice that a spot node gets (30 s to 2 min), so that a unit in hand can still be finished.
UNIT_SECONDS = 20.0
UNIT_BYTES = 256e6
# Units per worker at least, so that the last ones to finish do not leave the others idle for long.
UNITS_PER_WORKER = 4


@dataclass(frozen=True)
class Probe:
    """What a generator is and does on one worker; speed and size are None where nothing was measured."""

    producer: dict[str, Any]
    batch_size: int
    images_per_s: float | None = None
    image_bytes: float | None = None

    def estimate(self, rows: int, workers: int, gpus_per_worker: float) -> dict[str, float]:
        """Seconds, bytes and GPU-hours for `rows` images; needs a measured probe."""
        if not self.images_per_s or not self.image_bytes:
            raise ValueError("nothing was measured")
        seconds = rows / self.images_per_s
        return {
            "images": rows,
            "images_per_s_per_worker": round(self.images_per_s, 3),
            "seconds": round(seconds / workers, 1),
            "bytes": round(rows * self.image_bytes),
            "gpu_hours": round(seconds * gpus_per_worker / 3600, 4),
        }


def look(recipe: WorkerSpec, rows: Sequence[Row], files: Sequence[Files], seconds: float) -> Probe:
    """Builds the generator and makes the first batch of `rows`, again and again for `seconds`, once to warm up.

    `files` are those of the rows' faces, if they have any. Without rows only the producer is read. A device out of
    memory is given half of the batch, once.
    """
    generator, gate = generation_worker.build(recipe), EditGate(recipe.gate) if recipe.gate else None
    producer = generation_worker.producer_of(recipe, generator, gate)
    if not rows:
        return Probe(producer, generator.batch_size)
    with ThreadPoolExecutor(recipe.encoder_threads) as encoders:

        def make() -> list[Encoded | Failure]:
            size = generator.batch_size
            futures = make_unit(generator, rows[:size], recipe.image, encoders, files[:size], gate)
            return [future.result() for future in futures]

        try:
            make()
        except OutOfMemory:
            half = generator.batch_size // 2
            if not half:
                raise
            del generator
            generator = generation_worker.build(recipe, half)
            make()
        made, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds or not made:
            results = make()
            made += len(results)
        speed = made / (time.perf_counter() - start)
    sizes = [len(result.data) for result in results if isinstance(result, Encoded)]
    return Probe(producer, generator.batch_size, speed, sum(sizes) / len(sizes) if sizes else None)


def unit_size(probe: Probe, rows: int, workers: int) -> int:
    """Rows per unit: at most `UNIT_SECONDS` of one worker and `UNIT_BYTES`, and several units for each worker."""
    assert probe.images_per_s
    limits = [
        UNIT_SECONDS * probe.images_per_s,
        UNIT_BYTES / (probe.image_bytes or 1.0),
        rows / (UNITS_PER_WORKER * workers),
    ]
    batches = max(1, math.floor(min(limits) / probe.batch_size))
    return min(rows, batches * probe.batch_size)
