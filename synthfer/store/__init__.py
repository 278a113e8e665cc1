"""Where samples are stored: objects in a folder or an S3 bucket, datasets and their commit protocol, views.

How a dataset is written, and what a kill at any moment leaves, is explained in `synthfer.store.dataset`.
"""

from synthfer.store.backends import open_output, open_store
from synthfer.store.dataset import Dataset
from synthfer.store.manifest import Manifest
from synthfer.store.objects import ObjectStore, Stat, StoreUnavailable
from synthfer.store.sealing import Incomplete
from synthfer.store.shard import Counts, DamagedShard, Receipt
from synthfer.store.spec import Spec, SpecMismatch
from synthfer.store.verify import Finding
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
    "open_output",
    "open_store",
]
