"""The interface that datasets are built on: whole objects under keys, each created once and never changed.

`put_new` is the only way to write. An object that exists is final, so that its existence is the commit: there is no
rename, no marker file and no log (`synthfer.store.dataset` explains the protocol). Keys are relative to the store's
URI, with `/` between their parts.
"""

import io
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from typing import Literal, Protocol

import pyarrow as pa

ConditionalCreate = Literal["atomic", "advisory", "none"]
"""What "create only if absent" is worth in a store; see `probe_conditional_create`."""
PROBE_PREFIX = "_probe-"
_PROBE = re.compile(rf"{PROBE_PREFIX}[0-9a-f]+(-\d+)?")
# Threads per race of the probe. Some stores fail when many writers meet, some when two are milliseconds apart.
_RACES = (2, 2, 2, 2, 16)
_TAIL_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Stat:
    """Size in bytes; sha256 hex of the content where the store keeps it, else None."""

    size: int
    sha256: str | None


class ObjectStore(Protocol):
    """Objects under keys. An implementation is defined by its URI: it pickles, and connects anew in any process."""

    uri: str

    def put_new(self, key: str, body: bytes | pa.Buffer) -> bool:
        """Create the object, whole or not at all. False: another writer's object exists already and stays."""
        ...

    def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Bytes [start, end), complete or an error; `FileNotFoundError` if there is no such object.

        A negative `start` counts from the end and takes no `end`.
        """
        ...

    def stat(self, key: str) -> Stat | None:
        """Size and hash of the object, or None if there is none."""
        ...

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Keys that start with `prefix` and their sizes, in no particular order."""
        ...

    def open(self, key: str, size: int | None = None) -> pa.NativeFile:
        """Random access for Parquet. `size`, if the caller knows it, saves a request."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object if it exists. For `gc`, `probe` and reports: datasets never delete."""
        ...

    def probe(self) -> ConditionalCreate:
        """Find out by trying what conditional create is worth here; see `probe_conditional_create`."""
        ...

    def leftovers(self, min_age_s: float, delete: bool) -> Sequence[str]:
        """What probes and killed or foreign writers left, invisible to readers, and older than `min_age_s` seconds.

        Probe objects come first; a young one may be that of a job which is starting.
        """
        ...


class StoreUnavailable(ConnectionError):
    """The store gave no usable answer until the deadline. Running the same job again continues it."""


class ObjectTooLarge(ValueError):
    """An object is larger than anything that may stand under its key; the message names it."""


def read_object(store: ObjectStore, key: str, max_bytes: int) -> bytes:
    """A whole object; `ObjectTooLarge`, without reading more than that, where it has more than `max_bytes`."""
    body = store.get(key, 0, max_bytes + 1)
    if len(body) > max_bytes:
        raise ObjectTooLarge(f"{store.uri}/{key} has more than the {max_bytes:,} bytes that may stand there")
    return body


def replace_object(store: ObjectStore, key: str, body: bytes | pa.Buffer) -> None:
    """Put `body` in place of an existing object. For reports, which may be made again: data is never replaced."""
    if not store.put_new(key, body):
        store.delete(key)
        store.put_new(key, body)


def probe_conditional_create(create: Callable[[str, bytes], bool], delete: Callable[[str], None]) -> ConditionalCreate:
    """What `create(key, body) -> created?` is worth.

    `atomic`: of writers that race for a key exactly one wins. `advisory`: several do, since the store checks first and
    writes later. `none`: the store ignores the condition and overwrites. Found by races on scratch keys and by one
    create of a key that exists: 25 creates in all, seconds at most.
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
    """How many of `racers` threads that start together are told that they created `key`."""
    start = Barrier(racers)

    def racer(number: int) -> bool:
        start.wait()
        return create(key, b"racer %d" % number)

    with ThreadPoolExecutor(racers) as pool:
        return sum(pool.map(racer, range(racers)))


class RangeReader(io.RawIOBase):
    """A seekable file over a `get` of byte ranges; the bytes of a range come complete or the read fails.

    The last `_TAIL_BYTES` are kept once they are read: a Parquet file is asked for its end several times.
    """

    def __init__(self, get: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._get, self._size, self._at, self._tail = get, size, 0, b""

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
        body = self._range(self._at, end) if end > self._at else b""
        self._at += len(body)
        return body

    def _range(self, start: int, end: int) -> bytes:
        first = max(0, self._size - _TAIL_BYTES)
        if start < first:
            return self._get(start, end)
        self._tail = self._tail or self._get(first, self._size)
        return self._tail[start - first : end - first]


def is_probe(key: str) -> bool:
    """Whether a key is one of those that `probe` tries, which `gc` removes; nothing below a folder is."""
    return _PROBE.fullmatch(key) is not None


def is_older_than(min_age_s: float, written_at: float) -> bool:
    """Whether a time stamp (seconds since the epoch) is at least `min_age_s` ago. Only `gc` reads a clock."""
    return time.time() - written_at >= min_age_s
