"""Where samples live: objects in a folder or an S3 bucket, the commit protocol, datasets, views of them."""

from synthfer.store.dataset import (
    DamagedShard,
    Dataset,
    Finding,
    Incomplete,
    Manifest,
    Receipt,
    Spec,
    SpecMismatch,
)
from synthfer.store.objects import ObjectStore, Stat, StoreUnavailable, open_store
from synthfer.store.shard import Counts
from synthfer.store.view import View

__all__ = [
    "Counts",
    "DamagedShard",
    "Dataset",
    "Finding",
    "Incomplete",
    "Manifest",
    "ObjectStore",
    "Receipt",
    "Spec",
    "SpecMismatch",
    "Stat",
    "StoreUnavailable",
    "View",
    "open_store",
]
