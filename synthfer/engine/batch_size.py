"""The batch size of a dataset once a device was too small for the one that the config asks for.

A picture's bits may depend on the batch size, so all workers of a dataset use one. The first worker that runs out of
memory records half of it in the dataset, once; the others follow.
"""

from dataclasses import dataclass

from synthfer.canonical import canonical_json
from synthfer.documents import read_json
from synthfer.generators import OutOfMemory
from synthfer.limits import MAX_BATCH
from synthfer.schema import REQUIRED, option
from synthfer.store import ObjectStore
from synthfer.store.objects import read_object

BATCH_SIZE_KEY = "_shape.json"
_MAX_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """What `_shape.json` holds."""

    batch_size: int = option(REQUIRED, "rows per batch on every device", low=1, high=MAX_BATCH)
    asked: int = option(REQUIRED, "what the config asked for", low=1, high=MAX_BATCH)

    def __post_init__(self) -> None:
        if self.batch_size > self.asked:
            raise ValueError(f"batch_size: {self.batch_size} is more than the {self.asked} that were asked for")


def recorded_batch_size(store: ObjectStore) -> int | None:
    """The batch size that is recorded for the whole dataset, or None; `ValueError` if the record is damaged."""
    try:
        body = read_object(store, BATCH_SIZE_KEY, _MAX_BYTES)
        return read_json(body, f"{store.uri}/{BATCH_SIZE_KEY}", _Shape).batch_size
    except FileNotFoundError:
        return None


def halve_batch_size(store: ObjectStore, batch_size: int) -> int:
    """Records half of `batch_size` for the dataset, once; `OutOfMemory` where that was done before or it is 1."""
    recorded = recorded_batch_size(store)
    if recorded and recorded < batch_size:
        return recorded  # another worker recorded it first
    if batch_size == 1 or recorded:
        raise OutOfMemory(
            f"out of memory at batch size {batch_size}, which is as small as this dataset may go: use a larger "
            "device or smaller pictures, or start a new dataset with a smaller generator.batch_size"
        )
    return record_batch_size(store, batch_size // 2, batch_size)


def record_batch_size(store: ObjectStore, batch_size: int, requested: int) -> int:
    """Records the batch size for the whole dataset and returns the recorded one: another worker may have been first."""
    store.put_new(BATCH_SIZE_KEY, canonical_json({"batch_size": batch_size, "asked": requested}))
    return recorded_batch_size(store) or batch_size
