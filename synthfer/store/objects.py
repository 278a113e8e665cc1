"""The one small interface below datasets: whole objects under keys, created once, never changed.

`put_new` is the only way to write. A key that exists is final: that an object exists is the commit, so
there is no rename, no marker and no log. Keys are relative to the store's URI, with `/` between their
parts.
"""

import io
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Literal, Protocol

import pyarrow as pa

Conditional = Literal["atomic", "advisory", "none"]
PROBE_PREFIX = "_probe-"
_RACES = (2, 2, 2, 2, 16)  # racers; some stores fail in a crowd, some when two are close together


@dataclass(frozen=True, slots=True)
class Stat:
    """Size in bytes; sha256 hex of the content where the store keeps it, else None."""

    size: int
    sha256: str | None


class ObjectStore(Protocol):
    """Objects under keys. An implementation is its URI: it pickles, and opens anew in any process."""

    uri: str

    def put_new(self, key: str, body: bytes | pa.Buffer) -> bool:
        """Create the object, whole or not at all. False: somebody else's object is there and stays."""
        ...

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes [start, end), whole or an error; `FileNotFoundError` if there is no such object.

        A negative `start` counts from the end and takes no `end`.
        """
        ...

    def stat(self, key: str) -> Stat | None:
        """What is under the key, or None."""
        ...

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Keys that start with `prefix` and their sizes, in no order that may be relied on."""
        ...

    def open(self, key: str, size: int | None = None) -> pa.NativeFile:
        """Random access for Parquet. `size`, where the caller knows it, saves a request."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object if it is there. For `gc`, `probe` and reports: datasets never delete."""
        ...

    def probe(self) -> Conditional:
        """What conditional create is worth here, found by trying; see `probe_conditional_create`."""
        ...

    def leftovers(self, min_age_s: float, delete: bool) -> Sequence[str]:
        """What killed or foreign writers left, unseen by readers, and older than `min_age_s` seconds."""
        ...


class StoreUnavailable(ConnectionError):
    """The store gave no good answer until the deadline. Running the same job again goes on."""


def open_store(uri: str) -> ObjectStore:
    """The store at a folder (path or file:///path) or an S3 prefix (s3://bucket/prefix), else `ValueError`."""
    from synthfer.store.local import LocalStore

    scheme, separator, _ = uri.partition("://")
    if not separator or scheme == "file":
        return LocalStore(uri)
    if scheme == "s3":
        from synthfer.store.s3 import S3Store  # boto3 takes long to import, and a folder needs none of it

        return S3Store(uri)
    raise ValueError(
        f"cannot store at {uri!r}: {scheme}:// is not known. Use a folder, file:///folder or "
        "s3://bucket/prefix (other clouds mostly speak S3: set AWS_ENDPOINT_URL_S3)."
    )


def replace_object(store: ObjectStore, key: str, body: bytes | pa.Buffer) -> None:
    """Put `body` in place of what may be there. For reports, which are made anew: data is never replaced."""
    if not store.put_new(key, body):
        store.delete(key)
        store.put_new(key, body)


def probe_conditional_create(create: Callable[[str, bytes], bool], delete: Callable[[str], None]) -> Conditional:
    """What `create(key, body) -> created?` is worth: `atomic`, `advisory` (a race has several winners) or
    `none`.

    Races on scratch keys show a store that checks and then acts; one late create shows a store that ignores
    the condition. 24 creates in all, seconds at most.
    """
    scratch = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
    keys = {f"{scratch}-{number}": racers for number, racers in enumerate(_RACES)}
    try:
        winners = [_race(create, key, racers) for key, racers in keys.items()]
        if create(f"{scratch}-0", b"late"):
            return "none"
        return "atomic" if set(winners) == {1} else "advisory"
    finally:
        for key in keys:
            delete(key)


def _race(create: Callable[[str, bytes], bool], key: str, racers: int) -> int:
    """How many of `racers` threads that start together say that they created `key`."""
    start = Barrier(racers)

    def racer(number: int) -> bool:
        start.wait()
        return create(key, b"racer %d" % number)

    with ThreadPoolExecutor(racers) as pool:
        return sum(pool.map(racer, range(racers)))


class RangeReader(io.RawIOBase):
    """A seekable reader over `get` with ranges; the bytes of a range come whole or the read fails."""

    def __init__(self, get: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._get, self._size, self._at = get, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        body = self._get(self._at, end) if end > self._at else b""
        self._at += len(body)
        return body


def is_older_than(min_age_s: float, written_at: float) -> bool:
    """Whether a time stamp (seconds since the epoch) is at least `min_age_s` ago. Only `gc` asks a clock."""
    return time.time() - written_at >= min_age_s
