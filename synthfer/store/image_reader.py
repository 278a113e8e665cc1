"""The image files of samples here and there in some datasets; shards that were read stay in memory while there is room.

A unit of edits reads few shards, over and over; one of variations may want rows of many.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from synthfer.store.dataset import Dataset

_MOST_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class SampleRef:
    """Where a sample stands: which of the datasets, its unit, and the row in it; its id, by which it is known."""

    dataset: int
    unit: int
    row: int
    sample_id: str


class ImageReader:
    """Reads image files by their places. Safe for threads; holds about `most_bytes` of shards, and one at least."""

    def __init__(self, uris: Sequence[str], most_bytes: int = _MOST_BYTES) -> None:
        self._uris, self._most = tuple(uris), most_bytes
        self._datasets: dict[int, Dataset] = {}
        self._shards: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, places: Iterable[SampleRef]) -> dict[SampleRef, bytes | None]:
        """The file at each place, None where that sample has no picture; each shard is read once.

        `ValueError` where another sample stands there, `DamagedShard` where a shard is not what was committed.
        """
        found: dict[SampleRef, bytes | None] = {}
        with self._lock:
            for place in sorted(set(places), key=lambda place: (place.dataset, place.unit, place.row)):
                shard = self._shard(place.dataset, place.unit)
                if place.row >= len(shard) or shard["sample_id"][place.row].as_py() != place.sample_id:
                    raise ValueError(
                        f"{self._uris[place.dataset]} holds other samples than when the plan was made (unit "
                        f"{place.unit}, row {place.row}): put back the dataset that it was made of, or begin a new one"
                    )
                found[place] = shard["bytes"][place.row].as_py()
        return found

    def _shard(self, number: int, unit: int) -> pa.Table:
        """Ids and files of a unit; the one that was used longest ago makes room."""
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
            while len(self._shards) > 1 and sum(shard.nbytes for shard in self._shards.values()) > self._most:
                self._shards.popitem(last=False)
        self._shards.move_to_end(key)
        return self._shards[key]
