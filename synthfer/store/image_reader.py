"""Random access to the images of samples in some datasets; shards that were read stay in memory while there is room.

A unit of edits reads few shards, over and over; a unit of variations may need rows of many.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from synthfer.store.dataset import Dataset

_MAX_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class SampleRef:
    """Where a sample is stored: index of the dataset, unit, row in the unit; and its id, to check that it is there."""

    dataset: int
    unit: int
    row: int
    sample_id: str


class ImageReader:
    """Reads image files by `SampleRef`. Safe for threads; caches about `max_bytes` of shards, and at least one."""

    def __init__(self, uris: Sequence[str], max_bytes: int = _MAX_BYTES) -> None:
        self._uris, self._max_bytes = tuple(uris), max_bytes
        self._datasets: dict[int, Dataset] = {}
        self._shards: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, refs: Iterable[SampleRef]) -> dict[SampleRef, bytes | None]:
        """The image file of each sample, None if the sample has no image; each shard is read once.

        `ValueError` if another sample is stored there, `DamagedShard` if a shard is not what was committed.
        """
        images: dict[SampleRef, bytes | None] = {}
        with self._lock:
            for ref in sorted(set(refs), key=lambda ref: (ref.dataset, ref.unit, ref.row)):
                shard = self._shard(ref.dataset, ref.unit)
                if ref.row >= len(shard) or shard["sample_id"][ref.row].as_py() != ref.sample_id:
                    raise ValueError(
                        f"{self._uris[ref.dataset]} holds other samples than when the plan was made (unit {ref.unit}, "
                        f"row {ref.row}): put back the dataset that the plan was made from, or start a new one"
                    )
                images[ref] = shard["bytes"][ref.row].as_py()
        return images

    def _shard(self, number: int, unit: int) -> pa.Table:
        """Ids and image files of a unit; the least recently used one makes room."""
        key = (number, unit)
        if key not in self._shards:
            if number not in self._datasets:
                self._datasets[number] = Dataset(self._uris[number])
            batches = list(self._datasets[number].scan(["sample_id", "image"], units=[unit]))
            files = [pc.struct_field(batch["image"], "bytes") for batch in batches]
            self._shards[key] = pa.table(
                {
                    "sample_id": pa.chunked_array([batch["sample_id"] for batch in batches], pa.string()),
                    "bytes": pa.chunked_array(files, pa.binary()),
                }
            )
            while len(self._shards) > 1 and sum(shard.nbytes for shard in self._shards.values()) > self._max_bytes:
                self._shards.popitem(last=False)
        self._shards.move_to_end(key)
        return self._shards[key]
